#!/usr/bin/env bash
# Train WaveGlow to full accuracy on eight cards: 313 epochs, going on from the newest checkpoint.
#
#   bash test/train_full_8p.sh --data_path=DIR --output_directory=DIR
#
#   --data_path=DIR         corpus in LJ Speech's layout: wavs/*.wav, metadata.csv
#   --output_directory=DIR  for checkpoints (waveglow_<iteration>) and TensorBoard logs
#   --device=auto|cpu|cuda|npu   auto prefers npu, then cuda, then cpu
#   --config=FILE           default configs/waveglow.json
#   --batch_size=N          clips for each process      --epochs=N         passes over the corpus
#   --max_steps=N           end after N steps           --learning_rate=X
#   --amp=O0|O1|O2          float32, autocast, half     --loss_scale=N|dynamic
#   --workers=N             loader processes            --resume=auto|no|FILE
#   --nproc=N               processes on this machine   --profile=N        steps to profile
#   --debug                 tracebacks of errors in the input
#   --nnodes=N --node_rank=I --master_addr=HOST --master_port=PORT    several machines
#
# Logs: test/output/<rank>/train_<rank>.log; result: test/output/0/<CaseName>.log

set -euo pipefail
# shellcheck source=test/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OPTIONS=([nproc]=8)
parse_options "${TRAIN_OPTIONS[*]}" "$@"
train acc
