#!/usr/bin/env bash
# Build engines in all modes and measure them with batches of 1, 4 and 8: a table and a plot in output/.
#
#   ./perf.sh
#   ./perf.sh --voice=heart --no-waveglow --num_iters=3
#
# What is not exported or built yet will be. A mode that cannot be built or run has a row that says why.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help benchmark.perf "$@"
run_module benchmark.perf "$@"
