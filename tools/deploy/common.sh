# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.

deploy_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/deploy/env.sh
source "$deploy_dir/env.sh"
# shellcheck source=test/common.sh
source "$deploy_dir/../../test/common.sh" # root, fail, find_python

# The comment at the head of the calling script, if help is what was asked for.
answer_help() { # answer_help ARGUMENT...
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 0 ;;
        esac
    done
}

# What comes in front of the options.
require_values() { # require_values "NAME NAME..." ARGUMENT...
    local names argument
    read -ra names <<<"$1"
    for argument in "${@:2:${#names[@]}}"; do
        [[ $argument != -* ]] || break
        names=("${names[@]:1}")
    done
    ((${#names[@]} == 0)) || fail 2 "wanted are $1, and then options (--help says more)"
}

# A Python program of the repository, with relative paths as seen from where the user stands.
run_module() { # run_module MODULE ARGUMENT...
    local module=$1
    shift
    find_python
    PYTHONSAFEPATH=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" -m "tools.deploy.$module" "$@"
}

# To whom each option of a script goes that does several things.
share_out_options() { # share_out_options ARGUMENT...: sets models_dir and the arrays below
    local argument
    # shellcheck disable=SC2034  # the scripts use them
    models_dir=$MODEL_PATH export_options=() build_options=() infer_options=()
    for argument in "$@"; do
        case $argument in
            --models_dir=*) models_dir=${argument#*=} ;;
            --tacotron2=* | --waveglow=*) export_options+=("$argument") ;;
            --json=*) build_options+=("$argument") ;;
            --engine=*) build_options+=("$argument") infer_options+=("$argument") ;;
            *) infer_options+=("$argument") ;;
        esac
    done
    export_options+=("--models_dir=$models_dir")
    build_options+=("--models_dir=$models_dir")
    infer_options+=("--models_dir=$models_dir")
}
