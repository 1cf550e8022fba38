#!/usr/bin/env bash
# Build engines of the exported graphs for batches of BS_MIN to BS_MAX, usually BS.
#
#   bash gen_model/run.sh QUANT_MODE BS_MIN BS BS_MAX [OPTION...]
#   bash gen_model/run.sh force_float16 1 4 8
#   bash gen_model/run.sh force_float32 1 4 8 --engine=magicmind --json=my.json
#
#   QUANT_MODE                              force_float32, force_float16 or int8 (also as qint8_mixed_float16)
#   --engine=onnxruntime|torch|magicmind    default onnxruntime
#   --json=FILE                             build configuration, default configs/deploy.json; also that of the sample
#   --models_dir=DIR                        instead of $MODEL_PATH
#   -o DIR                                  for the engines, default $MODEL_PATH/<engine>_<quant_mode>
#   --encoder=FILE --decoder=FILE ...       another graph than the one in $MODEL_PATH/onnx
#   --no-compare                            do not measure what the mode costs
#
# Engines that are there, whole, of these graphs and options, are kept.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help "$@"
require_values "QUANT_MODE BS_MIN BS BS_MAX" "$@"
run_module gen_model.build --quant_mode "$1" --bs "$2" "$3" "$4" "${@:5}"
