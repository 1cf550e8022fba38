#!/usr/bin/env bash
# Measure the training speed of eight cards: one epoch from fresh weights.
#
#   bash test/train_performance_8p.sh --data_path=DIR --output_directory=DIR
#

set -euo pipefail
# shellcheck source=test/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "$RUN_OPTIONS" --nproc=8 --epochs=1 --resume=no "$@"
train perf
