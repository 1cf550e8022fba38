"""The jobs of ``tools.speed.jobs`` as NVIDIA's DeepLearningExamples do them: its later Tacotron2 and WaveGlow.

A checkout of github.com/NVIDIA/DeepLearningExamples is run as it is. Its packages have the names of ours.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import tacotron2.config
import waveglow.config
from common.device import Device
from common.program import UserError, first_line
from tools.speed.jobs import DECODED, FRAMES, SYMBOLS, Job, waveglow_batch
from tools.speed.peers import autocast_of, tacotron2_training_data, training_step

FOLDER = "DeepLearningExamples/PyTorch/SpeechSynthesis/Tacotron2"
"Of both models, in the folder of the peers."
PACKAGES = ("tacotron2", "tacotron2_common", "waveglow")


def has_examples(peers: Path) -> bool:
    """Whether a checkout is there."""
    return Path(peers, FOLDER).is_dir()


def examples_waveglow(peers: Path, device: Device, train: bool, precision: str, batch: int) -> Job:
    """WaveGlow at ours' full size, which is half as wide as theirs."""
    model_of, loss_of = load(peers, "waveglow.model", "waveglow.loss_function")
    model = made_like(model_of.WaveGlow, asdict(waveglow.config.WaveGlowConfig()))
    autocast = autocast_of(device, precision)
    if train:
        clips = waveglow_batch(device, batch)
        mel, audio = (clips[name].to(device.torch_device) for name in ("mel", "audio"))
        criterion = loss_of.WaveGlowLoss(1.0)
        step = training_step(model.to(device.torch_device), lambda: criterion(model((mel, audio)), audio), autocast)
        return Job(step, audio.numel())
    model = model.remove_weightnorm(model).to(device.torch_device).eval()
    mel = torch.randn(batch, 80, FRAMES, device=device.torch_device)

    def work() -> Tensor:
        with torch.no_grad(), autocast():
            return model.infer(mel, sigma=0.6).float().cpu()

    return Job(work, batch * FRAMES * 256)


def examples_tacotron2(peers: Path, device: Device, train: bool, precision: str, batch: int) -> Job:
    """Tacotron2 at full size. It decodes a batch until all its texts have ended."""
    model_of, loss_of = load(peers, "tacotron2.model", "tacotron2.loss_function")
    sizes = asdict(tacotron2.config.Tacotron2Config(max_decoder_steps=DECODED, gate_threshold=1.0))
    # Theirs by default; with the padding masked they cannot train in a PyTorch of today.
    options = {"decoder_no_early_stopping": False, "mask_padding": False}
    model = made_like(model_of.Tacotron2, sizes | options).to(device.torch_device)
    autocast = autocast_of(device, precision)
    if train:
        inputs, targets, frames = tacotron2_training_data(batch, device)
        criterion = loss_of.Tacotron2Loss()
        step = training_step(model, lambda: criterion(model(inputs), targets), autocast)
        return Job(step, frames)
    model.eval()
    text = torch.randint(1, 148, (batch, SYMBOLS), device=device.torch_device)
    lengths = torch.full((batch,), SYMBOLS, device=device.torch_device)

    def work() -> Tensor:
        with torch.no_grad(), autocast():
            return model.infer(text, lengths)[0].float().cpu()

    return Job(work, batch * DECODED)


def made_like(model: Callable[..., Any], settings: dict) -> Any:
    """A model with those of these settings that it knows."""
    return model(**{name: settings[name] for name in inspect.signature(model).parameters})


def load(peers: Path, *modules: str) -> list[ModuleType]:
    """Modules of the checkout. UserError if one does not load."""
    folder = Path(peers, FOLDER).absolute()
    try:
        with their_packages(folder):
            return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise UserError(f"{folder}: {first_line(error)}") from error


@contextmanager
def their_packages(folder: Path) -> Iterator[None]:
    """Inside, the names of their packages are those in the folder; outside, they are ours."""

    def taken() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
        return {name: sys.modules.pop(name) for name in names}

    ours, path = taken(), list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        taken()
        sys.modules.update(ours)
        sys.path[:] = path  # their modules add to it, too
