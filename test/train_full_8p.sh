#!/usr/bin/env bash
# Train WaveGlow to full accuracy on eight cards: 313 epochs, going on from the newest checkpoint.
#
#   bash test/train_full_8p.sh --data_path=DIR --output_directory=DIR
#

set -euo pipefail
# shellcheck source=test/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "$RUN_OPTIONS" --nproc=8 "$@"
train acc
