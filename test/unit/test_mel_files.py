"""Mel spectrograms from elsewhere: shapes, number formats, and what their values mean."""

import re
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from common.audio import MelSpectrogram, read_wav
from common.checkpoints import budget
from common.mel_files import is_mel_file, read_mel
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


WITHOUT_FLOOR, LINEAR, SAMPLES = "natural logarithms without a floor", "amplitudes or powers", "those of samples"


@pytest.mark.parametrize(
    ("values", "guess", "cure"),
    [
        ((-14.1, -13.0, 0.0), WITHOUT_FLOOR, "--mel_form=ln clamps"),
        ((-27.9, -14.0, 6.0), WITHOUT_FLOOR, "--mel_form=ln clamps"),
        ((-14.0, -13.0, 0.0), None, ""),
        ((-28.0, -14.0, 6.0), "decibels", "--mel_form=db or"),  # lower than twice the lowest
        ((-20.0, -14.1, 0.0), "decibels", "--mel_form=power_db"),  # for the most part
        ((-20.0, -10.0, 6.1), "decibels", "--mel_form=db or"),  # louder than speech
        ((0.0, 0.1, 1.0), LINEAR, "--mel_form=amplitude or --mel_form=power"),
        ((0.0, 9.0, 90.0), LINEAR, "--mel_form=amplitude or --mel_form=power"),
        ((0.0, 0.11, 1.0), "decibels stretched to 0..1", "--mel_form=0..1 "),
        ((0.0, 1.0, 1.05), "decibels stretched to 0..1", "--mel_form=0..1 "),
        ((0.0, 1.0, 1.06), "decibels stretched to 0..4", "--mel_form=0..4 "),
        ((0.5, 3.0, 4.05), "decibels stretched to 0..4", "--mel_form=0..4 "),
        ((0.0, 3.0, 4.06), SAMPLES, "divide the samples by 32768"),
        ((-11.0, 0.0, 6.01), SAMPLES, "divide the samples by 32768"),
        ((-11.0, 0.0, 6.0), None, ""),
        ((-4.05, 0.0, 1.51), "decibels stretched to -4..4", "--mel_form=-4..4 "),
        ((-0.1, 0.0, 4.05), "decibels stretched to -4..4", "--mel_form=-4..4 "),
        ((-4.05, 0.0, 1.5), "common logarithms", "--mel_form=log10 converts"),
        ((-4.06, 0.0, 4.0), "common logarithms", "--mel_form=ln takes them"),
        ((-4.0, 0.0, 4.06), "common logarithms", "--mel_form=log10 converts"),
        ((-5.049, -3.0, -1.5), "common logarithms", "--mel_form=log10 converts"),
        ((-5.051, -3.0, -1.5), None, ""),
        ((-5.0, -3.0, -1.5), None, ""),  # no livelier than steady noise may be
        ((-5.0, -3.0, -1.49), "common logarithms", "--mel_form=log10 converts"),
    ],
)
def test_what_the_lowest_the_middle_and_the_highest_value_look_like(values, guess, cure):
    """On both sides of each limit."""
    found = guess_form(torch.tensor([values], dtype=torch.double))
    assert (found is None) == (guess is None)
    if found:
        assert found[0].startswith(guess) and cure in found[1] + " "


@pytest.mark.parametrize("form", [form for form in FORMS if ".." not in form])
def test_nothing_in_a_form_is_the_floor(form):
    """Amplitudes and powers of nothing are 0, of which there is no logarithm; negative ones are rounding."""
    nothing = [-1e-9, 0.0] if form in ("amplitude", "power") else [-1e3, -200.0]
    assert to_natural_log(torch.tensor([nothing]), form).tolist() == [[pytest.approx(FLOOR)] * 2]


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


def test_whole_numbers_are_taken_and_what_is_no_matrix_of_numbers_is_not(tmp_path):
    for number, kind in enumerate(("u1", "i2", "u4", "i8")):
        np.save(tmp_path / f"{number}.npy", np.arange(12).reshape(6, 2).astype(kind))
        assert torch.equal(read_mel(tmp_path / f"{number}.npy", 6), torch.arange(12).view(6, 2).float())
    torch.save(torch.arange(12, dtype=torch.int16).view(6, 2), tmp_path / "a.pt")
    assert torch.equal(read_mel(tmp_path / "a.pt", 6), torch.arange(12).view(6, 2).float())
    for thing, said in (
        (torch.zeros(6, 2, dtype=torch.complex64), "is refused"),
        (torch.zeros(6, 2).to_sparse(), ""),
        ({"mel": torch.zeros(6, 2)}, "holds no mel spectrogram but dict"),
        (torch.tensor(1.0), r"must hold a mel spectrogram \[6, T\], not \[\]$"),
        (torch.zeros(6), r"not \[6\]$"),
        (torch.zeros(1, 6), r"not \[1, 6\]; the other way round, it seems: save it transposed$"),
        (torch.zeros(1, 7), r"not \[1, 7\]$"),
        (torch.zeros(2, 6, 4), r"not \[2, 6, 4\]$"),
        (torch.zeros(1, 1, 6, 4), r"not \[1, 1, 6, 4\]$"),
    ):
        torch.save(thing, tmp_path / "b.pt")
        with pytest.raises(UserError, match=rf"{tmp_path}/b\.pt .*{said}"):
            read_mel(tmp_path / "b.pt", 6)


@pytest.mark.parametrize(
    ("value", "places", "said"),
    [
        (np.nan, [(2, 3)], "1 of its 240 values, the first in frame 3$"),
        (np.inf, [(5, 7), (0, 9)], "2 of its 240 values, the first in frame 7$"),
        (-np.inf, [(5, 39), (5, 38)], "2 of its 240 values, the first in frame 38, as the logarithm of 0 is$"),
    ],
)
def test_where_a_mel_is_not_finite(tmp_path, value, places, said):
    mel = np.full((6, 40), -5.0, np.float32)
    for place in places:
        mel[place] = value
    np.save(tmp_path / "a.npy", mel)
    with pytest.raises(UserError, match=rf"the mel spectrogram in {tmp_path}/a.npy is not finite: {said}"):
        read_mel(tmp_path / "a.npy", 6)


def test_which_arrays_of_several_are_the_mel(tmp_path):
    first, second = np.full((6, 2), -1.0), np.full((6, 2), -2.0)
    for arrays, expected in (
        ({"mel": second}, second),
        ({"text": first}, first),
        ({"text": first, "mel": second}, second),
        ({"mel": second, "text": first}, second),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        assert np.array_equal(read_mel(tmp_path / "a.npz", 6), expected)


def test_what_is_a_mel_by_its_name():
    taken = [name for name in ("a.npy", "a.NPZ", "a.wav.pt", "a.Pt", "a.wav", "a.pth", "npy", "a.npy.txt")
             if is_mel_file(Path(name))]  # fmt: skip
    assert taken == ["a.npy", "a.NPZ", "a.wav.pt", "a.Pt"]


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt"])
def test_a_mel_that_is_not_there_is_said_so(tmp_path, name):
    with pytest.raises(UserError, match=f"^no file {tmp_path}/{name}$"):
        read_mel(tmp_path / name, 6)


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
