"""tools/make_corpus.py: the same corpus in whatever way it was made, what is left out and what is refused."""

import json
import logging
import signal
import sys

import numpy as np
import pytest
from full_disk import full_disk

import fake_engine
from common.audio import read_wav
from common.corpus import find_clips
from common.program import UserError
from conftest import RATE
from tacotron2.config import DataConfig
from tacotron2.data import find_utterances
from tools import make_corpus
from tools.corpus import clips, engines

pytestmark = pytest.mark.usefixtures("handlers")

TEXTS = [f"Line {word}." for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]]
"Clips of 1.8 to 2.2 s."


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """The fake engine in hibari's place."""
    monkeypatch.setattr(make_corpus, "ENGINES", {"hibari": fake_engine.find, "flite": engines.find_flite})


@pytest.fixture
def in_process(monkeypatch):
    speak_in_process(monkeypatch)


def speak_in_process(monkeypatch):
    """The clips are made here, without other processes, which take a second to start."""

    def make_clips(engine, lines, seed, noise_floor, jobs, stop):
        speak = engine.load()
        for number, text in lines:
            if stop.requested:
                return
            yield clips.make_clip(speak, text, number, seed, noise_floor)

    monkeypatch.setattr(make_corpus, "make_clips", make_clips)


def run(monkeypatch, folder, *options, lines=TEXTS):
    texts = folder.parent / "texts.txt"
    texts.write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["make_corpus", str(folder), f"--texts={texts}", *options])
    # As quiet as in a terminal: what is logged is looked at through caplog.
    monkeypatch.setattr(make_corpus, "open_log", lambda *args, **kwargs: None)
    make_corpus.main()


def contents(folder):
    """What a corpus consists of."""
    return {path.name: path.read_bytes() for path in [*folder.glob("wavs/*"), folder / "metadata.csv"]}


def numbers(folder):
    return sorted(int(path.stem[-6:]) for path in folder.glob("wavs/*"))


def test_both_models_read_the_corpus(tmp_path, monkeypatch, in_process):
    run(monkeypatch, tmp_path / "c", lines=["In 1905, Mr. Hill paid $5.", "", "It was 50% of it."])
    assert [path.name for path in find_clips(str(tmp_path / "c"))] == ["fake-000001.wav", "fake-000003.wav"]
    training, held_back = find_utterances(DataConfig(), str(tmp_path / "c"))
    spoken = ["In nineteen oh five, Mister Hill paid five dollars.", "It was fifty percent of it."]
    assert [clip.text for clip in held_back + training] == spoken
    for clip, text in zip(held_back + training, spoken, strict=True):
        assert len(read_wav(clip.path, RATE)) == round(0.2 * len(text) * RATE)
    facts = json.loads((tmp_path / "c/corpus.json").read_text())
    assert (facts["settings"]["engine"], facts["clips"], facts["licence_of_engine"]) == ("fake", 2, "none")


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_number_of_jobs_changes_nothing(tmp_path, monkeypatch, jobs):
    """Also with lines that take longer than those after them, and beyond the limit."""
    lines = ["slow slow slow.", *TEXTS[:3], "silent", *TEXTS[3:]]
    options = [f"--hours={9 / 3600}", "--seed=3"]
    run(monkeypatch, tmp_path / "c", f"--jobs={jobs}", *options, lines=lines)
    with monkeypatch.context() as patch:
        speak_in_process(patch)
        run(patch, tmp_path / "d", *options, lines=lines)
    assert contents(tmp_path / "c") == contents(tmp_path / "d")
    assert numbers(tmp_path / "c") == [1, 2, 3, 4, 6]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_can_be_used_and_goes_on(tmp_path, monkeypatch, caplog, handlers, number, code):
    from tools.corpus.folder import Folder

    add = Folder.add

    def add_and_stop(self, line, audio):
        add(self, line, audio)
        if line == 4:
            handlers[number](number, None)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "add", add_and_stop)
        with pytest.raises(SystemExit) as end:
            run(patch, tmp_path / "c", "--jobs=2")
    assert end.value.code == code
    assert "stopped by a signal; the same command goes on from here" in caplog.text
    assert numbers(tmp_path / "c") == [1, 2, 3, 4]
    assert len(find_utterances(DataConfig(), str(tmp_path / "c"))[0]) == 3
    # Damaged, as by a power cut, and made again; and whole, which is not.
    (tmp_path / "c/wavs/fake-000002.wav").write_bytes(b"RIFF")
    (tmp_path / "c/wavs/.fake-000005.wav.1.part").write_bytes(b"RIFF")
    kept = (tmp_path / "c/wavs/fake-000003.wav").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        speak_in_process(patch)
        run(patch, tmp_path / "c")
        run(patch, tmp_path / "d")
    assert (tmp_path / "c/wavs/fake-000003.wav").stat().st_mtime_ns == kept
    assert contents(tmp_path / "c") == contents(tmp_path / "d")


def test_the_seed_decides_on_every_clip(tmp_path, monkeypatch, in_process):
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        run(monkeypatch, tmp_path / name, f"--seed={seed}", lines=TEXTS[:2])
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[f"fake-00000{i}.wav"] != c[f"fake-00000{i}.wav"] for i in (1, 2))
    seeds = []
    for number in (1, 2):
        clips.make_clip(lambda text, seed: seeds.append(seed) or fake_engine.speak(text, seed), "Line.", number, 7, -60)
    assert seeds == [7, 8]


def test_hours_can_grow(tmp_path, monkeypatch, in_process, caplog):
    caplog.set_level(logging.INFO)
    run(monkeypatch, tmp_path / "c", f"--hours={4 / 3600}")
    assert numbers(tmp_path / "c") == [1, 2, 3]  # 1.8 s, 1.8 s and 2.2 s
    run(monkeypatch, tmp_path / "c", f"--hours={7 / 3600}")
    assert numbers(tmp_path / "c") == [1, 2, 3, 4]
    run(monkeypatch, tmp_path / "c", f"--hours={1 / 3600}")
    assert numbers(tmp_path / "c") == [1, 2, 3, 4]
    assert len((tmp_path / "c/metadata.csv").read_text().splitlines()) == 4
    assert "less than" not in caplog.text
    (tmp_path / "c/wavs/fake-000002.wav").unlink()
    run(monkeypatch, tmp_path / "c", f"--hours={1 / 3600}")
    assert numbers(tmp_path / "c") == [1, 2, 3, 4]
    run(monkeypatch, tmp_path / "c")
    assert numbers(tmp_path / "c") == list(range(1, 11))
    assert "the texts are all used, and make less than the 8 h of --hours" in caplog.text


@pytest.mark.parametrize(("options", "level"), [([], -60), (["--noise_floor=-40"], -40)])
def test_each_clip_has_white_noise_of_its_own_at_the_noise_floor(tmp_path, monkeypatch, in_process, options, level):
    """Also where the engine is silent."""
    run(monkeypatch, tmp_path / "c", *options, lines=["A line of words."] * 2)
    silences = [read_wav(path, RATE)[RATE * 17 // 10 :] for path in find_clips(str(tmp_path / "c"))]
    for silence in silences:
        assert 20 * np.log10(silence.std()) == pytest.approx(level, abs=0.1)
        power = np.abs(np.fft.rfft(silence)) ** 2
        low, high = np.array_split(power[1:], 2)
        assert low.mean() == pytest.approx(high.mean(), rel=0.05)
    assert abs(np.corrcoef(silences)[0, 1]) < 0.02


def test_what_is_left_out_is_counted(tmp_path, monkeypatch, in_process, caplog):
    lines = ["***", "A", "silent line", "A nan.", "word " * 20, "word " * 1000, "A good line.", "?!"]
    run(monkeypatch, tmp_path / "c", lines=lines)
    assert numbers(tmp_path / "c") == [7]
    counts = {
        "without anything to speak": 2, "shorter than 0.3 s": 1, "silent": 1, "not finite": 1, "longer than 15 s": 2,
    }  # fmt: skip
    said = [message for message in caplog.messages if message.startswith("left out: ")]
    assert sorted(said) == sorted(f"left out: {count} text(s) {reason}" for reason, count in counts.items())
    assert json.loads((tmp_path / "c/corpus.json").read_text())["left_out"] == counts
    with pytest.raises(UserError, match="none of the texts became a clip"):
        run(monkeypatch, tmp_path / "d", lines=["***", "silent"])
    with pytest.raises(UserError, match=r"texts\.txt is empty: write a sentence on each line"):
        run(monkeypatch, tmp_path / "e", lines=["", " "])


def test_a_process_that_is_killed_is_said_and_what_is_there_can_be_used(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"a process was killed, .* the same command goes on where it was"):
        run(monkeypatch, tmp_path / "c", "--jobs=2", lines=[*TEXTS * 2, "A fatal line.", *TEXTS])
    there = numbers(tmp_path / "c")
    assert there == list(range(1, len(there) + 1))
    assert (tmp_path / "c/metadata.csv").read_text().count("\n") == len(there) > 0


def test_an_engine_that_fails_in_a_process_names_the_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^line 2: the fake engine is hoarse$"):
        run(monkeypatch, tmp_path / "c", "--jobs=2", lines=["A good line.", "A hoarse line."])
    assert numbers(tmp_path / "c") == [1]


def test_a_full_disk_leaves_what_fitted_and_no_half_clip(tmp_path, monkeypatch, in_process):
    with full_disk(100_000), pytest.raises(UserError, match=r"cannot write .*fake-000003.wav: File too large"):
        run(monkeypatch, tmp_path / "c", lines=["Line one.", "Line two.", "A line that is longer.", "Line four."])
    assert len(find_clips(str(tmp_path / "c"))) == 2
    assert not list(tmp_path.glob("c/wavs/.*"))
