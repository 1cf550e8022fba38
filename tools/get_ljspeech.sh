#!/usr/bin/env bash
# Fetch the LJ Speech dataset (13,100 clips, 24 hours of one voice, public domain) into DIR/LJSpeech-1.1.
#
#   bash tools/get_ljspeech.sh DIR
#   LJSPEECH_URL=https://mirror.example/LJSpeech-1.1.tar.bz2 bash tools/get_ljspeech.sh DIR
#
# 2.7 GB are downloaded, 3.8 GB unpacked. A download that broke off continues where it stopped; an archive that is
# already in DIR is used. It must have the published checksum, is unpacked whole or not at all, and then removed.
# LJSPEECH_URL names a mirror of https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/find_python.sh
source "$here/../test/find_python.sh" # fail
# shellcheck source=tools/download.sh
source "$here/download.sh" # download

url=${LJSPEECH_URL:-https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2}
# Published with torchaudio's torchaudio.datasets.LJSPEECH, and checked there at each download.
sha256=be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5
clips=13100
bytes=2748572632
unpacked_bytes=3801111440

case ${1:-} in
    -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    "" | -*) fail 2 "name the folder to put it in (--help says more)" ;;
esac
(($# == 1)) || fail 2 "name one folder, not $# (--help says more)"
if ! mkdir -p "$1" || [[ ! -w $1 ]]; then fail 1 "cannot write to $1"; fi
folder=$(cd "$1" && pwd)
target=$folder/LJSpeech-1.1
archive=$folder/LJSpeech-1.1.tar.bz2
exec {lock}<"$folder"
flock --nonblock "$lock" || (($? != 1)) || fail 1 "another run is writing to $folder: wait, or choose another folder"

check() { # check FOLDER: whether all clips are there, and a text for each
    local found both
    local -x LC_ALL=C # comm wants names in the order of their bytes
    [[ -f $1/metadata.csv && -d $1/wavs ]] || fail 1 "$1 lacks metadata.csv or wavs/: remove it and run this again"
    found=$(find "$1/wavs" -name '*.wav' -type f -size +43c | wc -l)
    both=$(comm -12 <(cut -d'|' -f1 "$1/metadata.csv" | sort -u) \
        <(find "$1/wavs" -name '*.wav' -printf '%f\n' | sed 's/\.wav$//' | sort) | wc -l)
    ((found == clips && both == clips)) ||
        fail 1 "$1 holds $found clips, $both of them with a text, must be $clips: remove it and run this again"
}

need() { # need BYTES WHAT: whether there is so much space
    local free
    free=$(df --output=avail -B1 "$folder" | tail -1)
    ((free >= $1)) || fail 1 "$folder has $((free / 1000000)) MB of free space, $2 needs $(($1 / 1000000)) MB"
}

size_of() { stat -c %s "$1" 2>/dev/null || echo 0; }

if [[ -d $target ]]; then
    check "$target"
    echo "$target is there, with all $clips clips"
    exit
fi
command -v bzip2 >/dev/null || fail 1 "bzip2 is needed to unpack the archive: apt-get install bzip2"
if [[ ! -f $archive ]]; then
    need $((bytes - $(size_of "$archive.part") + unpacked_bytes)) "the dataset"
    echo "downloading $url"
    download "$url" "$archive.part" "The same command goes on where it was. Without a network: fetch it elsewhere and put it to $archive;
LJSPEECH_URL=ADDRESS takes it from a mirror."
    mv "$archive.part" "$archive"
fi
need "$unpacked_bytes" "unpacking"
echo "checking $archive"
sum=$(sha256sum <"$archive" | cut -d' ' -f1)
if [[ $sum != "$sha256" ]]; then
    mv "$archive" "$archive.bad"
    fail 1 "$archive is not LJ Speech 1.1 (SHA256 $sum, not $sha256); it is $archive.bad now: run this again"
fi
echo "unpacking $archive"
rm -rf "$target.part"
mkdir "$target.part"
tar --extract --bzip2 --file "$archive" --directory "$target.part" --no-same-owner ||
    { rm -rf "$target.part" && fail 1 "cannot unpack $archive, see above"; }
check "$target.part/LJSpeech-1.1"
mv "$target.part/LJSpeech-1.1" "$target"
rm -rf "$target.part" "$archive" "$archive.bad"
echo "$target holds all $clips clips: train with --data_path=$target"
