"""Mel spectrograms of any length to audio, with a trained WaveGlow."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from common import inference
from common.audio import MelSpectrogram
from common.config import NpuConfig
from common.device import Device
from common.hints import Hints
from common.precision import Precision, amp_level
from waveglow.config import Config, build_mel, build_model
from waveglow.denoiser import BIAS_FRAMES, Denoiser
from waveglow.denoiser import HOP_LENGTH as DENOISER_HOP
from waveglow.model import WaveGlow
from waveglow.recorded import recorded_inference

log = logging.getLogger(__name__)

DENOISER_CONTEXT = 2048
"Samples beyond the model's own context that keep the denoiser's STFT away from the edge of a chunk."


class BaseVocoder(ABC):
    """Mel spectrograms of any length to audio, long ones in chunks; a subclass says how the model runs.

    Attributes: ``config`` as far as the checkpoint tells it, ``model`` (its sizes are used here, not its weights),
    ``chunk_frames`` (of the largest chunk), ``least_frames`` (that the model takes), ``bytes`` (of the weights).
    """

    bytes: int
    least_frames = 1

    def __init__(self, config: Config, model: WaveGlow, chunk_frames: int):
        self.config, self.model, self.chunk_frames = config, model, chunk_frames
        hop = model.hop_length
        self.context = model.context_frames + math.ceil(DENOISER_CONTEXT / hop)
        "Frames to either side of a chunk that its audio depends on."
        self.grid = math.lcm(DENOISER_HOP // math.gcd(DENOISER_HOP, hop), model.whole_frames)
        "The frames of the denoiser's STFT and the groups of samples lie in a chunk as in the whole at such frames."

    @abstractmethod
    def _synthesize_chunk(self, mel: Tensor, noise: list[Tensor], sigma: float) -> Tensor:
        """mel [n_mel, T], noise as ``WaveGlow.noise_shapes`` -> audio [1, T * hop_length] in float32, on the CPU."""

    def synthesize(self, mel: Tensor, sigma: float = 0.6, denoiser_strength: float = 0.0, seed: int = 1234) -> Tensor:
        """mel [n_mel, T] on the CPU -> audio [T * hop_length] in -1..1, on the CPU.

        A long input is done in chunks that overlap by all the model can see, so the result equals that
        of one piece (with int8 up to rounding, whose scale is a chunk's own), and the memory is that of
        one chunk. The noise depends on the seed alone.
        """
        chunks = self.stream(mel, sigma, denoiser_strength, seed, repeat(self.chunk_frames))
        return torch.cat([torch.zeros(0), *chunks])

    @torch.no_grad()
    def stream(
        self, mel: Tensor, sigma: float, denoiser_strength: float, seed: int, sizes: Iterable[int]
    ) -> Iterator[Tensor]:
        """mel [n_mel, T] -> the audio of ``synthesize`` chunk by chunk [frames * hop_length], as each is made.

        ``sizes``: of the chunks, in frames, of which ``chunk_frames`` are made at most; endless.
        """
        hop, frames = self.model.hop_length, mel.shape[1]
        generator = torch.Generator().manual_seed(seed)
        noise = [torch.randn(shape, generator=generator) for shape in self.model.noise_shapes(1, frames)]
        begin = 0
        for size in sizes:
            if begin >= frames:
                return
            end = min(frames, begin + min(size, self.chunk_frames))
            right = min(frames, end + self.context)
            left = max(0, min(begin - self.context, right - self.least_frames)) // self.grid * self.grid
            chunk = self._synthesize_chunk(mel[:, left:right], self._cut(noise, left, right), sigma)
            if denoiser_strength > 0:
                chunk = self.denoiser(chunk, denoiser_strength)
            yield chunk[0, (begin - left) * hop : (end - left) * hop].clamp(-1.0, 1.0)
            begin = end

    def _cut(self, noise: list[Tensor], left: int, right: int) -> list[Tensor]:
        """The noise [1, c, L] of the frames from left to right."""
        return [n[:, :, self.model.groups(left) : self.model.groups(right)] for n in noise]

    @cached_property
    def denoiser(self) -> Denoiser:
        """Made when it is asked for."""
        noise = [torch.zeros(shape) for shape in self.model.noise_shapes(1, BIAS_FRAMES)]
        silence = torch.zeros(self.config.waveglow_config.n_mel_channels, BIAS_FRAMES)
        return Denoiser(self._synthesize_chunk(silence, noise, 0.0))


class Vocoder(BaseVocoder):
    """A WaveGlow ready to synthesize, by PyTorch: its layers fused, on its device.

    Attributes beside those of ``BaseVocoder``: ``mel`` (the spectrogram it is conditioned on), ``training`` (the
    checkpoint's progress, for its loss curves), ``device``, ``precision``.
    """

    def __init__(
        self,
        path: str | Path,
        device: Device,
        amp: str = "",
        chunk_frames: int = 1000,
        int8: bool = False,
        hints: Hints | None = None,
    ):
        """``path``: a checkpoint of any form; ``amp``: O0, TF32, O1 or O2, by default the device's; memory grows
        with ``chunk_frames``; ``int8``: convolutions in 8-bit integers; ``hints``: what the file does not say."""
        loaded = inference.load(path, "waveglow", Config, build_model, hints)
        super().__init__(loaded.config, loaded.model, chunk_frames)
        self.device, self.training = device, loaded.training
        level = amp_level(amp, self.config.train_config.fp16_run, device)
        self.precision = prepare(self.model, device, level, self.config.npu_config, int8)
        self.bytes = sum(weight.nbytes for weight in self.model.state_dict().values())
        self._infer = recorded_inference(self.model, device)
        log.info("device: %s (%s); precision: %s%s", device.torch_device, device.why, level, ", int8" * int8)

    @cached_property
    def mel(self) -> MelSpectrogram:
        """Made when it is asked for: librosa's filters take seconds to import, and speech needs none."""
        return build_mel(self.config)

    def spectrogram(self, audio: Tensor) -> Tensor:
        """audio [N] -> mel [n_mel, T]; less than the STFT needs is filled up with silence."""
        missing = max(0, self.mel.filter_length - len(audio))
        return self.mel(torch.nn.functional.pad(audio, (0, missing))[None])[0]

    def _synthesize_chunk(self, mel: Tensor, noise: list[Tensor], sigma: float) -> Tensor:
        """mel [n_mel, T], noise as ``WaveGlow.noise_shapes`` -> audio [1, T * hop_length] in float32, on the CPU."""
        place = (self.device.torch_device, self.precision.input_dtype)
        with self.precision.autocast():
            return self._infer(mel[None].to(*place), sigma, [n.to(*place) for n in noise]).float().cpu()


def prepare(model: WaveGlow, device: Device, level: str, npu_config: NpuConfig, int8: bool = False) -> Precision:
    """``inference.prepare`` with the model's layers fused, its large kernels in the precision they are used in."""
    model.fuse()
    precision = inference.prepare(model, device, level, npu_config, int8)
    if level == "O1" and not int8:
        for wn in model.WN:
            wn.round_kernels(device.half)
    return precision
