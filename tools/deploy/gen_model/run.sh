#!/usr/bin/env bash
# Build engines from the exported graphs for batches of BS_MIN to BS_MAX, usually BS.
#
#   bash gen_model/run.sh QUANT_MODE BS_MIN BS BS_MAX [OPTION...]
#   bash gen_model/run.sh force_float16 1 4 8
#   bash gen_model/run.sh force_float32 1 4 8 --engine=magicmind --json=my.json
#
# Complete engines of these graphs and options that are already there are kept.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help gen_model.build "$@"
require_values "QUANT_MODE BS_MIN BS BS_MAX" "$@"
run_module gen_model.build --quant_mode "$1" --bs "$2" "$3" "$4" "${@:5}"
