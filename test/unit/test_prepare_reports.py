"""tools/prepare_data.py: what the reports and the folder of a data set make of its clips' figures and problems."""

import csv
import io
from dataclasses import replace
from types import SimpleNamespace

from tools.prepare.convert import ConvertedClip, Recipe
from tools.prepare.figures import Figures
from tools.prepare.folder import Folder
from tools.prepare.problems import Kind, Problem
from tools.prepare.report import Report, histograms, table
from tools.prepare.sources import Item


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
