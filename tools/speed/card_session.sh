#!/usr/bin/env bash
# Check, measure and train on a machine with a CUDA card but no network, which one has for ten minutes.
#
#   tools/speed/card_session.sh WORK OUT
#
# pack_for_card.sh makes WORK: WORK/wheels are wheels of what requirement.txt and requirement-corpus.txt want and the
# machine lacks, WORK/peers checkouts of NVIDIA's waveglow and tacotron2, if any.
# OUT gets what each part wrote, at once: a part that fails or takes too long is reported and skipped.
# SECONDS_IN_ALL (540) is shared out; the training of the voice gets what is left. HOURS (22) is the corpus's length.
# DEVICE=cpu is for trying the script itself, with HOURS=0.05 PARTS="tests corpus benchmark".

set -uo pipefail
if [[ $# != 2 || $1 == -h || $1 == --help ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0 || exit 2
fi
work=$(realpath "$1")
mkdir -p "$2" && out=$(realpath "$2") || exit 1
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
device=${DEVICE:-cuda}
end=$(($(date +%s) + ${SECONDS_IN_ALL:-540}))
jobs=$(nproc)
parts=" ${PARTS:-tests corpus benchmark training} "
export PYTHONUNBUFFERED=1 PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}

left() { echo $((end - $(date +%s))); }

part() { # part NAME SECONDS COMMAND...: its output in OUT/NAME.log, the end of it here, and how it ended
    local name=$1 limit=$2 began code=0
    shift 2
    ((limit < $(left))) || limit=$(left)
    ((limit > 5)) || { echo "== $name: no time left" | tee -a "$out/parts.txt"; return; }
    began=$(date +%s)
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
    tr '\r' '\n' <"$out/$name.log" | tail -n "${LINES_SHOWN:-12}"
    echo "== $name: exit code $code after $(($(date +%s) - began)) s, $(left) s left" | tee -a "$out/parts.txt"
}

wants() { [[ $parts == *" $1 "* ]]; }

wheels=("$work"/wheels/*.whl)
[[ ! -e ${wheels[0]} ]] || part wheels 90 python3 -m pip install -q --no-index --no-deps --no-compile --upgrade \
    --target "$work/site" "${wheels[@]}"
part versions 60 python3 -c '
import platform, torch, numpy, scipy
print("Python", platform.python_version(), "torch", torch.__version__, "numpy", numpy.__version__, "scipy", scipy.__version__)
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(), "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())'

# The corpus needs processors alone and the tests the card, and neither minds the other.
if wants corpus; then
    python3 tools/make_corpus.py "$work/corpus" --hours="${HOURS:-22}" --jobs=$((jobs > 4 ? jobs - 3 : jobs)) \
        >"$out/corpus.log" 2>&1 &
    corpus=$!
fi
! wants tests || part tests 120 python3 -m pytest -q -p no:cacheprovider test/unit/test_on_cuda.py
# What follows is measured, and wants the machine for itself.
if wants corpus; then
    while kill -0 "$corpus" 2>/dev/null && (($(left) > 60)); do sleep 1; done
    kill "$corpus" 2>/dev/null || true
    wait "$corpus"
    echo "== corpus: exit code $?, $(left) s left" | tee -a "$out/parts.txt"
fi
if wants benchmark; then
    peers=()
    [[ ! -d $work/peers ]] || peers=(--peer_path "$work/peers")
    for job in voice-infer waveglow-infer tacotron2-infer waveglow-train tacotron2-train; do
        [[ $device != cpu || $job == voice-infer ]] || continue
        part "$job" 60 python3 tools/benchmark.py "$job" --device="$device" --one_process --limit=30 --repeats=5 \
            --precision float32 tf32 half ${peers[@]+"${peers[@]}"} -o "$out/$job"
    done
fi
if wants training && (($(left) > 90)); then
    minutes=$(awk "BEGIN { print ($(left) - 60) / 60 }")
    part training "$(left)" python3 tools/train_voice.py "$work/corpus" "$work/checkpoints" --minutes="$minutes" \
        --tacotron2=heart/tacotron2
    for file in "$work"/checkpoints/tacotron2_*; do
        [[ ! -f $file ]] || split -b 15M "$file" "$out/$(basename "$file").part_"
    done
fi
cat "$out/parts.txt"
