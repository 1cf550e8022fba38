"""What crosses between the emulated NPU and the host in synthesis and evaluation; test/unit/test_npu_emulator.py runs
them.

A copy to the host, and reading a number there, makes the host wait for the card.
"""

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from torch_npu import emulator

import tacotron2.evaluation
import waveglow.evaluation
from common.layers import npu
from conftest import make_corpus, toy_config, toy_tacotron2_config
from runs import start
from tacotron2.data import find_utterances
from tacotron2.decoding import STEPS_BETWEEN_LOOKS
from tacotron2.griffin_lim import GriffinLim
from tacotron2.prenet import MASKS_AT_A_TIME
from tacotron2.synthesizer import Synthesizer
from waveglow.vocoder import Vocoder

pytest_plugins = ["check_fixtures"]
STEPS = 40
"max_decoder_steps of the toy: untrained, it speaks on to the end."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones") / "corpus", clips=4, seconds=0.3)


@pytest.fixture(scope="module")
def checkpoints(corpus, tmp_path_factory):
    """Of one step on the CPU."""
    folder = tmp_path_factory.mktemp("checkpoints")
    options = {"max_steps": 1, "batch_size": 2}
    on_card = {"npu_config": {"conv_transpose_on_cpu": "off"}}
    start(toy_config() | on_card, corpus, folder, **options)
    start(toy_tacotron2_config(), corpus, folder, **options)
    return folder


@contextmanager
def crossings():
    """Filled at the end with (to the device, to the host, numbers read)."""
    emulator.reset()
    seen = []
    yield seen
    copies = emulator.copies()
    seen += [copies.host_to_device, copies.device_to_host, copies.scalars_read]


@pytest.mark.parametrize("frames", [20, 40, 400])
def test_a_spectrogram_crosses_once_a_chunk(device, checkpoints, frames):
    """And none of its frames: to the device go the spectrogram and the noise of two flows, back comes the audio."""
    vocoder = Vocoder(checkpoints / "waveglow_1", device, chunk_frames=200)
    with crossings() as seen:
        vocoder.synthesize(torch.zeros(6, frames))
    assert seen == [2 * max(1, frames // 200), max(1, frames // 200), 0]


def test_upsampling_on_the_host_takes_its_weights_there_once(device, checkpoints):
    vocoder = Vocoder(checkpoints / "waveglow_1", device)
    vocoder.model.upsample.__class__ = npu.HostUpsampling
    vocoder.model.upsample.crossings = npu.Crossings()
    counts = []
    for _ in range(2):
        with crossings() as seen:
            vocoder.synthesize(torch.zeros(6, 20))
        counts.append(seen)
    assert counts == [[3, 4, 0], [3, 2, 0]]


@pytest.mark.parametrize("segments", [1, 3])
def test_an_evaluated_recording_is_waited_for_twice(device, checkpoints, corpus, tmp_path, segments):
    """For its synthesis, and for its losses of all segments together."""
    vocoder = Vocoder(checkpoints / "waveglow_1", device)
    vocoder.config.data_config.segment_length = 6615 // segments // 8 * 8
    args = argparse.Namespace(sigma=0.6, denoiser_strength=0.0, seed=1, mel_form="ln")
    mels = waveglow.evaluation.segment_mels(vocoder)
    with crossings() as seen:
        waveglow.evaluation.evaluate(corpus / "wavs/clip00.wav", vocoder, args, tmp_path, mels)
    # Each flow's matrix goes to the host for its log-determinant, and that comes back.
    logdets = 2 * segments
    assert seen == [2 + 2 * segments + logdets, 1 + logdets + 1, 0]


@pytest.mark.parametrize("texts", [1, 3])
def test_speech_crosses_once_a_batch(device, checkpoints, texts):
    synthesizer = Synthesizer(checkpoints / "tacotron2_1", device)
    with crossings() as seen:
        list(synthesizer.speak(["A tone."] * texts, tries=1))
    looks = STEPS // STEPS_BETWEEN_LOOKS
    # Text, lengths, masks; spectrograms, alignments, gates, ends; the shortest text, the longest speech, looks at
    # the gate.
    assert seen == [2 + -(-STEPS // MASKS_AT_A_TIME), 4, 2 + looks]


def test_an_evaluated_clip_of_tacotron2(device, checkpoints, corpus, tmp_path):
    synthesizer = Synthesizer(checkpoints / "tacotron2_1", device)
    clip = find_utterances(synthesizer.config.data_config, str(corpus))[0][0]
    with crossings() as seen:
        tacotron2.evaluation.evaluate(clip, synthesizer, GriffinLim(synthesizer.mel), 1, tmp_path, False)
    # Speech as above; with the recording given, what goes in are text, mel and their lengths, and back come the loss,
    # mel, gate and alignment.
    assert seen == [3 + 4, 4 + 3, 4 + 1]
