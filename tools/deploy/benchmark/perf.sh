#!/usr/bin/env bash
# Build engines in all modes and measure them with batches of 1, 4 and 8: a table and a plot in output/.
#
#   ./perf.sh
#   ./perf.sh --voice=heart --no-waveglow --num_iters=3
#
#   --engine=onnxruntime|torch|magicmind    default onnxruntime
#   --tacotron2=FILE --waveglow=FILE --voice=NAME --random    as of run.sh
#   --models_dir=DIR                        instead of $MODEL_PATH; what is not exported or built yet will be
#   --json=FILE                             build configuration, default configs/deploy.json
#   --quant_modes MODE...                   default all: force_float32 force_float16 int8
#   and the options of infer_python/run.sh: --devices, --bs, --warmup_iters, --num_iters, --no-waveglow, -o, ...
#
# A mode that cannot be built or run has a row that says why.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help "$@"
run_module benchmark.perf "$@"
