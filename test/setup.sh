# shellcheck shell=bash
# Make sure the Python packages of requirement.txt, requirement-corpus.txt and requirement-serve.txt are there.
# Sourced by demo.sh, run_tests.sh and tools/serve.sh.
#
# They go into the active virtual or conda environment, else into .venv, which is made on demand.
# Done once, and again when one of them has changed. Needs Python 3.10 or newer.

setup_environment() { # setup_environment ROOT
    local root=$1 python=python3 prefix installed wanted requirements
    if [[ -z ${VIRTUAL_ENV:-}${CONDA_PREFIX:-} ]]; then
        if [[ ! -f $root/.venv/bin/activate ]]; then
            "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
                echo "error: Python 3.10 or newer is needed, $("$python" --version) was found" >&2
                return 1
            }
            echo "making a virtual environment in .venv"
            "$python" -m venv "$root/.venv"
        fi
        # shellcheck disable=SC1091
        source "$root/.venv/bin/activate"
    fi
    prefix=$(python -c 'import sys; print(sys.prefix)')
    installed=$prefix/.installed_requirement.txt
    wanted=$(cat "$root/requirement.txt" "$root"/requirement-{corpus,serve}.txt)
    cmp -s "$installed" - <<<"$wanted" && return 0
    echo "installing requirement.txt, and what corpora and serving need, into $prefix (several minutes the first time)"
    requirements=$wanted
    # torch_npu determines the release of torch, and torch that of numpy.
    if python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch_npu") is None)'; then
        echo "torch_npu is installed: its torch and numpy stay as they are"
        requirements=$(grep -vE '^(torch|numpy)==' <<<"$requirements")
    fi
    python -m pip install --quiet --disable-pip-version-check -r /dev/stdin <<<"$requirements"
    # numba compiles a part of librosa at its first import and keeps it; of what two processes keep at once it makes a
    # mix, by which later ones end with a segmentation fault.
    python -c 'import librosa.core.pitch'
    cat >"$installed" <<<"$wanted"
}
