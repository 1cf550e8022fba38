"""The jobs of tools/benchmark.py: their sizes and inputs, and how this repository does them.

A job is a function to be timed and the units (audio samples, mel frames) that a call of it makes.
What a call computed arrives on the CPU before it returns, so nothing of it is still under way.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

import tacotron2.config
import tacotron2.data
import tacotron2.train
import waveglow.config
import waveglow.vocoder
from common.audio import to_16_bit
from common.config import Amp, AnyConfig
from common.config_reading import load_config
from common.corpus import find_clips
from common.device import Device, use_exact_float32, use_tf32
from common.inference import prepare
from common.program import StopSignal
from common.training.batches import to_device
from common.training.loop import step
from common.training.main import make_run
from common.training.run import AnyModel, Run
from common.voices import find_voice
from tacotron2.loss import Tacotron2Loss
from tacotron2.recorded_steps import RecordedSteps
from tacotron2.synthesizer import Synthesizer
from waveglow.data import TrainingSegments
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow
from waveglow.recorded import recorded_inference
from waveglow.train import compile_couplings

ROOT = Path(__file__).resolve().parents[2]
LEVELS: dict[str, Amp] = {
    "float32": "O0", "tf32": "TF32", "bf16": "O1", "half": "O1", "half, recomputed": "O1", "half, compiled": "O1",
    "int8": "O0",
}  # fmt: skip
"Precisions and their amp levels; recomputed: WaveGlow's activations are not kept; compiled: its couplings are."
FRAMES, SYMBOLS, DECODED = 100, 128, 200
"Mel frames that WaveGlow turns into audio; symbols of the text, and frames decoded of it whatever the gate says."
SENTENCE = (
    "A birch canoe slid on the smooth planks, and the boy was there when the sun rose"
    " over the small harbor behind the old town wall."
)
TRAINING_FRAMES, TRAINING_SYMBOLS = (350, 870), (60, 150)
"Shortest and longest clip of a training batch."


@dataclass
class Job:
    """Something to be timed."""

    work: Callable[[], object]
    units: int
    "Units that a call of ``work`` makes."
    keep: object = None
    "Objects that must live as long as ``work``."


def set_rounding(precision: str, device: Device) -> None:
    """Round float32 as this precision says, whatever was measured before in this process."""
    if precision == "float32":
        use_exact_float32(device)
    else:
        use_tf32(device, products=precision == "tf32")


def batches_on(device: Device) -> dict[str, tuple[int, ...]]:
    """Each job's sizes of a batch: small ones on the CPU, about NVIDIA's own on cards."""
    sizes: dict[str, tuple[int, ...]]
    if device.type == "cpu":
        sizes = {"waveglow-train": (2,), "waveglow-infer": (1,), "tacotron2-infer": (1,), "tacotron2-train": (16,)}
    else:
        sizes = {
            "waveglow-train": (24,),
            "waveglow-infer": (1,),
            "tacotron2-infer": (1, 4, 8),
            "tacotron2-train": (64,),
        }
    return sizes | {"voice-infer": (1,)}


def waveglow_batch(device: Device, batch: int) -> dict[str, Any]:
    """Noise; as for all inputs here, what is computed does not depend on the numbers."""
    generator = torch.Generator().manual_seed(0)
    segment = 8000 if device.type == "cpu" else 16000
    audio = 0.1 * torch.randn(batch, segment, generator=generator)
    mel = torch.randn(batch, 80, 1 + segment // 256, generator=generator) - 5
    return {"mel": mel, "audio": audio, "names": []}


def tacotron2_batch(batch: int) -> dict[str, Any]:
    """Clips of evenly spread lengths, the longest one first."""
    generator = torch.Generator().manual_seed(0)
    spread = lambda shortest, longest: torch.linspace(longest, shortest, batch).long()  # noqa: E731
    text_lengths, mel_lengths = spread(*TRAINING_SYMBOLS), spread(*TRAINING_FRAMES)
    text = torch.randint(1, 148, (batch, int(text_lengths[0])), generator=generator)
    mel = torch.randn(batch, 80, int(mel_lengths[0]), generator=generator) - 5
    text[torch.arange(text.shape[1]) >= text_lengths[:, None]] = 0
    mel.transpose(1, 2)[torch.arange(mel.shape[2]) >= mel_lengths[:, None]] = 0
    return {"text": text, "text_lengths": text_lengths, "mel": mel, "mel_lengths": mel_lengths, "names": []}


def waveglow_train(device: Device, precision: str, batch: int) -> Job:
    """A whole step: loss, gradients, Adam. Units: samples of audio."""
    batches = waveglow_batch(device, batch)
    config = load_config(ROOT / "configs/waveglow.json", waveglow.config.Config)
    criterion = WaveGlowLoss(config.train_config.sigma)

    def build_model(config: waveglow.config.Config) -> WaveGlow:
        model = waveglow.config.build_model(config)
        if precision == "half, compiled":
            compile_couplings(model, device)
        return model

    def loss(run: Run[waveglow.config.Config, WaveGlow], model: nn.Module, batch: dict) -> Tensor:
        run.model.recompute = precision == "half, recomputed"
        mel, audio = (to_device(batch[name], device, run.precision.input_dtype) for name in ("mel", "audio"))
        return criterion(model(mel, audio))

    work = _training("waveglow", config, build_model, device, precision, loss, batches)
    return Job(work, batches["audio"].numel())


def tacotron2_train(device: Device, precision: str, batch: int) -> Job:
    """A whole step: loss, gradients, Adam. Units: mel frames, without padding."""
    config = load_config(ROOT / "configs/tacotron2.json", tacotron2.config.Config)
    criterion = Tacotron2Loss()
    clips = tacotron2_batch(batch)

    def loss(run: Run, model: nn.Module, batch: dict) -> Tensor:
        return tacotron2.train.run_teacher_forced(model, batch, run, criterion)[0]

    work = _training("tacotron2", config, tacotron2.config.build_model, device, precision, loss, clips)
    return Job(work, int(clips["mel_lengths"].sum()))


def _training(
    name: str,
    config: AnyConfig,
    build_model: Callable[[AnyConfig], AnyModel],
    device: Device,
    precision: str,
    loss: Callable[[Run[AnyConfig, AnyModel], nn.Module, dict], Tensor],
    batch: dict,
) -> Callable[[], object]:
    """A step of the training loop on this batch."""
    config.train_config.amp = LEVELS[precision]
    run = make_run(name, config, build_model, device)
    run.model.train()
    if device.type == "cuda":
        # As the loader does.
        batch = {name: each.pin_memory() if isinstance(each, Tensor) else each for name, each in batch.items()}
    no_beat = lambda *_, **__: None  # noqa: E731 - tools/benchmark.py has a limit of its own
    return lambda: step(run, partial(loss, run), run.model, [batch], StopSignal(), no_beat)


def waveglow_infer(device: Device, precision: str, batch: int) -> Job:
    """Synthesis of clips of 100 frames. Units: samples of audio."""
    config = load_config(ROOT / "configs/waveglow.json", waveglow.config.Config)
    model = waveglow.config.build_model(config).eval().requires_grad_(False)
    level = waveglow.vocoder.prepare(model, device, LEVELS[precision], config.npu_config, int8=precision == "int8")
    mel = torch.randn(batch, 80, FRAMES, device=device.torch_device).to(level.input_dtype)
    infer = recorded_inference(model, device)

    def work() -> Tensor:
        with level.autocast():
            return infer(mel, 0.6, model.draw_noise(mel)).float().cpu()

    return Job(work, batch * FRAMES * config.data_config.hop_length)


def tacotron2_infer(device: Device, precision: str, batch: int) -> Job:
    """Texts of 128 symbols, 200 frames decoded of each and refined. Units: mel frames."""
    config = load_config(ROOT / "configs/tacotron2.json", tacotron2.config.Config)
    config.tacotron2_config.max_decoder_steps = DECODED
    config.tacotron2_config.gate_threshold = 1.0
    model = tacotron2.config.build_model(config).eval().requires_grad_(False)
    level = prepare(model, device, LEVELS[precision], config.npu_config, int8=precision == "int8")
    make_steps = RecordedSteps(model.decoder)
    text = torch.randint(1, 148, (batch, SYMBOLS), device=device.torch_device)
    lengths = torch.full((batch,), SYMBOLS, device=device.torch_device)

    def work() -> list[Tensor]:
        with level.autocast():
            utterances = model.infer(text, lengths, list(range(batch)), make_steps)
        return [utterance.mel.cpu() for utterance in utterances]

    return Job(work, batch * DECODED)


def voice_infer(device: Device, precision: str, batch: int) -> Job:
    """A sentence of 128 characters spoken by the shipped voice, text to audio. Units: samples of audio."""
    voice = find_voice()
    synthesizer = Synthesizer(voice.tacotron2, device, LEVELS[precision])
    vocoder = waveglow.vocoder.Vocoder(voice.waveglow, device, LEVELS[precision])

    def work() -> Tensor:
        (spoken,) = synthesizer.speak([SENTENCE], seed=0)
        return vocoder.synthesize(spoken.utterance.mel, voice.settings.sigma)

    return Job(work, len(work()))


def waveglow_data() -> Job:
    """Loading of WaveGlow's training segments in one process. Units: samples of audio."""
    config = waveglow.config.Config()
    corpus = noise_corpus()
    clips = find_clips(corpus.name)
    data = TrainingSegments(clips, config.data_config, waveglow.config.build_mel(config), 0)
    epochs = count()

    def work() -> None:
        epoch = next(epochs)
        for i in range(len(clips)):
            data[epoch, i]

    return Job(work, len(clips) * config.data_config.segment_length, keep=corpus)


def tacotron2_data() -> Job:
    """Loading of Tacotron2's clips in one process, their mel spectrograms from the cache. Units: mel frames."""
    config = tacotron2.config.Config()
    corpus = noise_corpus()
    clips, held_back = tacotron2.data.find_utterances(config.data_config, corpus.name)
    mels = tacotron2.data.MelCache(Path(corpus.name, "mels"), config.data_config, tacotron2.config.build_mel(config))
    data = tacotron2.data.Utterances(clips + held_back, config.data_config, mels, "stop")
    items = [data[i] for i in range(len(data))]
    frames = sum(item["mel"].shape[1] for item in items)
    return Job(lambda: tacotron2.data.collate([data[i] for i in range(len(data))]), frames, keep=corpus)


def noise_corpus() -> tempfile.TemporaryDirectory:
    """16 clips as long as LJ Speech's on average; gone with what is returned."""
    rng = np.random.default_rng(0)
    folder = tempfile.TemporaryDirectory()
    wavs = Path(folder.name, "wavs")
    wavs.mkdir()
    for i in range(16):
        noise = rng.uniform(-0.5, 0.5, int(22050 * 6.6)).astype(np.float32)
        soundfile.write(wavs / f"{i:03d}.wav", to_16_bit(torch.from_numpy(noise)), 22050)
    lines = (f"{i:03d}|{'a word of a text, ' * 5}" for i in range(16))
    Path(folder.name, "metadata.csv").write_text("\n".join(lines))
    return folder


JOBS: dict[str, Callable[[Device, str, int], Job]] = {
    "waveglow-train": waveglow_train,
    "waveglow-infer": waveglow_infer,
    "tacotron2-infer": tacotron2_infer,
    "tacotron2-train": tacotron2_train,
    "voice-infer": voice_infer,
}
DATA: dict[str, Callable[[], Job]] = {"waveglow-train": waveglow_data, "tacotron2-train": tacotron2_data}
"Loading of what a training job computes with."
