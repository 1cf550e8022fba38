#!/usr/bin/env bash
# Build engines in all modes and measure them with batches of 1, 4 and 8: a table and a plot in output/.
#
#   bash benchmark/perf.sh
#   bash benchmark/perf.sh --no-waveglow --num_iters=3
#
#   --engine=onnxruntime|torch|magicmind    default onnxruntime
#   --models_dir=DIR                        instead of $MODEL_PATH; what is not exported yet will be
#   --json=FILE                             build configuration, default configs/deploy.json
#   and the options of infer_python/run.sh: --devices, --warmup_iters, --num_iters, --no-waveglow, -o, ...

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
answer_help "$@"
share_out_options benchmark.perf "$@"
if [[ ! -f $models_dir/onnx/contents.json ]]; then
    run_module export_model.export "${export_options[@]}"
fi
for quant_mode in force_float32 force_float16 int8; do
    run_module gen_model.build "--quant_mode=$quant_mode" --bs 1 4 8 "${build_options[@]}"
done
run_module benchmark.perf "${last_options[@]}"
