#!/usr/bin/env bash
# Synthesize the held-back clips of a corpus from their mel spectrograms, on eight cards, and measure them.
#
#   bash test/train_eval_8p.sh --data_path=DIR --output_directory=DIR --pth_path=DIR/waveglow_21000
#
#   --data_path=DIR         corpus in LJ Speech's layout: wavs/*.wav, metadata.csv
#   --pth_path=FILE         checkpoint
#   --output_directory=DIR  wavs, evaluation.json and index.html go to DIR/eval_<checkpoint>
#   --sigma=X               scale of the noise, default 0.6
#   --denoiser_strength=X   0 = off, the default; try 0.1
#   --seed=N                of the noise                --chunk_frames=N   less takes less memory
#   --amp=O0|O1|O2          float32, autocast, half     --batch_size=N     for the result's name only
#   --device=auto|cpu|cuda|npu   auto prefers npu, then cuda, then cpu
#   --device_id=N           card to use with --nproc=1
#   --nproc=N               processes on this machine   --debug            tracebacks
#   --nnodes=N --node_rank=I --master_addr=HOST --master_port=PORT    several machines
#
# Logs: test/output/<rank>/train_<rank>.log; result: test/output/0/<CaseName>.log

set -euo pipefail
# shellcheck source=test/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OPTIONS=([nproc]=8)
parse_options "${EVAL_OPTIONS[*]}" "$@"
evaluate
