"""Mel spectrograms from elsewhere: shapes, number formats, and what their values mean."""

import re

import librosa
import numpy as np
import pytest
import torch

from common.audio import MelSpectrogram, read_wav
from common.checkpoints import budget
from common.mel_files import read_mel
from common.mel_forms import FILTER_SUM, FLOOR, FORMS, guess_form, to_natural_log
from common.program import UserError
from conftest import RATE, ROOT

CLIPS = sorted((ROOT / "test/data/corpus/wavs").glob("*.wav"))
LN10 = np.log(10)


@pytest.fixture(scope="module")
def speech():
    """The natural-log mels of recordings [80, T]."""
    mel = MelSpectrogram()
    return [mel(torch.from_numpy(read_wav(path, RATE))[None])[0] for path in CLIPS]


def written_by_others(mel):
    """A natural-log mel as other programs store it, by the formulas of their sources."""
    amplitude = mel.exp()
    db = 20 * amplitude.log10()
    normalized = (db - 20 + 100) / 100  # keithito's: ref_level_db 20, min_level_db -100
    return {
        "ln": mel,
        "log10": amplitude.log10(),
        "db": db,
        "amplitude": amplitude,
        "power": amplitude.square() / FILTER_SUM,  # of a spectrum that is flat inside of a filter
        "power_db": 10 * (amplitude.square() / FILTER_SUM).log10(),
        "0..1": normalized.clip(0, 1),
        "0..4": (4 * normalized).clip(0, 4),
        "-4..4": (2 * 4 * normalized - 4).clip(-4, 4),
    }


def test_every_form_becomes_the_natural_logarithm(speech):
    for name, mel in written_by_others(speech[0]).items():
        # The stretched decibels end at -80 dB, 1e-4, and are clipped there.
        target = speech[0].clamp(min=np.log(1e-4)) if ".." in name else speech[0]
        assert torch.allclose(to_natural_log(mel, name), target, rtol=0, atol=1e-5), name
    assert written_by_others(speech[0]).keys() == FORMS.keys()


def test_librosas_powers_are_near_the_amplitudes(speech):
    """Filters applied to powers, librosa's default."""
    audio = read_wav(CLIPS[0], RATE)
    settings = dict(sr=RATE, n_fft=1024, hop_length=256, n_mels=80, fmax=8000, pad_mode="reflect")
    power = librosa.feature.melspectrogram(y=audio, **settings)
    for form, mel in (("power", power), ("power_db", librosa.power_to_db(power, top_db=None))):
        difference = to_natural_log(torch.from_numpy(mel), form) - speech[0]
        assert 0 < difference.mean() < 0.2 and difference.abs().mean() < 0.2, form


def test_no_form_goes_below_the_floor():
    for name in FORMS:
        assert to_natural_log(torch.tensor([[-1e4, 0.0]]), name).min() == pytest.approx(FLOOR) or ".." in name, name


def test_recordings_are_taken_and_other_forms_are_refused_with_the_guess(speech):
    for mel in speech:
        assert to_natural_log(mel) is mel
        for name, other in written_by_others(mel).items():
            if name != "ln":
                with pytest.raises(UserError, match=r"look like .*: .*--mel_form=" + re.escape(name)):
                    to_natural_log(other)


def test_other_common_mistakes_are_guessed(speech):
    mel = speech[0]
    assert "samples" in guess_form(mel + np.log(32768))[0]
    assert guess_form(20 / LN10 * (mel - mel.max()))[0] == "decibels"
    assert "floor" in guess_form(torch.where(mel <= mel.quantile(0.1), -20.7, mel))[0]
    assert guess_form(torch.where(mel <= mel.quantile(0.1), -35.0, mel))[0] == "decibels"
    assert guess_form(torch.where(mel == mel.max(), 5.9, mel)) is None
    assert "samples" in guess_form(torch.where(mel == mel.max(), 6.1, mel))[0]


@pytest.mark.parametrize("rms", [1e-3, 0.1, 0.5])
def test_noise_and_tones_are_taken(rms):
    """They are what is nearest to common logarithms."""
    time = torch.arange(RATE) / RATE
    noise = rms * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    for audio in (noise, rms * torch.sin(2764 * time)):
        assert guess_form(MelSpectrogram()(audio[None])[0]) is None


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "<f2", ">f2"])
@pytest.mark.parametrize("batch", [False, True])
def test_number_formats_and_shapes(tmp_path, kind, batch):
    mel = np.linspace(-11, 1, 240, dtype=np.float32).astype(np.float16).reshape(6, 40)
    stored = mel[None] if batch else mel
    np.save(tmp_path / "a.npy", stored.astype(kind))
    (tmp_path / "a.npy").rename(tmp_path / "a.NPY")
    np.savez_compressed(tmp_path / "b.npz", stored.astype(kind))
    np.savez(tmp_path / "c.npz", mel=stored.astype(kind), text=np.zeros(3))
    np.save(tmp_path / "d.npy", np.asfortranarray(stored.astype(kind)))
    torch.save(torch.from_numpy(stored).to(torch.bfloat16 if kind == ">f2" else torch.float64), tmp_path / "e.pt")
    for name in ("a.NPY", "b.npz", "c.npz", "d.npy", "e.pt"):
        found = read_mel(tmp_path / name, 6)
        assert found.dtype == torch.float32 and found.shape == (6, 40)
        assert np.allclose(found, mel, rtol=0.01 if name == "e.pt" else 0), name


def test_what_is_no_mel_is_refused_by_name(tmp_path):
    arrays = {
        "turned": (np.zeros((40, 6)), r"\[6, T\], not \[40, 6\]; the other way round"),
        "two": (np.zeros((2, 6, 40)), r"not \[2, 6, 40\]"),
        "empty": (np.zeros((6, 0)), r"not \[6, 0\]"),
        "text": (np.array(["a"]), "holds no mel"),
        "complex": (np.zeros((6, 40), complex), "holds no mel"),
        "objects": (np.array([{}]), "not readable"),
        "nan": (np.where(np.eye(6, 40), np.nan, -5), "mel spectrogram in .* is not finite: 6 of its 240 .* frame 0"),
        "log0": (np.full((6, 40), -np.inf), "as the logarithm of 0 is"),
    }
    for name, (array, message) in arrays.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
        with pytest.raises(UserError, match=message) as error:
            read_mel(tmp_path / f"{name}.npy", 6)
        assert f"{name}.npy" in str(error.value)
    np.savez(tmp_path / "many.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(UserError, match=r"2 arrays \(a, b\): one must be called mel"):
        read_mel(tmp_path / "many.npz", 6)


@pytest.mark.parametrize("kind", ["packed", "stretched"])
def test_a_small_file_does_not_take_the_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(budget, "MEMORY", 10**5)
    path = tmp_path / ("a.npz" if kind == "packed" else "a.pt")
    if kind == "packed":
        np.savez_compressed(path, mel=np.zeros((80, 10**5), np.float32))
    else:
        torch.save(torch.zeros(80, 1).expand(80, 10**9), path)
    with pytest.raises(UserError, match=re.escape(f"{path} is refused")):
        read_mel(path, 80)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    mel = np.full((6, 400), -5.0)
    with open(path, "wb") as file:
        {".npy": np.save, ".npz": np.savez, ".pt": lambda f, m: torch.save(torch.from_numpy(m), f)}[ending](file, mel)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="not readable"):
        read_mel(path, 6)
