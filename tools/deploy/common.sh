# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.

deploy_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/deploy/env.sh
source "$deploy_dir/env.sh"
# shellcheck source=test/find_python.sh
source "$deploy_dir/../../test/find_python.sh" # fail, find_python

# If help was asked for: print the comment at the head of the calling script, and the help of the Python program.
answer_help() { # answer_help MODULE ARGUMENT...; without a program the MODULE is ""
    local argument
    for argument in "${@:2}"; do
        case $argument in
            -h | --help)
                sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
                [[ -z $1 ]] || run_module "$1" --help
                exit
                ;;
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
    ((${#names[@]} == 0)) || fail 2 "give $1, and then options (--help says more)"
}

# A command in a message, to be pasted.
as_command() { # as_command WORD...
    printf '%q ' "$@" | sed 's/ $//'
}

# Python with the repository's modules, and relative paths as seen from where the user stands.
run_python() { # run_python ARGUMENT...
    local root python
    root=$(cd "$deploy_dir/../.." && pwd)
    python=$(find_python "$root") || exit
    PYTHONSAFEPATH=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" "$@"
}

run_module() { # run_module MODULE ARGUMENT...
    run_python -m "tools.deploy.$1" "${@:2}"
}
