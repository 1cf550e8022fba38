"""tools/measure_speech.py: which figures are taken of which samples, and how they are put together."""

import math
import signal
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speech_like import voice

from common.audio import MelSpectrogram, read_wav, write_wav
from common.evaluation import metrics
from common.program import UserError
from conftest import RATE
from tools.speech import figures, recognizer
from tools.speech.figures import Figures, Pair, SpeechFigures, compare, measure, read_clip, recognize, summarize

MEL = MelSpectrogram()
PITCH = "librosa.core.pitch"


def write(path, audio):
    write_wav(path, audio, RATE)
    return path


def test_peak_clipping_and_silence_need_no_recording(tmp_path):
    audio = np.concatenate([np.zeros(RATE - RATE // 4, np.float32), 0.8 * np.sin(np.arange(RATE // 4) / 5)]).astype(
        np.float32
    )
    audio[-1000:-990] = -1
    clip = measure(Pair("a", write(tmp_path / "a.wav", audio), None, "Text."))
    levels = metrics.frame_levels(read_wav(tmp_path / "a.wav", RATE), MEL.win_length, MEL.hop_length)
    assert clip.near_silence == pytest.approx(np.mean(levels < -60)) == pytest.approx(3 / 4, abs=0.05)
    assert (clip.name, clip.seconds, clip.peak, clip.clipped) == ("a", 1.0, 1.0, 10 / RATE)
    missing = [
        field.name for field in fields(Figures) if field.name != "name" and math.isnan(getattr(clip, field.name))
    ]
    assert missing == [
        "recorded_seconds", "duration_ratio", "mel_l1", "mel_cepstral_distortion", "pitch_error", "voicing_error",
        "level_correlation", "word_error_rate", "character_error_rate",
    ]  # fmt: skip
    assert (clip.warped, clip.said, clip.heard) == (False, "", "")


@pytest.mark.parametrize("sign", [1, -1])
def test_the_peak_of_a_clip_has_no_sign(tmp_path, sign):
    audio = 0.1 * np.random.default_rng(0).uniform(-1, 1, 5000)
    audio[100] = sign * 0.5
    assert measure(Pair("a", write(tmp_path / "a.wav", audio), None, "")).peak == 0.5


@pytest.mark.parametrize(("samples", "taken"), [(1024, True), (1023, False)])
def test_a_clip_has_a_frame_at_least(tmp_path, samples, taken):
    path = write(tmp_path / "a.wav", voice(0.5)[:samples])
    if taken:
        assert len(read_clip(path, MEL)) == samples
    else:
        with pytest.raises(UserError, match=r"a\.wav has 1023 samples, fewer than a frame's 1024"):
            read_clip(path, MEL)


@pytest.mark.parametrize(("longer", "warped"), [(0, False), (4, False), (-4, False), (5, True), (-5, True)])
def test_frames_are_compared_one_by_one_where_the_lengths_allow_it(longer, warped):
    """Else along the path of dynamic time warping, whose cepstra are compared in any case."""
    recording = voice(0.6)[: 40 * 256]
    audio = voice(0.9, 150, loudness=0.5, seed=2)[: (40 + longer) * 256]
    audio[3000:5000] = 0
    clip = SpeechFigures("a", seconds=len(audio) / RATE)
    compare(clip, recording, audio, MEL)
    a, b = (MEL(torch.from_numpy(samples)[None])[0] for samples in (recording, audio))
    path = metrics.warping_path(a, b)
    least = min(a.shape[1], b.shape[1])
    i, j = path if warped else (np.arange(least), np.arange(least))
    pitch = [metrics.pitch(samples, RATE, 256) for samples in (recording, audio)]
    level = [metrics.frame_levels(samples, 1024, 256) for samples in (recording, audio)]
    assert clip.warped == warped
    expected = {
        "mel_cepstral_distortion": metrics.mel_cepstral_distortion(a[:, path[0]], b[:, path[1]]),
        "mel_l1": metrics.mel_l1(a[:, i], b[:, j]),
        "pitch_error": metrics.pitch_error(pitch[0][i], pitch[1][j]),
        "voicing_error": metrics.voicing_error(pitch[0][i], pitch[1][j]),
        "level_correlation": metrics.level_correlation(level[0][i], level[1][j]),
        "recorded_seconds": 40 * 256 / RATE,
        "duration_ratio": (40 + longer) / 40,
    }
    assert {name: getattr(clip, name) for name in expected} == pytest.approx(expected)
    assert min(expected["mel_l1"], expected["pitch_error"], expected["voicing_error"]) > 0
    assert expected["level_correlation"] < 0.99


def test_a_clip_is_measured_against_its_own_recording(tmp_path):
    paths = [write(tmp_path / f"{name}.wav", voice(0.3, cents)) for name, cents in (("said", 0), ("ours", 100))]
    clip = measure(Pair("a", paths[1], paths[0], ""))
    assert clip.pitch_error == pytest.approx(100, abs=10)
    with pytest.raises(UserError, match=r"none\.wav"):
        measure(Pair("a", paths[1], tmp_path / "none.wav", ""))


# ---- several ----


@pytest.mark.parametrize(("cores", "clips", "processes"), [(1, 3, None), (2, 1, None), (2, 3, 2), (8, 3, 3)])
def test_no_more_processes_than_cores_or_clips(monkeypatch, cores, clips, processes):
    """They do not hear a terminal's Ctrl-C, and this one does afterwards."""
    started, heard = [], []

    class Pool:
        def __init__(self, count, context, begin, threads):
            started.append((count, context.get_start_method(), begin, threads))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def map(self, work, pairs):
            heard.append(signal.getsignal(signal.SIGINT))
            assert PITCH in sys.modules  # compiled, before several processes could do so at once
            return map(work, pairs)

    monkeypatch.delitem(sys.modules, PITCH, raising=False)
    monkeypatch.setattr(figures, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(figures.os, "sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr(
        figures, "measure", lambda pair: pair * 2 if pair != 1 else (_ for _ in ()).throw(UserError("no"))
    )
    outside, own = signal.getsignal(signal.SIGINT), lambda *_: None
    signal.signal(signal.SIGINT, own)  # whatever the tests are started by
    try:
        found = figures.measure_all(list(range(clips)))
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, outside)
    assert [str(each) for each in found] == ["0", "no", "4"][:clips]
    assert started == ([(processes, "spawn", torch.set_num_threads, (1,))] if processes else [])
    assert heard == [signal.SIG_IGN] * bool(processes)


def test_means_and_medians_are_of_what_was_measured():
    clips = [
        SpeechFigures("a", seconds=1.0, mel_l1=0.5, peak=0.1), SpeechFigures("b", seconds=2.0, peak=0.2),
        SpeechFigures("c", seconds=6.0, mel_l1=1.5, peak=0.9),
    ]  # fmt: skip
    means, medians = summarize(iter(clips))
    assert (means.name, means.seconds, means.mel_l1, means.peak) == ("mean", 3.0, 1.0, pytest.approx(0.4))
    assert (medians.name, medians.seconds, medians.mel_l1, medians.peak) == ("median", 2.0, 1.0, 0.2)
    assert math.isnan(means.pitch_error) and math.isnan(medians.word_error_rate) and math.isnan(means.word_error_rate)


def test_error_rates_of_all_are_of_all_texts_together():
    pytest.importorskip("jiwer")
    clips = [
        SpeechFigures("a", word_error_rate=1.0, character_error_rate=1.0, said="ab", heard="cd"),
        SpeechFigures("b", word_error_rate=0.0, character_error_rate=0.0, said="one two three", heard="one two three"),
    ]
    means, medians = summarize(clips)
    assert (means.word_error_rate, means.character_error_rate) == (1 / 4, 2 / 15)
    assert (medians.word_error_rate, medians.character_error_rate) == (0.5, 0.5)


def test_each_clip_is_heard_and_compared_with_its_text(tmp_path, monkeypatch):
    """Both normalized; the rates are by what was said."""
    pytest.importorskip("jiwer")
    monkeypatch.setattr(figures, "make_normalizer", lambda: str.lower)
    pairs = [
        Pair(name, write(tmp_path / f"{name}.wav", voice(0.1)), None, text)
        for name, text in (("a", "One Two"), ("b", "So"))
    ]
    measured = {pair: SpeechFigures(pair.name) for pair in pairs}
    given = []
    answers = iter(["one two three FOUR", "so"])
    recognize(measured, lambda audio, rate: given.append((len(audio), rate)) or next(answers))
    assert given == [(RATE // 10, RATE)] * 2
    a, b = measured.values()
    assert (a.said, a.heard, a.word_error_rate, a.character_error_rate) == (
        "one two",
        "one two three four",
        1.0,
        11 / 7,
    )
    assert (b.word_error_rate, b.character_error_rate) == (0, 0)


# ---- the recognizer ----


def test_whisper_gets_16_khz_and_is_asked_for_english(tmp_path, monkeypatch):
    asked = {}

    class Whisper:
        def __init__(self, *given, **options):
            asked["made"] = given, options

        def transcribe(self, audio, **options):
            asked["audio"], asked["options"] = audio, options
            return iter([SimpleNamespace(text=" A"), SimpleNamespace(text=" b.")]), None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Whisper))
    monkeypatch.setattr(recognizer, "PACKAGES", ())
    monkeypatch.setattr(recognizer.os, "sched_getaffinity", lambda process: set(range(3)))
    for name in recognizer.FILES:
        (tmp_path / name).touch()
    hear = recognizer.load_recognizer(str(tmp_path))
    time = np.arange(RATE) / RATE
    assert hear(np.sin(2 * np.pi * 440 * time), RATE) == " A  b."
    assert asked["made"] == ((str(tmp_path), "cpu"), {"compute_type": "int8", "cpu_threads": 3})
    assert asked["options"] == {"language": "en", "beam_size": 5, "condition_on_previous_text": False}
    time = np.arange(16000) / 16000
    np.testing.assert_allclose(asked["audio"][500:-500], np.sin(2 * np.pi * 440 * time)[500:-500], atol=2e-3)


@pytest.mark.parametrize("missing", recognizer.FILES)
def test_a_model_without_one_of_its_files(tmp_path, monkeypatch, missing):
    """Without the tokenizer it would look for it on the network."""
    monkeypatch.setattr(recognizer, "PACKAGES", ())
    for name in set(recognizer.FILES) - {missing}:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"holds no {missing}: name the folder of a faster-whisper model"):
        recognizer.load_recognizer(str(tmp_path))
    assert {*recognizer.FILES} == {"model.bin", "config.json", "tokenizer.json"}


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError])
def test_a_model_that_cannot_be_loaded(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error("bad magic")

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=fail))
    monkeypatch.setattr(recognizer, "PACKAGES", ())
    monkeypatch.setattr(recognizer, "FILES", ())
    with pytest.raises(
        UserError, match=f"--recognizer={tmp_path} cannot be loaded as a faster-whisper model: bad magic"
    ):
        recognizer.load_recognizer(str(Path(tmp_path)))


def test_rates_are_errors_over_what_was_said():
    pytest.importorskip("jiwer")
    assert recognizer.error_rates(["one two", "so"], ["one", "so it is"]) == (3 / 3, (4 + 6) / 9)


def test_the_normalizer_evens_out_how_texts_are_written():
    pytest.importorskip("whisper_normalizer")
    assert recognizer.make_normalizer()("Mr. Hill's TWO colours, isn't it?") == "mister hill is 2 colors is not it"
