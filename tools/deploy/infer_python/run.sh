#!/usr/bin/env bash
# Speak with the engines, and report how long it takes.
#
#   bash infer_python/run.sh QUANT_MODE BS INPUT_LENGTH [OPTION...]
#   bash infer_python/run.sh force_float16 1 128
#   bash infer_python/run.sh int8 4 128 --devices=0,1 --num_iters=100 --log_file=latency.txt
#   bash infer_python/run.sh force_float32 4 128 --text=story.txt -o story
#
# Wavs and JSON of earlier runs stay, under a dated name.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help infer_python.infer "$@"
require_values "QUANT_MODE BS INPUT_LENGTH" "$@"
run_module infer_python.infer --quant_mode "$1" --bs "$2" --il "$3" "${@:4}"
