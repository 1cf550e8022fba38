#!/usr/bin/env bash
# Finetune a WaveGlow on one card.
#
#   bash test/train_finetune_1p.sh --data_path=DIR --output_directory=DIR --checkpoint_path=DIR/waveglow_1000
#

set -euo pipefail
# shellcheck source=test/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "$RUN_OPTIONS" --nproc=1 "$@"
train acc checkpoint_path
