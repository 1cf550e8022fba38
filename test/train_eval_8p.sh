#!/usr/bin/env bash
# Synthesize the held-back clips of a corpus from their mel spectrograms, on eight cards, and measure them.
#
#   bash test/train_eval_8p.sh --data_path=DIR --output_directory=DIR --pth_path=DIR/waveglow_21000
#
# Wavs, evaluation.json and index.html go to DIR/eval_<checkpoint>.
#

set -euo pipefail
# shellcheck source=test/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "$RUN_OPTIONS" --nproc=8 "$@"
evaluate
