"""Text to spectrograms to audio, on the graphs of an engine."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit

from tacotron2.prenet import Prenet
from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import Engine, Value
from tools.deploy.graphs import draw_masks

SILENCE = np.log(np.float32(1e-5))
"The value of silence in a mel spectrogram, see ``common.audio.MelSpectrogram``."


class Pipeline:
    """The graphs of a folder, loaded.

    Attributes: ``seconds``, by stage the time that was spent in it since it was last cleared: encoder,
    decoder, postnet, waveglow; what goes into a graph and comes out of it included.
    """

    def __init__(self, folder: Path, contents: Contents, engine: Engine, with_waveglow: bool = True):
        names = [name for name in contents.files if with_waveglow or name != "waveglow"]
        paths = {name: contents.path(folder, name) for name in names}
        self.graphs = {name: engine.load(path, name, contents) for name, path in paths.items()}
        self.contents, self.engine = contents, engine
        self.sizes = contents.tacotron2.tacotron2_config
        self.hop_length = contents.waveglow.data_config.hop_length
        self.n_mel, self.frames_per_step = self.sizes.n_mel_channels, self.sizes.n_frames_per_step
        self.limit = min(self.sizes.max_decoder_steps, contents.ranges["mel"][-1] // self.frames_per_step)
        n_channels = self.n_mel * self.frames_per_step
        self.prenet = Prenet(n_channels, self.sizes.prenet_dim, self.sizes.p_prenet_dropout)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A context whose duration counts as this stage's."""
        began = time.perf_counter()
        yield
        self.engine.wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def spectrograms(self, texts: Sequence[Sequence[int]], seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Texts as ids, a seed for each -> mel [B, n_mel, T] and its lengths [B] in frames. UserError as ``decode``."""
        mel, lengths, _ = self.decode(texts, seeds)
        return mel, lengths

    def decode(
        self, texts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Value]]:
        """As ``spectrograms``, and what else the graph ``decoder`` gives: gate_outputs [B, S] and alignments [B, S, N].

        Nothing where ``decoder_iter`` decodes. UserError for a batch or a text beyond what the graphs were built for;
        what is below is filled up.
        """
        contents, wanted = self.contents, len(texts)
        smallest = {axis: sizes[0] for axis, sizes in contents.ranges.items()}
        texts = [*texts, *[texts[-1]] * (smallest["batch"] - wanted)]
        seeds = [*seeds, *[seeds[-1]] * (len(texts) - wanted)]
        contents.check_range("batch", len(texts), "the batch")
        longest = max(smallest["text"], *map(len, texts))
        contents.check_range("text", longest, "the longest text")
        with self.stage("encoder"):
            sequences = np.zeros((len(texts), longest), np.int64)
            for row, text in zip(sequences, texts):
                row[: len(text)] = text
            lengths = np.array([len(text) for text in texts], np.int32)
            encoded = self.graphs["encoder"].run({"sequences": sequences, "sequence_lengths": lengths})
        with self.stage("decoder"):
            mask = np.arange(longest) >= lengths[:, None]
            masks = draw_masks(self.prenet, list(seeds), self.limit).numpy()
            inputs = {"memory": encoded["memory"], "processed_memory": encoded["processed_memory"], "mask": mask}
            decoded: dict[str, Value] = {}
            if "decoder" in self.graphs:
                decoded = self._loop(inputs, masks)
                mel, mel_lengths = decoded.pop("mel_outputs"), self.graphs["decoder"].fetch(decoded.pop("mel_lengths"))
            else:
                mel, mel_lengths = self._step_by_step(inputs, masks)
        with self.stage("postnet"):
            graph = self.graphs["postnet"]
            results = graph.run({"mel_outputs": self._long_enough(mel, mel_lengths.max()), "mel_lengths": mel_lengths})
            refined = graph.fetch(results["mel_outputs_postnet"])
        frames = mel_lengths[:wanted].max()
        return refined[:wanted, :, :frames], mel_lengths[:wanted], decoded

    def _loop(self, inputs: dict[str, Value], masks: np.ndarray) -> dict[str, Value]:
        """The loop over steps inside of the engine: what the graph gives."""
        limits = np.full(len(masks), self.limit, np.int32)
        return self.graphs["decoder"].run(inputs | {"prenet_masks": masks, "max_decoder_steps": limits})

    def _step_by_step(self, inputs: dict[str, Value], masks: np.ndarray) -> tuple[Value, np.ndarray]:
        """The loop over steps from here. What is made stays where the engine has it; only gates are looked at."""
        graph, signature = self.graphs["decoder_iter"], self.contents.signature("decoder_iter")
        batch, text = inputs["mask"].shape
        inputs = inputs | {"mask": graph.upload("mask", inputs["mask"])}
        sizes = {"batch": batch, "text": text}
        state = {"decoder_input": "decoder_output"} | {
            name.removeprefix("out_"): name for name in signature.outputs if name.startswith("out_")
        }
        inputs |= {name: np.zeros(signature.inputs[name].shape(sizes), np.float32) for name in state}
        frames, gates, taken, running = [], [], np.zeros(batch, np.int32), np.ones(batch, bool)
        for step in range(masks.shape[1]):
            results = graph.run(inputs | {"prenet_masks": np.ascontiguousarray(masks[:, step])})
            frames.append(results["decoder_output"])
            gates.append(results["gate_prediction"])
            if len(gates) == graph.steps_at_a_time or step + 1 == masks.shape[1]:
                for gate in graph.fetch_all(gates):
                    taken += running
                    running &= ~(expit(gate[:, 0]) > self.sizes.gate_threshold)
                gates.clear()
                if not running.any():
                    break
            inputs |= {name: results[output] for name, output in state.items()}
        mel = graph.fetch_all(frames[: taken.max()]).transpose(1, 0, 2).reshape(batch, -1, self.n_mel)
        return mel.transpose(0, 2, 1), taken * self.frames_per_step

    def audio(
        self, mel: np.ndarray, lengths: np.ndarray, sigma: float | Sequence[float], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        """mel [B, n_mel, T], lengths [B], sigma of all or of each, seeds -> the audio [length * hop] of each."""
        wanted, frames = len(mel), max(mel.shape[2], self.contents.ranges["mel"][0])
        self.contents.check_range("mel", frames, "the number of mel frames")
        with self.stage("waveglow"):
            mel = self._long_enough(mel, mel.shape[2])
            mel = np.where(np.arange(frames) < lengths[:, None, None], mel, SILENCE)
            sigmas = np.broadcast_to(np.asarray(sigma, np.float32), wanted)
            rows = [*range(wanted), *[wanted - 1] * (self.contents.ranges["batch"][0] - wanted)]
            inputs = {"mel": mel[rows][..., None], "z": self._noise(seeds, frames)[rows], "sigma": sigmas[rows]}
            graph = self.graphs["waveglow"]
            audio = graph.fetch(graph.run(inputs)["audio"])
        return [row[: length * self.hop_length] for row, length in zip(audio, lengths)]

    def _noise(self, seeds: Sequence[int], frames: int) -> np.ndarray:
        """z [B, n_group, L, 1]; that of a clip follows from its seed."""
        shape = self.contents.signature("waveglow").inputs["z"].shape({"batch": 1, "mel": frames})
        return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).numpy()

    def _long_enough(self, mel: Value, frames: int) -> Value:
        """The mel with at least as many frames as the graphs were built for."""
        missing = self.contents.ranges["mel"][0] - frames
        if missing <= 0:
            return mel
        mel = mel if isinstance(mel, np.ndarray) else self.graphs["postnet"].fetch(mel)
        return np.pad(mel, ((0, 0), (0, 0), (0, missing)))
