# shellcheck shell=bash
# Functions that the scripts of test/ and of tools/deploy/ share; they depend on nothing but their arguments. Sourced.

fail() { # fail CODE MESSAGE
    echo "error: $2" >&2
    exit "$1"
}

find_python() { # find_python ROOT: prints the active environment's Python, else that of ROOT/.venv, else python3
    local found=python3
    if [[ -n ${VIRTUAL_ENV:-}${CONDA_PREFIX:-} ]]; then
        found=python
    elif [[ -x $1/.venv/bin/python ]]; then
        found=$1/.venv/bin/python
    fi
    "$found" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' ||
        fail 1 "$found has no torch: $(printf 'pip install -r %q, or bash %q, which installs into .venv' \
            "$1/requirement.txt" "$1/test/demo.sh")"
    echo "$found"
}
