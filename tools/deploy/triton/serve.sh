#!/usr/bin/env bash
# Start the Triton server that comes in the package nvidia-pytriton, on this machine's CPU.
#
#   bash tools/deploy/triton/serve.sh ENVIRONMENT REPOSITORY [OPTION OF TRITONSERVER...]
#
#   python3 -m venv triton && triton/bin/pip install -r requirement-triton.txt
#   python -m tools.deploy.triton -o repository --backend=python
#   bash tools/deploy/triton/serve.sh triton repository --http-port=8000
#
# It has Triton's Python backend and no other. On a card use NVIDIA's container, and a repository without --backend.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help "" "$@"
require_values "ENVIRONMENT REPOSITORY" "$@"
repository=$2
root=$(cd "$deploy_dir/../.." && pwd)
install=$(as_command "$1/bin/pip" install -r "$root/requirement-triton.txt")
environment=$(cd "$1" 2>/dev/null && pwd) || fail 1 "no folder $1: $(as_command python3 -m venv "$1") && $install"
packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
version=$("$environment/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
server=$packages/pytriton/tritonserver
[[ -x $server/bin/tritonserver ]] || fail 1 "$environment has no nvidia-pytriton: $install"
[[ -d $repository/speech ]] || fail 1 "$repository is no repository, write one: $(as_command \
    env "PYTHONPATH=$root" python -m tools.deploy.triton -o "$repository" --backend=python)"

backends=$(mktemp -d)
child=
trap 'rm -rf "$backends"' EXIT
trap '[[ -z $child ]] || kill "$child"' TERM INT
cp -r "$server/backends/." "$backends"
cp "$server/python_backend_stubs/$version/triton_python_backend_stub" "$backends/python/"
PATH=$environment/bin:$PATH LD_LIBRARY_PATH=$packages/nvidia_pytriton.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    "$server/bin/tritonserver" --model-repository="$repository" --backend-directory="$backends" "${@:3}" &
child=$!
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do # a signal has ended the wait, the server takes a moment
    code=0
    wait "$child" || code=$?
done
exit "$code"
