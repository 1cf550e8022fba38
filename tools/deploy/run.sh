#!/usr/bin/env bash
# All of it: fetch the checkpoints, export, build engines for batches of 1 to 8, speak and report.
#
#   ./run.sh
#   ./run.sh --voice=heart
#   ./run.sh --engine=magicmind --devices=0,1
#   ./run.sh --tacotron2=checkpoints/tacotron2_5000 --waveglow=checkpoints/waveglow_21000
#
# What is there is kept: graphs, where no other checkpoints are named; engines of these graphs for these batches; wavs and
# reports. Without a network it speaks with the voice heart, and says so.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
answer_help run "$@"
run_module run "$@"
