#!/usr/bin/env bash
# Speech as a service, with OpenAI's interface: POST /v1/audio/speech. docs/serving.md says more.
#
#   bash tools/serve.sh                       # the voice that comes with the repository, on http://127.0.0.1:8000
#   bash tools/serve.sh --tacotron2=FILE --waveglow=FILE --host=0.0.0.0 --port=8000 --api_key_file=FILE
#   bash tools/serve.sh --help                # all options
#
# Packages go into the active virtual or conda environment, else into .venv.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=test/setup.sh
source "$root/test/setup.sh"
setup_environment "$root"
export PYTHONSAFEPATH=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec python -m tools.serve.main "$@"
