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

# Python with the repository's modules, and relative paths as seen from where the user stands.
run_python() { # run_python ARGUMENT...
    find_python
    PYTHONSAFEPATH=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" "$@"
}

run_module() { # run_module MODULE ARGUMENT...
    run_python -m "tools.deploy.$1" "${@:2}"
}

# To whom each option of a script goes that does several things. What is not shared is the last program's, which
# looks at its options now: nobody wants to hear of a wrong one after minutes of work.
share_out_options() { # share_out_options LAST_MODULE ARGUMENT...: sets models_dir and the arrays below
    local last=$1
    shift
    models_dir=$MODEL_PATH export_options=() build_options=() last_options=()
    while (($#)); do
        case $1 in
            --models_dir=*) models_dir=${1#*=} ;;
            --tacotron2=* | --waveglow=*) export_options+=("$1") ;;
            --json=*) build_options+=("$1") ;;
            --engine=* | --quant_mode=*) build_options+=("$1") last_options+=("$1") ;;
            --models_dir | --tacotron2 | --waveglow | --json | --engine | --quant_mode)
                (($# > 1)) || fail 2 "$1 needs a value (--help lists the options)"
                set -- "" "$1=$2" "${@:3}" # which comes next
                ;;
            *) last_options+=("$1") ;;
        esac
        shift
    done
    export_options+=("--models_dir=$models_dir")
    build_options+=("--models_dir=$models_dir")
    last_options+=("--models_dir=$models_dir")
    run_python -c '
import importlib, sys
from common import program
program.run(importlib.import_module(f"tools.deploy.{sys.argv.pop(1)}").read_arguments)' "$last" "${last_options[@]}"
}
