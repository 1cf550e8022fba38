#!/usr/bin/env bash
# Set up and run the tests.
#
#   bash test/run_tests.sh              all but the slow ones
#   bash test/run_tests.sh --slow       every test: the slow ones start whole programs, and take as long again
#   bash test/run_tests.sh -k model     what pytest's options select

set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=test/setup.sh
source "$root/test/setup.sh"
setup_environment "$root"
cd "$root"
# Small models on few cores: threads that spin while they wait keep the others from working.
export OMP_WAIT_POLICY=PASSIVE
# File by file: what the tests of one share, such as a run over the emulated NPU, is then made by one process alone.
python -m pytest --numprocesses=auto --dist=loadfile "$@"
