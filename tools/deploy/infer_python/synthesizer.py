"""Texts of any length to mel spectrograms, by the engines of Tacotron2's graphs."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.special import expit

from common.program import UserError
from tacotron2.alignment import alignment_quality
from tacotron2.model import Utterance
from tacotron2.sentences import LONGEST_PIECE
from tacotron2.synthesizer import BaseSynthesizer
from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import find_engine
from tools.deploy.gen_model.settings import DEFAULT
from tools.deploy.infer_python.pipeline import Pipeline

log = logging.getLogger(__name__)


class EngineSynthesizer(BaseSynthesizer):
    """Tacotron2's graphs ready to speak. Attributes beside those of ``BaseSynthesizer``: ``bytes`` of the engines."""

    def __init__(self, folder: Path, contents: Contents, shares: int = 1, cleaners: Sequence[str] = ()):
        """``folder`` of engines with these ``contents``; ``shares``: how many work beside each other on a CPU.

        UserError for engines that decode frame by frame, since these do not tell the alignment.
        """
        if "decoder" not in contents.files:
            raise UserError(
                f"the engines of {folder} decode frame by frame: in {DEFAULT} set decoder of {contents.engine} to"
                ' "decoder", and start again'
            )
        longest = min(LONGEST_PIECE, contents.ranges["text"][-1])
        super().__init__(contents.sources["tacotron2"].path, contents.tacotron2, cleaners=cleaners, longest=longest)
        engine = find_engine(contents.engine)(0, shares, contents.options)
        self.pipeline = Pipeline(folder, contents, engine, with_waveglow=False)
        self.bytes = sum(contents.files[name].bytes for name in self.pipeline.graphs)
        log.info("Tacotron2 by %s, %s", engine.device_name, contents.quant_mode)

    def infer(self, texts: list[list[int]], seeds: list[int]) -> list[Utterance]:
        largest = self.pipeline.contents.ranges["batch"][-1]
        utterances = []
        for begin in range(0, len(texts), largest):
            utterances += self._infer(texts[begin : begin + largest], seeds[begin : begin + largest])
        return utterances

    def _infer(self, texts: list[list[int]], seeds: list[int]) -> list[Utterance]:
        mels, lengths, decoded = self.pipeline.decode(texts, seeds)
        fetch = self.pipeline.graphs["decoder"].fetch
        gates, alignments = expit(fetch(decoded["gate_outputs"])), fetch(decoded["alignments"])
        utterances = []
        for i, (length, text) in enumerate(zip(lengths.tolist(), texts)):
            steps = length // self.pipeline.frames_per_step
            gate = torch.from_numpy(gates[i, :steps].copy())
            alignment = torch.from_numpy(alignments[i, :steps, : len(text)].copy())
            mel = torch.from_numpy(mels[i, :, :length].copy())
            stopped = bool(gate[-1] > self.pipeline.sizes.gate_threshold)
            utterances.append(Utterance(mel, length, stopped, alignment, gate, *alignment_quality(alignment)))
        return utterances
