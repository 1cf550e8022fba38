#!/usr/bin/env bash
# Check, profile, measure and train on a machine with a CUDA card but no network, which one has for ten minutes.
#
#   tools/speed/card_session.sh WORK OUT
#
# pack_for_card.sh makes WORK: WORK/wheels are wheels of what requirement.txt and requirement-corpus.txt want and the
# machine lacks, WORK/peers checkouts of NVIDIA's models, if any.
# OUT gets at most five files of at most 16 MiB: parts.txt, which tells how each part ended; results.tar.gz, all that
# the parts wrote, renewed after each of them; weights.tar.part_*, the trained models in half precision, from which
# tools/make_voice.py makes a voice (`cat OUT/weights.tar.part_* | tar x`).
# A part that fails or takes too long is reported and skipped. PARTS chooses among them.
# SECONDS_IN_ALL (540) is shared out; a third of it is kept for the training of the voice, which gets all that is left.
# HOURS (22) is the corpus's length. DEVICE=cpu is for trying the script itself, with HOURS=0.2
# PARTS="tests corpus benchmark training".

set -uo pipefail
if [[ $# != 2 || $1 == -h || $1 == --help ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0 || exit 2
fi
work=$(realpath "$1")
mkdir -p "$2" && out=$(realpath "$2") || exit 1
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
results=$work/results
rm -rf "$results" && mkdir -p "$results" || exit 1
device=${DEVICE:-cuda}
seconds=${SECONDS_IN_ALL:-540}
end=$(($(date +%s) + seconds))
jobs=$(nproc)
parts=" ${PARTS:-tests corpus profile benchmark switches training} "
# 64 MiB come back in all.
largest=$((16 * 1024 * 1024)) pieces=3
export PYTHONUNBUFFERED=1 PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}

wants() { [[ $parts == *" $1 "* ]]; }

left() { echo $((end - $(date +%s))); }

say() { echo "== $*" | tee -a "$out/parts.txt"; }

pack() { # pack OPTION...: the results so far, whole or as before
    tar -C "$work" --warning=no-file-changed -czf "$out/results.new" "$@" results
    (($? < 2)) && mv "$out/results.new" "$out/results.tar.gz" # 1: the corpus's log has grown meanwhile
}

keep() { # the results so far; without the traces where they are too large to come back
    pack
    (($(stat -c %s "$out/results.tar.gz") <= largest)) || { pack --exclude='*.json.gz' && say "results: without traces"; }
}

part() { # part NAME SECONDS COMMAND...: its output in results/NAME.log, the end of it here, and how it ended
    local name=$1 limit=$2 began code=0 free
    shift 2
    free=$(left)
    [[ $name == training || $name == weights ]] || ! wants training || free=$((free - seconds / 3))
    ((limit < free)) || limit=$free
    ((limit > 5)) || { say "$name: no time left"; return; }
    began=$(date +%s)
    timeout -k 5 "$limit" "$@" >"$results/$name.log" 2>&1 || code=$?
    tr '\r' '\n' <"$results/$name.log" | tail -n "${LINES_SHOWN:-12}"
    say "$name: exit code $code after $(($(date +%s) - began)) s, $(left) s left"
    keep
}

newest() { # newest MODEL: its last checkpoint
    find "$work/checkpoints" -maxdepth 1 -type f -name "$1_*" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-
}

return_weights() { # those of the newest checkpoints, as a voice has them, in as many pieces as come back
    local tacotron2 waveglow made
    tacotron2=$(newest tacotron2) waveglow=$(newest waveglow)
    [[ $tacotron2 && $waveglow ]] || return
    rm -rf "$work/weights" "$out"/weights.tar.part_* && mkdir "$work/weights"
    part weights 60 python3 -c '
import sys
from pathlib import Path
from tools.make_voice import shipped
for path in map(Path, sys.argv[2:]):
    Path(sys.argv[1], f"{path.name}.safetensors").write_bytes(shipped(str(path), path.name.partition("_")[0]))
' "$work/weights" "$tacotron2" "$waveglow"
    [[ -f $work/weights/$(basename "$waveglow").safetensors ]] || return # the last one
    tar -C "$work" -c weights | split -b 16000K - "$out/weights.tar.part_"
    made=("$out"/weights.tar.part_*)
    say "weights: $(basename "$tacotron2") and $(basename "$waveglow") in ${#made[@]} pieces"
    ((${#made[@]} <= pieces)) || say "weights: more than the $pieces pieces that come back"
}

wheels=("$work"/wheels/*.whl)
[[ ! -e ${wheels[0]} ]] || part wheels 90 python3 -m pip install -q --no-index --no-deps --no-compile --upgrade \
    --target "$work/site" "${wheels[@]}"
part versions 60 python3 -c '
import platform, torch, numpy, scipy
print("Python", platform.python_version(), "torch", torch.__version__, "numpy", numpy.__version__, "scipy", scipy.__version__)
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(), "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())'

# The tests are listed one by one, so that one knows of those that ended where time runs out.
# The corpus needs processors alone and the tests the card, and neither minds the other.
if wants corpus; then
    python3 tools/make_corpus.py "$work/corpus" --hours="${HOURS:-22}" --jobs=$((jobs > 4 ? jobs - 3 : jobs)) \
        >"$results/corpus.log" 2>&1 &
    corpus=$!
fi
! wants tests || part tests 120 python3 -m pytest -v --durations=15 -p no:cacheprovider test/unit/test_on_cuda.py
# What follows is measured, and wants the machine for itself.
if wants corpus; then
    while kill -0 "$corpus" 2>/dev/null && (($(left) > 60)); do sleep 1; done
    kill "$corpus" 2>/dev/null || true
    wait "$corpus"
    say "corpus: exit code $?, $(left) s left"
fi
! wants profile || part profile 90 python3 -m tools.speed.kernels "$results/profile" --device="$device"
if wants benchmark; then
    peers=()
    [[ ! -d $work/peers ]] || peers=(--peer_path "$work/peers")
    for job in voice-infer waveglow-infer tacotron2-infer waveglow-train tacotron2-train; do
        [[ $device != cpu || $job == voice-infer ]] || continue
        part "$job" 75 python3 tools/benchmark.py "$job" --device="$device" --one_process --limit=45 --repeats=3 \
            --precision float32 tf32 half ${peers[@]+"${peers[@]}"} -o "$results/$job"
    done
fi
! wants switches || part switches 100 python3 -m tools.speed.switches "$results/switches" --device="$device" --limit=80
if wants training; then
    # Half a minute at least, and a minute for what is before and behind it.
    if (($(left) > 90)); then
        minutes=$(awk "BEGIN { print ($(left) - 60) / 60 }")
        part training "$(left)" python3 tools/train_voice.py "$work/corpus" "$work/checkpoints" --minutes="$minutes" \
            --tacotron2=heart/tacotron2 --device="$device"
        return_weights
    else
        say "training: no time left"
    fi
fi
cat "$out/parts.txt"
