"""Mel spectrograms of any length to audio, by the engine of WaveGlow's graph."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.inference import without_memory
from common.mel_forms import FLOOR
from common.program import UserError
from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import find_engine
from tools.deploy.gen_model.settings import DEFAULT
from waveglow.config import build_model
from waveglow.denoiser import BIAS_FRAMES
from waveglow.vocoder import BaseVocoder

log = logging.getLogger(__name__)


class EngineVocoder(BaseVocoder):
    """WaveGlow's graph ready to synthesize, in chunks of the sizes that it was built for."""

    def __init__(self, folder: Path, contents: Contents, shares: int = 1):
        """``folder`` of engines with these ``contents``; ``shares``: how many work beside each other on a CPU.

        UserError for engines that take no chunk with what it depends on.
        """
        self.least_frames, _, most = contents.ranges["mel"]
        super().__init__(contents.waveglow, without_memory(contents.waveglow, build_model), most)
        self.chunk_frames = most - 2 * self.context - (self.grid - 1)
        needed = max(2 * self.context + 1, self.least_frames, BIAS_FRAMES) + self.grid - 1
        if most < needed:
            raise UserError(
                f"the engines of {folder} take {most} mel frames at most, and WaveGlow needs {needed} to speak chunk"
                f" by chunk: build them with --json=FILE, a copy of {DEFAULT} in which ranges.mel are others"
            )
        self.batch = contents.ranges["batch"][0]
        engine = find_engine(contents.engine)(0, shares, contents.options)
        self.graph = engine.load(contents.path(folder, "waveglow"), "waveglow", contents)
        self.bytes = contents.files["waveglow"].bytes
        log.info("WaveGlow by %s, %s", engine.device_name, contents.quant_mode)

    def _synthesize_chunk(self, mel: Tensor, noise: list[Tensor], sigma: float) -> Tensor:
        """What is smaller than the engine takes is filled up: with silence, and with further clips."""
        missing = max(0, self.least_frames - mel.shape[1])
        padded = F.pad(mel, (0, missing), value=FLOOR)[None, ..., None]
        z = F.pad(torch.cat(noise, dim=1), (0, self.model.groups(missing)))[..., None]
        inputs = {
            "mel": np.repeat(padded.numpy(), self.batch, axis=0),
            "z": np.repeat(z.numpy(), self.batch, axis=0),
            "sigma": np.full(self.batch, sigma, np.float32),
        }
        audio = self.graph.fetch(self.graph.run(inputs)["audio"])
        return torch.from_numpy(audio[:1, : mel.shape[1] * self.model.hop_length])
