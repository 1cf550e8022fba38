"""The cost of an engine's precision: the distance of its spectrograms from those of the exported graphs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import waveglow.config
from common.evaluation.metrics import mel_l1
from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import find_engine
from tools.deploy.infer_python.pipeline import Pipeline
from tools.deploy.infer_python.requests import reader, sentence

CHARACTERS, FRAMES = 64, 100
"Length of the compared text: long enough to be spoken, short enough to take seconds."
SEED = 1


def measure_cost(folder: Path, contents: Contents, onnx_folder: Path, exported: Contents) -> dict[str, float]:
    """Mean differences of log-mel bands: of Tacotron2's spectrograms, and of those of WaveGlow's audio.

    The random numbers are the same, and WaveGlow gets the same spectrogram. Needs ONNX Runtime.
    """
    spectrogram = waveglow.config.build_mel(contents.waveglow)
    exact_files = {name: exported.files[name] for name in contents.files}
    exact_contents = replace(contents, engine="onnxruntime", files=exact_files, quant_mode="", options={})
    exact = _speak(onnx_folder, exact_contents)
    mel, audio = _speak(folder, contents, exact[0])
    of_audio = [spectrogram(torch.from_numpy(each).clamp(-1, 1)[None])[0] for each in (exact[1], audio)]
    return {
        "tacotron2": mel_l1(torch.from_numpy(exact[0]), torch.from_numpy(mel)),
        "waveglow": mel_l1(*of_audio),
    }


def _speak(folder: Path, contents: Contents, given: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    engine = find_engine(contents.engine)(0, 1, contents.options)
    spoken = say(Pipeline(folder, contents, engine), given)
    engine.close()
    return spoken


def say(pipeline: Pipeline, given: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """mel [n_mel, T] of the usual text, and the audio of it, or of the one given."""
    contents = pipeline.contents
    pipeline.limit = min(pipeline.limit, FRAMES)
    characters = min(CHARACTERS, contents.ranges["text"][-1])
    text = reader(contents)(sentence(characters, contents.tacotron2.data_config.alphabet))
    mel, lengths = pipeline.spectrograms([text], [SEED])
    spoken = mel if given is None else given[None]
    (audio,) = pipeline.audio(spoken, np.array([spoken.shape[2]]), 0.6, [SEED])
    return mel[0, :, : lengths[0]], audio
