#!/usr/bin/env bash
# All of it: fetch the checkpoints, export, build engines for batches of 1 to 8, speak and report.
#
#   ./run.sh
#   ./run.sh --voice=heart
#   ./run.sh --engine=magicmind --devices=0,1
#   ./run.sh --tacotron2=checkpoints/tacotron2_5000 --waveglow=checkpoints/waveglow_21000
#
#   --tacotron2=FILE --waveglow=FILE        checkpoints of any form, in place of NVIDIA's
#   --voice=NAME                            both of a voice of this repository, as heart
#   --random                                random weights at full size, to measure speed; in a folder of their own
#   --engine=onnxruntime|torch|magicmind    default onnxruntime
#   --models_dir=DIR                        instead of $MODEL_PATH
#   --json=FILE                             build configuration, default configs/deploy.json
#   --quant_mode=MODE                       force_float32, force_float16 (default) or int8
#   and the options of infer_python/run.sh: --devices, --bs, --il, --num_iters, --no-waveglow, --log_file, -o, ...
#
# What is there stays: graphs, where no other checkpoints are named; engines of these graphs for these batches; wavs and
# reports. Without a network it speaks with the voice heart, and says so.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
answer_help "$@"
run_module run "$@"
