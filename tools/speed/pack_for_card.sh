#!/usr/bin/env bash
# Gather in one folder what card_session.sh needs on a machine without a network, and print the command for there.
#
#   bash tools/speed/pack_for_card.sh WORK
#
# WORK/wheels gets wheels at the versions that are pinned here, WORK/peers NVIDIA's waveglow and tacotron2 at the commits
# that docs/benchmark.md names. What is there already is kept. PACKAGES names what that machine lacks (by default, what a
# machine with PyTorch, pytest and TensorBoard lacks), PYTHON_VERSION (3.12) and PLATFORM (manylinux_2_28_x86_64) what
# its wheels are for.

set -euo pipefail
[[ $# == 1 && $1 != -h && $1 != --help ]] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit $(($# == 1 ? 0 : 2)); }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1/wheels" "$1/peers"
work=$(cd "$1" && pwd)
read -ra packages <<<"${PACKAGES:-librosa soundfile soxr inflect unidecode hibari-tts audioread lazy_loader pooch \
    platformdirs decorator cffi pycparser more-itertools typeguard}"

python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$work/wheels" \
    --python-version "${PYTHON_VERSION:-3.12}" --platform "${PLATFORM:-manylinux_2_28_x86_64}" \
    --constraint "$root/requirement.txt" --constraint "$root/requirement-corpus.txt" "${packages[@]}"

checkout() { # checkout NAME COMMIT
    [[ ! -d $work/peers/$1 ]] || return 0
    rm -rf "$work/peers/$1.new"
    git clone --quiet "https://github.com/NVIDIA/$1" "$work/peers/$1.new"
    git -C "$work/peers/$1.new" checkout --quiet "$2"
    mv "$work/peers/$1.new" "$work/peers/$1"
}
checkout waveglow 8afb643
checkout tacotron2 185cd24

echo "$(du -sm "$work" | cut -f1) MB in $work, beside the checkout's $(git -C "$root" ls-files -z |
    (cd "$root" && xargs -0 du -cm | tail -n 1 | cut -f1)) MB. On the machine with the card:"
printf '  bash tools/speed/card_session.sh %q OUT\n' "$(basename "$work")"
