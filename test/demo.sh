#!/usr/bin/env bash
# Hear the voice that comes with the repository, then hear how a WaveGlow learns to speak from nothing, in minutes on 2 CPU
# cores and without a download of speech.
#
#   bash test/demo.sh --text="Your own sentence."
#
#   --text=TEXT             another text to speak
#   --output_directory=DIR  default test/demo; a second run continues there
#   --device=auto|cpu|cuda|npu   default auto
#   --max_steps=N           steps of the training from nothing, default 1050

set -euo pipefail
test_path_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/common.sh
source "$test_path_dir/common.sh"
# shellcheck source=test/setup.sh
source "$test_path_dir/setup.sh"

parse_options "text output_directory device max_steps" \
    --text= "--output_directory=$test_path_dir/demo" --device=auto --max_steps=1050 "$@"
((!wants_help)) || { show_head && exit; }
((${#arguments[@]} == 0)) || fail 2 "unknown option ${arguments[0]} (--help lists the options)"
make_paths_absolute
setup_environment "$root"
cd "$root"

output=${OPTIONS[output_directory]}
device=--device=${OPTIONS[device]}
corpus=$output/corpus sentences=$test_path_dir/data/corpus

# The configuration asks for half precision, which a processor without bfloat16 is slow in.
amp=$(python -c '
import sys
from common.device import pick_device
from common.layers.matmul import is_slow_in_half
print("O0" if is_slow_in_half(pick_device(sys.argv[1])) else "O1")' "${OPTIONS[device]}")

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

sentence="This voice was trained by the programs of this repository."
steps=${OPTIONS[max_steps]}

echo "== 1 of 6: the voice that comes with the repository =="
python tools/synthesize.py "$sentence" "$device" -o "$output/speech.wav"
if [[ -n ${OPTIONS[text]} ]]; then
    python tools/synthesize.py "${OPTIONS[text]}" "$device" -o "$output/your_text.wav"
fi

echo "== 2 of 6: another program speaks texts to make a corpus =="
python tools/make_corpus.py "$corpus" --hours=1

echo "== 3 of 6: a WaveGlow learns from nothing =="
for end in 1 "$steps"; do # the first checkpoint lets you hear where it begins
    bash "$test_path_dir/train_full_8p.sh" "--data_path=$corpus" "$device" "--output_directory=$output/waveglow" \
        "--config=$root/configs/waveglow_demo.json" --nproc=1 "--amp=$amp" "--max_steps=$end"
    need "$output/waveglow/waveglow_$end"
done

echo "== 4 of 6: what it makes of speech that it has not heard =="
mapfile -t checkpoints < <(ls -v "$output"/waveglow/waveglow_*)
evaluate_all "$corpus" "${checkpoints[@]}"
python tools/synthesize.py "$sentence" --tacotron2 voices/heart/tacotron2.safetensors \
    --waveglow "$output/waveglow/waveglow_$steps" "$device" -o "$output/speech_after_minutes.wav"

echo "== 5 of 6: the voice's WaveGlow learns another speaker =="
bash "$test_path_dir/train_finetune_1p.sh" "--data_path=$sentences" "$device" \
    "--output_directory=$output/finetuned" "--config=$root/configs/waveglow_demo.json" \
    "--checkpoint_path=$root/voices/heart/waveglow.safetensors" "--amp=$amp" --max_steps=100 --learning_rate=3e-4
finetuned=$(find "$output/finetuned" -name 'waveglow_*' | sort -V | tail -n 1)
need "${finetuned:-$output/finetuned/waveglow}"

echo "== 6 of 6: what it makes of this speaker's sentences =="
evaluate_all "$sentences" "$finetuned"

learning=$output/waveglow/eval_waveglow_$steps/index.html
echo
echo "Listen to the product of a finished training, the voice that ships (voices/heart/README.md):"
echo "  $output/speech.wav"
[[ -z ${OPTIONS[text]} ]] || echo "  $output/your_text.wav"
echo "Listen to the product of minutes (words are understood; a longer training makes it less rough):"
echo "  WaveGlow from nothing, step by step, beside the recordings:  $learning"
echo "  the first sentence with this WaveGlow:                       $output/speech_after_minutes.wav"
echo "  the voice's WaveGlow with another speaker:                   $output/finetuned/eval_$(basename "$finetuned")/index.html"
if [[ -n ${DISPLAY:-}${WAYLAND_DISPLAY:-} && -z ${CI:-} ]] && command -v xdg-open >/dev/null; then
    xdg-open "$learning" >/dev/null 2>&1 || true
fi
