#!/usr/bin/env bash
# Export both models to ONNX: encoder, decoder_iter, decoder, postnet, waveglow, in $MODEL_PATH/onnx.
#
#   bash export_model/run.sh
#   bash export_model/run.sh --tacotron2=checkpoints/tacotron2_5000 --waveglow=checkpoints/waveglow_21000
#
#   --tacotron2=FILE --waveglow=FILE   checkpoints of any form; by default what get_datasets_and_models.sh
#                                      or you have fetched to $MODEL_PATH, else the voice heart
#   --config=FILE --symbols=FILE ...   what a checkpoint does not say of itself: docs/checkpoints.md
#   --voice=NAME                       both checkpoints of a voice of this repository
#   --random                           random weights at full size, to measure speed; in $MODEL_PATH/random
#   --models_dir=DIR                   instead of $MODEL_PATH
#   --engine=NAME                      changes nothing: the graphs are the same for all engines

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help "$@"
run_module export_model.export "$@"
