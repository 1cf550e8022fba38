"""What the programs that speak take as options, and the function they make of it: mel to sound."""

from types import SimpleNamespace

import pytest
import torch

import tacotron2.config
import waveglow.config
from common.config_reading import from_dict
from common.program import Parser, UserError
from common.voices import Settings
from tools import sound

SETTINGS = Settings({}, 0.4, 0.2, ["english_cleaners_v2"])


@pytest.fixture
def read(monkeypatch):
    """The options as they are filled in; voices have SETTINGS."""
    asked = []

    def find_voice(name):
        asked.append(name)
        return SimpleNamespace(tacotron2=f"{name}/t", waveglow=f"{name}/w", settings=SETTINGS)

    monkeypatch.setattr(sound, "find_voice", find_voice)

    def read(*options):
        asked.clear()
        parser = Parser("", "")
        sound.add_sound_options(parser)
        args = parser.parse_args(options)
        sound.check_sound_options(parser, args)
        return args

    read.asked = asked
    return read


def values(args):
    return args.tacotron2, args.waveglow, args.sigma, args.denoiser_strength, args.cleaners


def test_without_checkpoints_it_is_a_voice_with_its_settings(read):
    assert values(read()) == ("/t", "/w", 0.4, 0.2, ["english_cleaners_v2"]) and read.asked == [""]
    assert values(read("--voice=anna"))[:2] == ("anna/t", "anna/w") and read.asked == ["anna"]
    assert values(read("--waveglow=mine"))[:2] == ("/t", "mine")
    given = ["--sigma=0", "--denoiser_strength=0", "--cleaners=a,b"]
    assert values(read(*given)) == ("/t", "/w", 0.0, 0.0, ["a", "b"])


def test_checkpoints_have_the_settings_of_nobody(read):
    assert values(read("--tacotron2=t")) == ("t", None, 0.6, 0.0, [])
    assert values(read("--tacotron2=t", "--waveglow=w", "--sigma=0.9"))[:3] == ("t", "w", 0.9)
    assert read.asked == []
    args = read("--tacotron2=t")
    assert (args.seed, args.amp, args.int8) == (1234, None, False)


@pytest.mark.parametrize("name", ["sigma", "denoiser_strength", "seed"])
def test_numbers_lie_within_their_bounds(read, capsys, name):
    assert getattr(read(f"--{name}=0"), name) == 0
    assert getattr(read(f"--{name}={2**63 - 1 if name == 'seed' else 1e18}"), name) > 0
    for value in ("-1", str(2**63), *(["nan", "inf"] if name != "seed" else [])):
        with pytest.raises(SystemExit) as end:
            read(f"--{name}={value}")
        assert end.value.code == 2
        assert f"--{name} must be at least 0 and below 2**63" in capsys.readouterr().err


def test_a_voice_has_its_own_tacotron2(read, capsys):
    with pytest.raises(SystemExit) as end:
        read("--voice=anna", "--tacotron2=t")
    assert end.value.code == 2
    assert "--voice and --tacotron2 exclude each other" in capsys.readouterr().err


# ---- the vocoder ----

T2, WG = tacotron2.config.Config, waveglow.config.Config


@pytest.fixture
def vocode(monkeypatch):
    """The function for options; what WaveGlow, or the preview, was asked for."""
    asked = {}

    class FakeVocoder:
        config = WG()

        def __init__(self, *given, **options):
            asked["made"] = given, options

        def synthesize(self, mel, *settings):
            asked["settings"] = settings
            return 2 * mel

    class FakeGriffinLim:
        def __init__(self, mel):
            asked["made"] = mel

        def synthesize(self, mel, *settings):
            asked["settings"] = settings
            return 3 * mel

    monkeypatch.setattr(sound, "Vocoder", FakeVocoder)
    monkeypatch.setattr(sound, "GriffinLim", FakeGriffinLim)
    synthesizer = SimpleNamespace(config=T2(), path="t", device="cpu", mel="its mel")

    def make(hints=None, **options):
        args = {"waveglow": "w", "amp": None, "int8": False, "sigma": 0.5, "denoiser_strength": 0.1, "seed": 9}
        return sound.make_vocoder(SimpleNamespace(**(args | options)), synthesizer, hints)

    make.asked, make.synthesizer = asked, synthesizer
    return make


@pytest.mark.parametrize(("amp", "int8"), [(None, False), ("O1", True)])
def test_waveglow_is_made_and_asked_as_the_options_say(vocode, amp, int8):
    audio = vocode(amp=amp, int8=int8, hints={"a": 1})(torch.ones(3))
    assert audio.tolist() == [2, 2, 2]
    assert vocode.asked["made"] == (("w", "cpu", amp or ""), {"int8": int8, "hints": {"a": 1}})
    assert vocode.asked["settings"] == (0.5, 0.1, 9)


def test_without_waveglow_it_is_a_preview_with_the_seed(vocode, caplog):
    caplog.set_level("INFO")
    assert vocode(waveglow=None)(torch.ones(2)).tolist() == [3, 3]
    assert (vocode.asked["made"], vocode.asked["settings"]) == ("its mel", (9,))
    assert caplog.messages == ["no --waveglow: the sound is a preview by Griffin-Lim"]


@pytest.mark.parametrize(("waveglow", "named"), [("w", "w"), (None, "t")])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_audio_that_is_not_finite_names_the_checkpoint(vocode, waveglow, named, bad):
    with pytest.raises(UserError, match=f"^the audio is not finite: {named} is not usable at this precision$"):
        vocode(waveglow=waveglow)(torch.tensor([0.0, bad]))


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("data_config", "sampling_rate", 16000), ("data_config", "filter_length", 2048),
        ("data_config", "hop_length", 200), ("data_config", "win_length", 800), ("data_config", "mel_fmin", 40.0),
        ("data_config", "mel_fmax", 7600.0), ("own", "n_mel_channels", 40),
    ],
)  # fmt: skip
@pytest.mark.parametrize("whose", ["tacotron2", "waveglow"])
def test_both_are_of_one_kind_of_spectrogram(vocode, section, name, value, whose):
    changed = {f"{whose}_config" if section == "own" else section: {name: value}}
    spoken, heard = (
        from_dict(package, changed if kind == whose else {}) for kind, package in (("tacotron2", T2), ("waveglow", WG))
    )
    usual = 80 if section == "own" else getattr(T2().data_config, name)
    ours, theirs = (value, usual) if whose == "tacotron2" else (usual, value)
    with pytest.raises(UserError, match=rf"{name} is {ours:g} in t and {theirs:g} in w \(NVIDIA's value"):
        sound.check_same_audio(spoken, "t", heard, "w")
    sound.check_same_audio(T2(), "t", WG(), "w")
    vocode.synthesizer.config = spoken if whose == "tacotron2" else T2()
    if whose == "tacotron2":
        with pytest.raises(
            UserError, match=rf"the checkpoints do not fit together.*{name} is {ours:g} in t and .* in w "
        ):
            vocode()
