#!/usr/bin/env bash
# Export both models to ONNX: encoder, decoder_iter, decoder, postnet, waveglow, in $MODEL_PATH/onnx.
#
#   bash export_model/run.sh
#   bash export_model/run.sh --tacotron2=checkpoints/tacotron2_5000 --waveglow=checkpoints/waveglow_21000
#
# The default is the checkpoints that you or get_datasets_and_models.sh put into $MODEL_PATH, else the voice heart.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help export_model.export "$@"
run_module export_model.export "$@"
