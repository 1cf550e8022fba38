#!/usr/bin/env bash
# Fetch NVIDIA's checkpoints of Tacotron2 and WaveGlow into $MODEL_PATH/checkpoints.
#
#   bash export_model/get_datasets_and_models.sh
#   bash export_model/get_datasets_and_models.sh --tacotron2=FILE --waveglow=FILE
#   bash export_model/get_datasets_and_models.sh --voice=heart
#
#   --tacotron2=FILE --waveglow=FILE   take these files, of any form, in place of a download; others that are there get a date
#   --voice=NAME                       take those of a voice of this repository
#   --models_dir=DIR                   instead of $MODEL_PATH
#   --engine=NAME                      changes nothing: the checkpoints are the same for all engines
#
# A download that broke off continues where it stopped. A file that is there stays, if it is still what was fetched:
# NVIDIA publishes no checksums, so those of the first time are kept, in checkpoints/SHA256SUMS.
# NGC_URL names another server than https://api.ngc.nvidia.com/v2/models/nvidia.

set -euo pipefail
# shellcheck source=tools/deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
# shellcheck source=tools/download.sh
source "$deploy_dir/../download.sh" # download
answer_help "" "$@"
arguments=("$@")
declare -A OPTIONS=()
while (($#)); do
    case $1 in
        --tacotron2=* | --waveglow=* | --voice=* | --models_dir=* | --engine=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --tacotron2 | --waveglow | --voice | --models_dir | --engine)
            (($# > 1)) || fail 2 "$1 needs a value (--help lists the options)"
            OPTIONS[${1#--}]=$2
            shift 2
            ;;
        *) fail 2 "unknown option $1 (--help lists the options)" ;;
    esac
done
server=${NGC_URL:-https://api.ngc.nvidia.com/v2/models/nvidia}
models_dir=${OPTIONS[models_dir]:-$MODEL_PATH}
folder=$models_dir/checkpoints
mkdir -p "$folder" || fail 1 "cannot write to $folder"
if [[ ${HOLDS_MODELS_DIR:-} != "$models_dir" ]]; then
    export HOLDS_MODELS_DIR=$models_dir
    run_python -m common.folder_lock "$models_dir" bash "$0" ${arguments[@]+"${arguments[@]}"}
    exit
fi

again=$(as_command bash "$0" ${arguments[@]+"${arguments[@]}"})

check_sum() { # check_sum NAME: whether it is what it was the first time; notes it down then
    local sum known
    sum=$(sha256sum <"$folder/$1" | cut -d' ' -f1)
    known=$(sed -n "s/  $1\$//p" "$folder/SHA256SUMS" 2>/dev/null || true)
    if [[ -z $known ]]; then
        echo "$sum  $1" >>"$folder/SHA256SUMS"
    elif [[ $known != "$sum" ]]; then
        fail 1 "$folder/$1 is not what was fetched first (SHA256 $sum, not $known): $(as_command rm "$folder/$1") && $again"
    fi
}

check_contents() { # check_contents KIND FILE: whether it is a whole checkpoint of this model
    run_python -c '
import sys
from common import program
from common.checkpoints import interchange
program.run(lambda: interchange.read(sys.argv[2], sys.argv[1]) and None)' "$1" "$2"
}

hint="Without a network: fetch it elsewhere and give it: $again --tacotron2=FILE --waveglow=FILE
Or take the voice heart: $again --voice=heart"

keep() { # keep FILE GIVEN: set a file aside that is there, and is not the one given
    [[ -f $1 ]] && ! cmp -s "$1" "$2" || return 0
    local kept
    kept=$1_$(date -r "$1" +%Y-%m-%d_%H-%M-%S)
    [[ ! -e $kept ]] || fail 1 "$kept is there: move it, to keep $1 under that name"
    mv "$1" "$kept"
    echo "what was there is now $kept" >&2
}

get() { # get KIND NAME PATH: the checkpoint of a model, from a local file or from the server
    local given=${OPTIONS[$1]:-} file=$folder/$2
    if [[ -n $given ]]; then
        [[ -f $given ]] || fail 1 "no file $given"
        check_contents "$1" "$given"
        cp "$given" "$file.copy"
        keep "$file" "$given"
        sed -i "/  $2\$/d" "$folder/SHA256SUMS" 2>/dev/null || true
        mv "$file.copy" "$file"
    elif [[ -f $models_dir/$2 && ! -f $file ]]; then
        echo "$models_dir/$2" # fetched by hand, as the README of Cambricon's sample has it
        return
    elif [[ ! -f $file ]]; then
        echo "downloading $server/$3/$2"
        download "$server/$3/$2" "$file.part" "$hint"
        check_contents "$1" "$file.part" || { rm "$file.part" && exit 1; }
        mv "$file.part" "$file"
    fi
    check_sum "$2"
    echo "$file"
}

if [[ -n ${OPTIONS[voice]:-} ]]; then
    files=$(run_python -c '
import sys
from common import program, voices
def main():
    voice = voices.find_voice(sys.argv[1])
    print(voice.tacotron2, voice.waveglow, sep="\n")
program.run(main)' "${OPTIONS[voice]}")
    OPTIONS[tacotron2]=${files%%$'\n'*} OPTIONS[waveglow]=${files#*$'\n'}
fi

get tacotron2 nvidia_tacotron2pyt_fp16_20190427 tacotron2_pyt_ckpt_amp/versions/19.09.0/files
get waveglow nvidia_waveglow256pyt_fp16 waveglow_ckpt_amp_256/versions/19.10.0/files
