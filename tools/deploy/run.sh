#!/usr/bin/env bash
# All of it: fetch the checkpoints, export, build engines for batches of 1 to 8, speak and report.
#
#   bash run.sh
#   bash run.sh --engine=magicmind --devices=0,1
#   bash run.sh --tacotron2=checkpoints/tacotron2_5000 --waveglow=checkpoints/waveglow_21000
#
#   --tacotron2=FILE --waveglow=FILE        checkpoints of any form, in place of NVIDIA's
#   --engine=onnxruntime|torch|magicmind    default onnxruntime
#   --models_dir=DIR                        instead of $MODEL_PATH
#   --json=FILE                             build configuration, default configs/deploy.json
#   --quant_mode=MODE                       instead of force_float16
#   and the options of infer_python/run.sh: --devices, --bs, --il, --num_iters, --no-waveglow, -o, ...
#
# Without a network it goes on with random weights, and says so.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
answer_help "$@"
share_out_options infer_python.infer "$@"
if ! bash "$deploy_dir/export_model/get_datasets_and_models.sh" "${export_options[@]}"; then
    # With checkpoints, or parts of them, it would not be these that the user hears.
    [[ ${#export_options[@]} == 1 && -z $(ls "$models_dir/checkpoints" 2>/dev/null) ]] || exit 1
    echo "going on with random weights" >&2
fi
run_module export_model.export "${export_options[@]}"
run_module gen_model.build --quant_mode=force_float16 --bs 1 4 8 "${build_options[@]}"
run_module infer_python.infer --quant_mode=force_float16 --bs=1 --il=128 "${last_options[@]}"
