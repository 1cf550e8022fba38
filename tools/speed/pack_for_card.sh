#!/usr/bin/env bash
# Gather in one folder what card_session.sh needs on a machine without a network, and print the command for there.
#
#   bash tools/speed/pack_for_card.sh WORK
#
# WORK/wheels gets wheels at the versions that are pinned here, WORK/peers NVIDIA's waveglow, tacotron2 and, of its
# DeepLearningExamples, the folders of both, at the commits that docs/benchmark.md names. What is there already is kept.
# PACKAGES names what that machine lacks (by default, what a machine with PyTorch, ONNX Runtime, pytest and TensorBoard
# lacks), PYTHON_VERSION (3.12) and PLATFORM (x86-64 with glibc 2.28) what its wheels are for.

set -euo pipefail
[[ $# == 1 && $1 != -h && $1 != --help ]] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit $(($# == 1 ? 0 : 2)); }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1/wheels" "$1/peers"
work=$(cd "$1" && pwd)
read -ra packages <<<"${PACKAGES:-librosa soundfile soxr inflect unidecode hibari-tts audioread lazy_loader pooch \
    platformdirs decorator cffi pycparser more-itertools typeguard}"

# pip takes a wheel for an older glibc only where that is named, too.
read -ra platforms <<<"${PLATFORM:-manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64}"

python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$work/wheels" \
    --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]/#/--platform=}" \
    --constraint "$root/requirement.txt" --constraint "$root/requirement-corpus.txt" "${packages[@]}"

checkout() { # checkout NAME COMMIT [FOLDER...]: the files alone, since what travels there may have to be small
    local new=$work/peers/$1.new folders=("${@:3}")
    [[ ! -d $work/peers/$1 ]] || return 0
    rm -rf "$new"
    git init --quiet "$new"
    git -C "$new" remote add origin "https://github.com/NVIDIA/$1"
    ((${#folders[@]} == 0)) || git -C "$new" sparse-checkout set "${folders[@]}"
    git -C "$new" fetch --quiet --depth 1 --filter=blob:none origin "$2"
    git -C "$new" checkout --quiet FETCH_HEAD
    rm -rf "$new/.git"
    mv "$new" "$work/peers/$1"
}
checkout waveglow 8afb643df59265016af6bd255c7516309d675168
checkout tacotron2 185cd24e046cc1304b4f8e564734d2498c6e2e6f
checkout DeepLearningExamples 729963dd47e7c8bd462ad10bfac7a7b0b604e6dd \
    PyTorch/SpeechSynthesis/Tacotron2/{tacotron2,tacotron2_common,waveglow}

echo "$(du -sm "$work" | cut -f1) MB in $work, beside the checkout's $(git -C "$root" ls-files -z |
    (cd "$root" && xargs -0 du -cm | tail -n 1 | cut -f1)) MB. On the machine with the card:"
printf '  bash tools/speed/card_session.sh %q OUT\n' "$(basename "$work")"
