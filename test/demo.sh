#!/usr/bin/env bash
# Hear both models learn, from text alone and without a download of speech, in minutes on 2 CPU cores.
#
#   bash test/demo.sh
#
#   --output_directory=DIR  default test/demo; run again, it goes on where it was
#   --device=auto|cpu|cuda|npu   default auto
#   --max_steps=N           steps of WaveGlow's training from nothing, default 900; Tacotron2 makes two thirds as many

set -euo pipefail
test_path_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/common.sh
source "$test_path_dir/common.sh"
# shellcheck source=test/setup.sh
source "$test_path_dir/setup.sh"

OPTIONS=([device]=auto [max_steps]=900 [output_directory]=$test_path_dir/demo)
parse_options "" "$@"
make_absolute output_directory
setup_environment "$root"
cd "$root"

output=${OPTIONS[output_directory]}
device=--device=${OPTIONS[device]}
corpus=$output/corpus sentences=$test_path_dir/data/corpus

# A stage that was stopped ends well, with a checkpoint; the next one would only find that something is missing.
need() { # need FILE
    [[ -e $1 ]] && return
    echo "stopped; the same command goes on from here"
    exit 0
}

evaluate_all() { # evaluate_all DATA CHECKPOINT...: the page of the last plays those before it too
    local data=$1 checkpoint folder earlier=
    shift
    for checkpoint in "$@"; do
        folder=$(dirname "$checkpoint")
        bash "$test_path_dir/train_eval_8p.sh" "--data_path=$data" "$device" "--output_directory=$folder" \
            "--pth_path=$checkpoint" --nproc=1 "--earlier=$earlier"
        need "$folder/eval_$(basename "$checkpoint")/index.html"
        earlier+=${earlier:+,}$folder/eval_$(basename "$checkpoint")
    done
}

echo "== 1 of 6: a corpus: another program speaks texts =="
python tools/make_corpus.py "$corpus" --hours=1

echo "== 2 of 6: WaveGlow learns from nothing =="
for steps in 1 "${OPTIONS[max_steps]}"; do # the first checkpoint lets you hear where it begins
    bash "$test_path_dir/train_full_8p.sh" "--data_path=$corpus" "$device" "--output_directory=$output/waveglow" \
        "--config=$root/configs/waveglow_demo.json" --nproc=1 "--max_steps=$steps"
    need "$output/waveglow/waveglow_$steps"
done
echo "== 3 of 6: what it makes of speech that it has not heard =="
mapfile -t checkpoints < <(ls -v "$output"/waveglow/waveglow_*)
evaluate_all "$corpus" "${checkpoints[@]}"

echo "== 4 of 6: WaveGlow learns another speaker =="
bash "$test_path_dir/train_finetune_1p.sh" "--data_path=$sentences" "$device" \
    "--output_directory=$output/finetuned" "--config=$root/configs/waveglow_demo.json" \
    "--checkpoint_path=$output/waveglow/waveglow_${OPTIONS[max_steps]}" --max_steps=100 --learning_rate=3e-4
finetuned=$output/finetuned/waveglow_$((OPTIONS[max_steps] + 100))
need "$finetuned"
evaluate_all "$sentences" "$finetuned"

echo "== 5 of 6: Tacotron2 learns to read this speaker's 24 sentences =="
steps=$((OPTIONS[max_steps] * 2 / 3))
bash "$test_path_dir/train_full_8p.sh" --network=Tacotron2 "--data_path=$sentences" "$device" \
    "--output_directory=$output/tacotron2" "--config=$root/configs/tacotron2_demo.json" --nproc=1 "--max_steps=$steps"
need "$output/tacotron2/tacotron2_$steps"

echo "== 6 of 6: text to speech =="
# A sentence it has learned from: with so little speech it knows few others.
sentence=$(tail -n 1 "$sentences/metadata.csv" | tr -d '\r')
python tools/synthesize.py "${sentence##*|}" --tacotron2 "$output/tacotron2/tacotron2_$steps" \
    --waveglow "$finetuned" "$device" -o "$output/speech.wav"

learning=$output/waveglow/eval_waveglow_${OPTIONS[max_steps]}/index.html
echo
echo "Listen to what minutes of training give; a good voice takes hours to days (docs/voice.md)."
echo "WaveGlow from nothing, step by step:  $learning"
echo "WaveGlow with another speaker:        $output/finetuned/eval_$(basename "$finetuned")/index.html"
echo "text to speech:                       $output/speech.wav"
if [[ -n ${DISPLAY:-}${WAYLAND_DISPLAY:-} && -z ${CI:-} ]] && command -v xdg-open >/dev/null; then
    xdg-open "$learning" >/dev/null 2>&1 || true
fi
