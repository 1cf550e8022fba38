#!/usr/bin/env bash
# Hear it speak, then watch a WaveGlow learn to: some ten minutes on 2 CPU cores.
#
#   bash test/demo.sh
#   bash test/demo.sh --text="Any text of yours."
#
#   --text=TEXT             what the voice says
#   --output_directory=DIR  default test/demo; run again, it goes on where it was
#   --device=auto|cpu|cuda|npu   default auto
#   --max_steps=N           steps of the training from nothing, default 1200

set -euo pipefail
test_path_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/common.sh
source "$test_path_dir/common.sh"
# shellcheck source=test/setup.sh
source "$test_path_dir/setup.sh"

OPTIONS=([device]=auto [max_steps]=1200 [output_directory]=$test_path_dir/demo
    [text]="This voice was trained with the code that you have just installed.")
parse_options "" "$@"
make_absolute output_directory
setup_environment "$root"
cd "$root"

output=${OPTIONS[output_directory]}
corpus=$output/corpus
device=--device=${OPTIONS[device]}
config=--config=$root/configs/waveglow_demo.json

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

echo "== 1 of 5: the voice that comes with the repository =="
python tools/synthesize.py "${OPTIONS[text]}" "$device" -o "$output/speech.wav"
echo "listen: $output/speech.wav"

echo "== 2 of 5: a corpus: another program speaks texts =="
python tools/make_corpus.py "$corpus" --hours=1

echo "== 3 of 5: a WaveGlow learns from nothing =="
for steps in 1 "${OPTIONS[max_steps]}"; do # the first checkpoint lets you hear where it begins
    bash "$test_path_dir/train_full_8p.sh" "--data_path=$corpus" "$device" "--output_directory=$output/learning" \
        "$config" --nproc=1 "--max_steps=$steps"
    need "$output/learning/waveglow_$steps"
done
mapfile -t checkpoints < <(ls -v "$output"/learning/waveglow_*)
evaluate_all "$corpus" "${checkpoints[@]}"

echo "== 4 of 5: the voice's WaveGlow learns another speaker =="
bash "$test_path_dir/train_finetune_1p.sh" "--data_path=$test_path_dir/data/corpus" "$device" \
    "--output_directory=$output/finetuning" "$config" "--checkpoint_path=$root/voices/heart/waveglow.safetensors" \
    --max_steps=100 --learning_rate=3e-4
mapfile -t checkpoints < <(ls -v "$output"/finetuning/waveglow_*)
finetuned=${checkpoints[-1]}
echo "== 5 of 5: its evaluation =="
evaluate_all "$test_path_dir/data/corpus" "$finetuned"

learning=$output/learning/eval_waveglow_${OPTIONS[max_steps]}/index.html
finetuning=$output/finetuning/eval_$(basename "$finetuned")/index.html
echo
echo "the voice, product of a finished training:  $output/speech.wav"
echo "it learns another speaker, a minute of it:  $finetuning"
echo "from nothing, what minutes of training give: $learning"
if [[ -n ${DISPLAY:-}${WAYLAND_DISPLAY:-} && -z ${CI:-} ]] && command -v xdg-open >/dev/null; then
    xdg-open "$learning" >/dev/null 2>&1 || true
fi
