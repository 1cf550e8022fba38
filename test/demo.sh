#!/usr/bin/env bash
# Set up and run the main jobs at CPU size: train WaveGlow, finetune it, evaluate it; train Tacotron2, let it speak.
#
#   bash test/demo.sh
#
#   --data_path=DIR         another corpus than the bundled one: wavs/*.wav, metadata.csv
#   --output_directory=DIR  default test/demo/<name of the corpus>; run again, it goes on from there
#   --device=auto|cpu|cuda|npu   default auto
#   --max_steps=N           steps of WaveGlow's training, default 500; Tacotron2 makes 8 for every 5 of them, at most 800

set -euo pipefail
test_path_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/common.sh
source "$test_path_dir/common.sh"
# shellcheck source=test/setup.sh
source "$test_path_dir/setup.sh"

OPTIONS=([data_path]=$test_path_dir/data/corpus [device]=auto [max_steps]=500)
parse_options "" "$@"
make_absolute data_path output_directory
: "${OPTIONS[output_directory]:=$test_path_dir/demo/$(basename "${OPTIONS[data_path]}")}"
setup_environment "$root"

output=${OPTIONS[output_directory]}
common=("--data_path=${OPTIONS[data_path]}" "--device=${OPTIONS[device]}")
training=("${common[@]}" "--output_directory=$output" "--config=$root/configs/waveglow_demo.json")

echo "== 1 of 5: training WaveGlow =="
bash "$test_path_dir/train_full_8p.sh" "${training[@]}" --nproc=1 "--max_steps=${OPTIONS[max_steps]}"
trained=$output/waveglow_${OPTIONS[max_steps]}
echo "== 2 of 5: finetuning WaveGlow =="
bash "$test_path_dir/train_finetune_1p.sh" "${training[@]}" "--checkpoint_path=$trained" --max_steps=40 --learning_rate=1e-4
finetuned=$output/waveglow_$((OPTIONS[max_steps] + 40))
echo "== 3 of 5: evaluation of WaveGlow =="
bash "$test_path_dir/train_eval_8p.sh" "${common[@]}" "--output_directory=$output" "--pth_path=$finetuned" --nproc=1

echo "== 4 of 5: training Tacotron2 =="
steps=$((OPTIONS[max_steps] < 500 ? (OPTIONS[max_steps] * 8 + 4) / 5 : 800))
bash "$test_path_dir/train_full_8p.sh" --network=Tacotron2 "${common[@]}" "--output_directory=$output" \
    "--config=$root/configs/tacotron2_demo.json" --nproc=1 "--max_steps=$steps"
echo "== 5 of 5: text to speech =="
# A sentence it has learned from: with so little speech it knows few others.
sentence=$(tail -n 1 "${OPTIONS[data_path]}/metadata.csv" | tr -d '\r')
(cd "$root" && python tools/synthesize.py "${sentence##*|}" --tacotron2 "$output/tacotron2_$steps" \
    --device "${OPTIONS[device]}" -o "$output/speech.wav")

page=$output/eval_$(basename "$finetuned")
echo
echo "checkpoints:  $output"
echo "speech:       $output/speech.wav"
echo "wavs:         $page/*_synthesis.wav"
echo "page:         $page/index.html"
