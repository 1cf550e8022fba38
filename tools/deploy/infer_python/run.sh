#!/usr/bin/env bash
# Speak with the engines, and report how long it takes.
#
#   bash infer_python/run.sh QUANT_MODE BS INPUT_LENGTH [OPTION...]
#   bash infer_python/run.sh force_float16 1 128
#   bash infer_python/run.sh int8 4 128 --devices=0,1 --num_iters=100 --log_file=latency.txt
#   bash infer_python/run.sh force_float32 4 128 --text=story.txt -o story
#
#   QUANT_MODE                              force_float32, force_float16 or int8, as built
#   --engine=onnxruntime|torch|magicmind    default onnxruntime
#   --models_dir=DIR                        instead of $MODEL_PATH; or a folder of engines
#   --devices=N,N                           cards, a process for each; on a CPU shares of it
#   --warmup_iters=N --num_iters=N          batches before it counts, default 3; that count, default 10
#   --bs=N,N                                several batches, one after the other
#   --all                                   the smallest, usual and largest batch that was built for
#   --no-waveglow                           spectrograms only
#   --text=FILE                             speak a text of any length, each line to a wav
#   --sigma=X --seed=N                      of WaveGlow's noise, default the voice's, else 0.6; of all random numbers
#   --log_file=FILE                         for the report, and FILE.json; or a folder for both; default the terminal
#   -o OUT                                  for wavs and JSON, default output/; those of earlier runs stay, dated

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help "$@"
require_values "QUANT_MODE BS INPUT_LENGTH" "$@"
run_module infer_python.infer --quant_mode "$1" --bs "$2" --il "$3" "${@:4}"
