"""WaveGlow learns from mels that are given, cut in step with the recordings."""

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import waveglow.infer
from common.audio import ClipError, Fault, MelSpectrogram
from common.bad_clips import BadClips
from common.program import UserError
from conftest import RATE, make_corpus, toy_config
from runs import start
from waveglow.config import DataConfig
from waveglow.data import HeldBackSegments, TrainingSegments, take_census
from waveglow.segment_mels import SegmentMels

HOP, LENGTH = 256, 2000
"No multiple of the hop."
MEL = MelSpectrogram(n_mel_channels=6)


def numbered(samples):
    """A mel whose frames tell their place: frame k holds -10 + k / 100 [6, T]."""
    return np.tile(-10 + np.arange(samples // HOP + 1, dtype=np.float32) / 100, (6, 1))


def recorded_mel(clip):
    return MEL(torch.from_numpy(soundfile.read(clip, dtype="float32")[0])[None])[0].numpy()


@pytest.fixture
def folder(tmp_path):
    """Mels of clips a (long) and b (shorter than a segment), whose samples tell their place: k / 100 in frame k."""
    for name, samples in (("a", 9000), ("b", 700)):
        soundfile.write(tmp_path / f"{name}.wav", (np.arange(samples) // HOP + 1) / 100, RATE, subtype="FLOAT")
        (tmp_path / "mels").mkdir(exist_ok=True)
        np.save(tmp_path / f"mels/{name}.npy", numbered(samples))
    return tmp_path


def config(folder):
    return DataConfig(segment_length=LENGTH, mels_path=str(folder / "mels"))


def check_in_step(item):
    """The frame at sample n * HOP is that of the sample."""
    frames = item["mel"].shape[1]
    assert frames == LENGTH // HOP + 1
    places = (item["mel"][0] + 10).numpy() * 100
    assert item["audio"][HOP - 1] == item["audio"][0]  # a segment begins where a frame does
    sample_frames = item["audio"].numpy()[::HOP][:frames] * 100 - 1
    assert np.allclose(places[: len(sample_frames)], sample_frames, atol=1e-3)
    assert np.allclose(np.diff(places), 1, atol=1e-3)


def test_segments_are_cut_in_step_with_the_audio(folder):
    data = TrainingSegments([folder / "a.wav"], config(folder), MEL, seed=1)
    begins = set()
    for epoch in range(200):
        item = data[(epoch, 0)]
        check_in_step(item)
        begins.add(round(item["audio"][0].item() * 100) - 1)
    assert begins == set(range((9000 - LENGTH) // HOP + 1))  # from every frame, the last one too
    held_back = HeldBackSegments([folder / "a.wav"], config(folder), MEL)
    assert len(held_back) == 4
    for number in range(4):
        check_in_step(held_back[number])


def test_behind_the_end_of_a_short_clip_is_the_mel_of_the_noise_there(folder):
    item = TrainingSegments([folder / "b.wav"], config(folder), MEL, seed=1)[(0, 0)]
    own = 700 // HOP + 1
    assert np.allclose(item["mel"][:, :own], numbered(700))
    assert torch.equal(item["mel"][:, own:], MEL(item["audio"][None])[0][:, own:])


def test_without_a_folder_segments_begin_anywhere(folder):
    data = TrainingSegments([folder / "a.wav"], DataConfig(segment_length=LENGTH), MEL, seed=1)
    item = data[(0, 0)]
    assert torch.equal(item["mel"], MEL(item["audio"][None])[0])
    assert len({np.flatnonzero(np.diff(data[(epoch, 0)]["audio"]))[0] % HOP for epoch in range(40)}) > 20


@pytest.mark.parametrize(
    ("samples", "change", "said"),
    [
        (9000, lambda mel: mel + 0.9, ""),
        (9000, lambda mel: mel - 0.9, ""),
        (9000, lambda mel: mel + 1.1, "is no natural-log mel spectrogram of"),
        (9000, lambda mel: mel - 1.1, "is no natural-log mel spectrogram of"),
        (9000, lambda mel: mel[:, :-1], "has 35 frames, "),
        (9000, lambda mel: np.pad(mel, ((0, 0), (0, 1))), "has 37 frames, "),
        (300, lambda mel: mel, ""),  # fewer samples than a Fourier transform takes
        (300, lambda mel: np.pad(mel, ((0, 0), (0, 1)), mode="edge"), "has 3 frames, "),
    ],
)
def test_a_given_mel_is_as_long_as_its_recording_and_about_as_loud(tmp_path, samples, change, said):
    audio = (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    (tmp_path / "mels").mkdir()
    enough = np.pad(audio, (0, max(0, 1024 - samples)))
    own = MEL(torch.from_numpy(enough)[None])[0].numpy()[:, : samples // HOP + 1]
    np.save(tmp_path / "mels/a.npy", change(own))
    data = config(tmp_path)
    fault = SegmentMels(data, MEL).fault(tmp_path / "a.wav", audio)
    assert bool(fault) == bool(said)
    if said:
        assert said in str(fault) and "mels/a.npy" in str(fault) and fault.fault == Fault.MEL
    assert SegmentMels(DataConfig(), MEL).fault(tmp_path / "a.wav", audio) is None  # without given mels


def test_a_mel_that_is_missing_or_cannot_be_read_is_the_clips_fault(tmp_path):
    (tmp_path / "mels").mkdir()
    (tmp_path / "mels/b.npy").write_bytes(b"")
    mels = SegmentMels(config(tmp_path), MEL)
    for name, said in (("a", f"a.wav has no mel spectrogram in {tmp_path / 'mels'}"), ("b", "b.npy is not readable")):
        fault = mels.fault(tmp_path / f"{name}.wav", np.ones(2000, np.float32))
        assert said in str(fault) and fault.fault == Fault.MEL
    clips = [tmp_path / "a.wav", tmp_path / "b.wav"]
    assert mels.given.of(clips) == {"the mel spectrogram of b.wav": tmp_path / "mels/b.npy"}


@pytest.mark.parametrize(
    ("file", "clips"),
    [
        ("a.npy", ["a.wav", "A.WAV", "x/a.wav"]),
        ("a.wav.pt", ["a.wav", "A.wav", "a.WAV"]),
        ("A.NPZ", ["a.wav"]),
        ("a.b.npy", ["a.b.wav"]),
        (unicodedata.normalize("NFD", "ü.npy"), ["ü.wav", "Ü.wav", unicodedata.normalize("NFD", "ü.wav")]),
    ],
)
def test_which_mel_is_a_clips(tmp_path, file, clips):
    """By its name with or without the clip's ending, whatever the case and however accents are composed."""
    (tmp_path / "mels").mkdir()
    mel = numbered(3000)
    if file.lower().endswith(".pt"):
        torch.save(torch.from_numpy(mel), tmp_path / "mels" / file)
    else:
        with open(tmp_path / "mels" / file, "wb") as opened:
            (np.savez if file.endswith("NPZ") else np.save)(opened, mel)
    (tmp_path / "mels/b.txt").write_text("no mel")
    given = SegmentMels(config(tmp_path), MEL).given
    for clip in clips:
        assert torch.equal(given(Path(clip)), torch.from_numpy(mel))
    assert given.of(map(Path, [clips[0], "b.wav", "a.b.c.wav"])) == {
        f"the mel spectrogram of {Path(clips[0]).name}": tmp_path / "mels" / file
    }
    with pytest.raises(ClipError, match=rf"^b\.wav has no mel spectrogram in {tmp_path}/mels$"):
        given(Path("b.wav"))


def test_what_is_wrong_with_the_mels_is_said_at_the_start(tmp_path):
    corpus, mels = make_corpus(tmp_path / "corpus", clips=14), tmp_path / "mels"
    mels.mkdir()
    clips = sorted((corpus / "wavs").iterdir())
    samples = soundfile.info(clips[0]).frames
    own = {clip.stem: recorded_mel(clip) for clip in clips}
    for name in list(own)[1:]:
        np.save(mels / f"{name}.npy", own[name])
    np.save(mels / "clip01.npy", own["clip01"][:, :-1])
    np.save(mels / "clip02.npy", own["clip02"] * 20 / np.log(10))
    np.save(mels / "clip03.npy", own["clip03"][:5])
    (mels / "clip04.npy").write_bytes(b"")
    np.savez(mels / "clip05.npz", own["clip05"][None])
    (mels / "clip05.npy").unlink()
    torch.save(torch.from_numpy(own["clip06"]), mels / "clip06.wav.pt")
    (mels / "clip06.npy").unlink()
    (mels / "clip07.npy").rename(mels / "CLIP07.NPY")
    bad = BadClips("stop", tmp_path)
    data = config(tmp_path)
    census = take_census(clips, data, bad, SegmentMels(data, MEL))
    assert census.clips == 9
    assert {path.stem for path in bad.paths} == {f"clip0{i}" for i in range(5)}
    with pytest.raises(UserError, match=r"5 of 14 clips cannot be used"):
        bad.settle(len(clips))
    messages = (tmp_path / "bad_clips.txt").read_text()
    frames = samples // HOP + 1
    for said in (
        f"clip00.wav has no mel spectrogram in {mels}",
        f"clip01.npy has {frames - 1} frames, {clips[1]} has {frames}",
        "clip02.npy is no natural-log mel spectrogram of",
        "(it looks like decibels)",
        "clip03.npy must hold a mel spectrogram [6, T]",
        "clip04.npy is not readable",
    ):
        assert said in messages


def with_mels(folder):
    values = toy_config()
    values["data_config"]["mels_path"] = str(folder)
    return values


@pytest.fixture
def corpus(tmp_path):
    """With a folder of mels beside it: those of the recordings, a little louder."""
    folder = make_corpus(tmp_path / "corpus")
    (tmp_path / "mels").mkdir()
    for clip in (folder / "wavs").iterdir():
        np.save(tmp_path / f"mels/{clip.stem}.npy", recorded_mel(clip) + 0.1)
    return folder


def test_training_takes_them_for_validation_too(corpus, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        start(with_mels(tmp_path / "nowhere"), corpus, tmp_path / "a", max_steps=1)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"holds no mel spectrogram .*--teacher_forced writes"):
        start(with_mels(tmp_path / "none"), corpus, tmp_path / "a", max_steps=1)
    own, _ = start(toy_config(), corpus, tmp_path / "own", max_steps=2)
    given, _ = start(with_mels(tmp_path / "mels"), corpus, tmp_path / "given", max_steps=2)
    assert own.progress.losses[1] != given.progress.losses[1]
    assert own.progress.validation_losses != given.progress.validation_losses


def test_a_run_does_not_go_on_with_other_mels(corpus, tmp_path):
    start(toy_config(), corpus, tmp_path / "out", max_steps=2)
    with pytest.raises(UserError, match=r"mels_path = '', the config says .*--checkpoint_path=.* trains on"):
        start(with_mels(tmp_path / "mels"), corpus, tmp_path / "out", max_steps=4)
    run, _ = start(
        with_mels(tmp_path / "mels"), corpus, tmp_path / "next", max_steps=4,
        checkpoint_path=str(tmp_path / "out/waveglow_2"),
    )  # fmt: skip
    assert (run.progress.iteration, run.progress.steps) == (6, 4)
    resumed, _ = start(
        with_mels(tmp_path / "mels"), corpus, tmp_path / "next", max_steps=5,
        checkpoint_path=str(tmp_path / "out/waveglow_2"),
    )  # fmt: skip
    assert (resumed.progress.iteration, resumed.progress.first_iteration) == (7, 2)


def test_evaluation_speaks_from_them_and_measures_against_the_recordings(corpus, tmp_path, monkeypatch):
    start(toy_config(), corpus, tmp_path / "out", max_steps=2)
    heard = []
    synthesize = waveglow.infer.Vocoder.synthesize

    def listened(self, mel, *settings):
        heard.append(mel)
        return synthesize(self, mel, *settings)

    monkeypatch.setattr(waveglow.infer.Vocoder, "synthesize", listened)
    arguments = [f"--pth_path={tmp_path / 'out/waveglow_2'}", f"--data_path={corpus}", "--device=cpu"]
    monkeypatch.setattr(
        sys,
        "argv",
        ["infer", *arguments, f"--output_directory={tmp_path / 'eval'}", f"--mels_path={tmp_path / 'mels'}"],
    )
    waveglow.infer.main()
    (mel,) = heard
    assert np.array_equal(mel, np.load(tmp_path / "mels/clip00.npy"))
    (tmp_path / "mels/clip00.npy").unlink()
    with pytest.raises(UserError, match=r"1 of 1 clips cannot be used: .*clip00\.wav has no mel"):
        waveglow.infer.main()
