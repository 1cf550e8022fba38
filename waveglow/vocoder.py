"""Mel spectrograms of any length to audio, with a trained WaveGlow."""

import logging
import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from common import inference
from common.audio import MelSpectrogram
from common.device import Device
from common.hints import Hints
from common.precision import amp_level
from waveglow.config import Config, build_mel, build_model
from waveglow.denoiser import HOP_LENGTH as DENOISER_HOP
from waveglow.denoiser import Denoiser

log = logging.getLogger(__name__)

DENOISER_CONTEXT = 2048
"Samples beyond the model's own context that keep the denoiser's STFT away from the edge of a chunk."


class Vocoder:
    """A WaveGlow ready to synthesize: its layers fused, on its device, long inputs in chunks.

    Attributes: ``config`` as far as the checkpoint tells it, ``model``, ``mel`` (the spectrogram it is
    conditioned on), ``training`` (the checkpoint's progress, for its loss curves), ``bytes`` (of the weights).
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
        """``path``: a checkpoint of any form; ``amp``: O0, O1 or O2, by default the device's; memory grows
        with ``chunk_frames``; ``int8``: convolutions in 8-bit integers; ``hints``: what the file does not say."""
        loaded = inference.load(path, "waveglow", Config, build_model, hints)
        self.config, self.model, self.training = loaded.config, loaded.model, loaded.training
        self.device = device
        self.chunk_frames = chunk_frames
        self.model.fuse()
        level = amp_level(amp, self.config.train_config.fp16_run, device)
        self.precision = inference.prepare(self.model, device, level, self.config.npu_config, int8)
        if level == "O1" and not int8:
            for wn in self.model.WN:
                wn.round_kernels(device.half)
        self.bytes = sum(weight.nbytes for weight in self.model.state_dict().values())
        self._denoiser: Denoiser | None = None
        log.info("device: %s (%s); precision: %s%s", device.torch_device, device.why, level, ", int8" * int8)

    @torch.no_grad()
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

        ``sizes``: of the chunks, in frames; endless.
        """
        hop, frames = self.model.hop_length, mel.shape[1]
        generator = torch.Generator().manual_seed(seed)
        noise = [torch.randn(shape, generator=generator) for shape in self.model.noise_shapes(1, frames)]
        context = self.model.context_frames + math.ceil(DENOISER_CONTEXT / hop)
        # The frames of the denoiser's STFT and the groups of samples must lie in a chunk as they lie in the whole.
        grid = math.lcm(DENOISER_HOP // math.gcd(DENOISER_HOP, hop), self.model.whole_frames)
        begin = 0
        for size in sizes:
            if begin >= frames:
                return
            end = min(frames, begin + size)
            left, right = max(0, begin - context) // grid * grid, min(frames, end + context)
            chunk = self._synthesize_chunk(mel[:, left:right], self._cut(noise, left, right), sigma)
            if denoiser_strength > 0:
                chunk = self.denoiser(chunk, denoiser_strength)
            yield chunk[0, (begin - left) * hop : (end - left) * hop].clamp(-1.0, 1.0)
            begin = end

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
            return self.model.infer(mel[None].to(*place), sigma, [n.to(*place) for n in noise]).float().cpu()

    def _cut(self, noise: list[Tensor], left: int, right: int) -> list[Tensor]:
        """The noise [1, c, L] of the frames from left to right."""
        return [n[:, :, self.model.groups(left) : self.model.groups(right)] for n in noise]

    @property
    def denoiser(self) -> Denoiser:
        if self._denoiser is None:
            with self.precision.autocast():
                self._denoiser = Denoiser(self.model)
        return self._denoiser
