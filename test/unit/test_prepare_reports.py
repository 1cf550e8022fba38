"""tools/prepare_data.py: the figures of a clip, and what its reports and its folder make of them."""

import csv
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from speech_like import silence, speech

from conftest import RATE
from tools.prepare.convert import ConvertedClip, Recipe
from tools.prepare.figures import Figures, measure, of_recording
from tools.prepare.folder import Folder
from tools.prepare.levels import Levels, speech_edges
from tools.prepare.problems import Kind, Problem
from tools.prepare.report import Report, histograms, table
from tools.prepare.sources import Item


def test_a_channel_that_was_clipped_is_counted_beside_one_that_was_not():
    audio = speech(level=0.9)
    cut = np.clip(audio, -0.6, 0.6)
    alone = of_recording(cut[:, None], RATE, "").clipped
    assert alone > 100
    for channels in ([cut, audio], [audio, cut], [cut, cut]):
        assert of_recording(np.stack(channels, axis=1), RATE, "").clipped == alone


def test_silence_is_the_share_without_speech():
    shares = []
    for quiet in (0, 2, 6):
        figures = Figures()
        measure(figures, np.concatenate([speech(2.0), *([silence(quiet)] if quiet else [])]), RATE)
        shares.append(figures.silence)
    spoken = 1 - shares[0]
    assert spoken > 0.5
    assert shares[1:] == pytest.approx([1 - spoken / 2, 1 - spoken / 4], abs=0.05)


def test_each_histogram_is_of_its_figure():
    """Of the recordings what was there before a clip was made louder; its noise is told from its speech on."""
    figures = Figures(
        seconds=4.0, level=-20.0, gain=6.0, recorded_peak=0.4, silence=0.3, digital_silence=0.1, noise_floor=-65.0,
        longest_pause=0.7,
    )  # fmt: skip
    found = histograms(SimpleNamespace(clips={"a": SimpleNamespace(figures=figures)}, symbols={"a": 48, "b": 9}))
    assert {title: values.tolist() for title, values in found.items()} == {
        "duration (s)": [4.0], "symbols a second": [12.0], "level of the recordings (dB)": [-26.0],
        "peak of the recordings": [0.4], "silence (share)": [0.3], "digital silence (share)": [0.1],
        "noise below speech (dB)": [45.0], "longest pause (s)": [0.7],
    }  # fmt: skip


def test_the_table_has_the_worst_reason_for_which_a_clip_was_left_out(tmp_path):
    item = Item(tmp_path / "a.wav", "Text.", "list line 1", name="a")
    problems = [Problem(kind, kind.name, "a") for kind in (Kind.PAUSE, Kind.UNUSED, Kind.SILENT, Kind.LENGTH)]
    for some in (problems, problems[::-1]):
        report = Report("", Recipe(), [], {"a": item}, {}, {}, {}, some)
        (row,) = csv.DictReader(io.StringIO(table(report)))
        assert (row["used"], row["done"]) == ("no", "SILENT")


def test_what_cannot_be_used_is_left_out_and_what_is_odd_is_not():
    out = [kind for kind in Kind if Problem(kind, "").left_out]
    assert (out[0], out[-1], Kind.MISMATCH in out) == (Kind.UNREADABLE, Kind.UNUSED, False)


def test_texts_that_are_gone_from_the_source_are_gone_from_the_data_set(tmp_path):
    """Else Tacotron2 would be trained with those of the run before."""
    item, path = Item(tmp_path / "a.wav", "Text.", "", name="a"), tmp_path / "data"
    item.path.write_bytes(b"a recording")
    for text in ("Text.", None):
        folder = Folder(path)
        folder.begin()
        if not folder.find(item, Recipe()):
            (folder.new / "a.wav").write_bytes(b"a clip")
            folder.add(item, Recipe(), ConvertedClip(Figures()))
        folder.finish({"a": replace(item, text=text)}, {})
        assert (path / "metadata.csv").exists() == bool(text)
        assert (path / "wavs/a.wav").read_bytes() == b"a clip"


@pytest.mark.parametrize(
    ("floor", "speaks"),
    [
        (-70.0, {-50: True, -56: False}),  # the softest consonants are 35 dB below the level of speech
        (-50.0, {-43: True, -45: False}),  # 6 dB above the noise
        (-22.0, {-28: True, -30: False}),  # 9 dB below the level of speech is speech in any noise
    ],
)
def test_what_is_speech_depends_on_the_noise_below_it(floor, speaks):
    levels = Levels(np.array([float(level) for level in speaks]), hop=256, speech=-20.0, floor=floor)
    assert levels.speaks.tolist() == list(speaks.values())


@pytest.mark.parametrize(("margin", "edges"), [(0, (200, 500)), (50, (150, 550)), (600, (0, 1000))])
def test_speech_ends_with_the_last_frame_that_speaks(margin, edges):
    frames = np.array([-90.0, -90, -20, -90, -20, -90, -90, -90, -90, -90])
    assert speech_edges(Levels(frames, hop=100, speech=-20.0, floor=-90.0), 1000, margin) == edges
