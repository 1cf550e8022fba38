#!/usr/bin/env bash
# Make the demo corpus in LJ Speech's layout: corpus/wavs/*.wav, corpus/metadata.csv.
#
#   bash test/data/make_corpus.sh
#
# The sentences were written for this repository; flite's voice slt speaks them at 16 kHz, sox brings
# them to 22,050 Hz, cuts the silence at both ends and dithers what is left of it.
# Needs Debian's packages flite and sox.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
rm -rf corpus
mkdir -p corpus/wavs

number=0
while IFS='|' read -r written spoken; do
    number=$((number + 1))
    id=$(printf 'FL001-%04d' "$number")
    flite -voice slt -t "$spoken" -o "corpus/$id.wav"
    sox -R "corpus/$id.wav" -r 22050 -b 16 "corpus/wavs/$id.wav" \
        silence 1 0.02 0.5% reverse silence 1 0.02 0.5% reverse pad 0.05 0.05 norm -3
    rm "corpus/$id.wav"
    printf '%s|%s|%s\n' "$id" "$written" "$spoken" >>corpus/metadata.csv
done <<'SENTENCES'
The river was low that summer.|The river was low that summer.
She counted 7 boats at the pier.|She counted seven boats at the pier.
Nobody asked where the letter came from.|Nobody asked where the letter came from.
A cold wind moved through the open door.|A cold wind moved through the open door.
We shall meet again at noon.|We shall meet again at noon.
He tuned the old radio with great care.|He tuned the old radio with great care.
The train to the coast leaves at 5.|The train to the coast leaves at five.
Bring a lamp, and mind the third step.|Bring a lamp, and mind the third step.
Every clock in the house told another time.|Every clock in the house told another time.
The garden smelled of rain and mint.|The garden smelled of rain and mint.
Is this the road to the mill?|Is this the road to the mill?
Her voice carried across the whole square.|Her voice carried across the whole square.
They painted the fence green, then white.|They painted the fence green, then white.
12 geese crossed the frozen lake.|Twelve geese crossed the frozen lake.
The baker knows all of us by name.|The baker knows all of us by name.
Put the blue cup beside the kettle.|Put the blue cup beside the kettle.
A good map is worth a hundred guesses.|A good map is worth a hundred guesses.
The child drew a ship with 3 masts.|The child drew a ship with three masts.
Snow fell softly on the quiet town.|Snow fell softly on the quiet town.
You can hear the sea from the upper window.|You can hear the sea from the upper window.
The judge smiled, and closed the book.|The judge smiled, and closed the book.
Old stones keep the warmth of the day.|Old stones keep the warmth of the day.
Please speak slowly, and then once more.|Please speak slowly, and then once more.
Tomorrow the market opens before sunrise.|Tomorrow the market opens before sunrise.
SENTENCES
echo "$number clips, $(du -sh corpus | cut -f1)"
