"""The voice that ships speaks, and says what it is told to say."""

import json
import wave

import pytest
import torch
from toy_speech import run_synthesize

from common import voices
from common.audio import read_wav
from common.checkpoints.interchange import read
from common.corpus import read_transcripts
from common.evaluation import metrics
from conftest import ROOT
from runs import CPU
from tacotron2.synthesizer import Synthesizer
from waveglow.vocoder import Vocoder

CORPUS = ROOT / "test/data/corpus"
SENTENCES = 5
LARGEST_MB = 40
MEL_DISTANCE = 0.45
"Of the audio from Tacotron2's spectrogram. Measured: 0.38 to 0.41; white noise of the same loudness is at 2.1 to 2.3."


@pytest.fixture(scope="module")
def voice():
    return voices.find_voice()


@pytest.fixture(scope="module")
def vocoder(voice):
    return Vocoder(voice.waveglow, CPU, "O1")


@pytest.fixture(scope="module")
def sentences():
    return list(read_transcripts(CORPUS / "metadata.csv").items())


@pytest.fixture(scope="module")
def spoken(voice, vocoder, sentences):
    """Texts with the spectrogram that was wished and the audio that came."""
    synthesizer = Synthesizer(voice.tacotron2, CPU)
    found = synthesizer.speak([text for _, text in sentences[:SENTENCES]])
    return [(each, vocoder.synthesize(each.utterance.mel, voice.settings.sigma)) for each in found]


def mel_distance(vocoder: Vocoder, audio: torch.Tensor, mel: torch.Tensor) -> float:
    heard = vocoder.spectrogram(audio)
    frames = min(heard.shape[1], mel.shape[1])
    return (heard[:, :frames] - mel[:, :frames]).abs().mean().item()


def test_it_sounds_as_its_spectrogram_says(spoken, vocoder):
    for each, audio in spoken:
        assert each.flaw == ""
        assert mel_distance(vocoder, audio, each.utterance.mel) < MEL_DISTANCE
        noise = torch.randn(len(audio), generator=torch.Generator().manual_seed(0)) * audio.std()
        assert mel_distance(vocoder, noise, each.utterance.mel) > 3 * MEL_DISTANCE
        assert 0.1 < audio.abs().max() < 1


def test_it_says_the_words(spoken, vocoder, sentences):
    """Of 24 sentences by another speaker, what it says is nearest to the one that it was told to say."""
    recordings = [
        vocoder.spectrogram(torch.from_numpy(read_wav(CORPUS / f"wavs/{name}.wav", 22050))) for name, _ in sentences
    ]

    def distance(mel: torch.Tensor, other: torch.Tensor) -> float:
        mel, other = mel[:, ::2], other[:, ::2]  # a quarter of the time
        path = metrics.warping_path(mel, other)
        return metrics.mel_cepstral_distortion(mel[:, path[0]], other[:, path[1]])

    for number, (_, audio) in enumerate(spoken):
        distances = [distance(vocoder.spectrogram(audio), recording) for recording in recordings]
        assert distances.index(min(distances)) == number, sentences[number]


def test_one_command_speaks(tmp_path, monkeypatch):
    run_synthesize(monkeypatch, "It was made by this repository. Is it not?", "-o", tmp_path / "out.wav")
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert 2.5 < file.getnframes() / file.getframerate() < 6


def test_what_ships_is_small_and_described(voice):
    folder = voices.FOLDER / voice.name
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST_MB * 1e6
    card = (folder / "README.md").read_text()
    for model in voices.MODELS:
        checkpoint = read(getattr(voice, model), model)
        assert f"{checkpoint.iteration:,} steps" in card
    assert json.loads((folder / "voice.json").read_text())["sigma"] == voice.settings.sigma
