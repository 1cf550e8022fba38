"""The jobs of ``tools.speed.jobs`` as other implementations do them.

NVIDIA's are checkouts of github.com/NVIDIA/waveglow and github.com/NVIDIA/tacotron2, run as they are,
with their own shapes and in PyTorch as it is here. Two lines of theirs know only CUDA; on a CPU these
get its tensors instead. ONNX Runtime gets the graphs of tools/deploy.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import tacotron2.config
import waveglow.config
from common.device import Device
from common.program import UserError
from tools.deploy.artifacts import Contents, engine_folder, read_contents
from tools.deploy.engines.engine import Graph
from tools.speed.jobs import DECODED, FRAMES, SYMBOLS, Job, tacotron2_batch, waveglow_batch


def nvidia_waveglow(peers: Path, device: Device, train: bool, precision: str, batch: int) -> Job:
    """NVIDIA's WaveGlow at full size."""
    glow = _import("glow", peers / "waveglow")
    config = asdict(waveglow.config.WaveGlowConfig())
    names = ("n_mel_channels", "n_flows", "n_group", "n_early_every", "n_early_size", "WN_config")
    model = glow.WaveGlow(**{name: config[name] for name in names})
    autocast = autocast_of(device, precision)
    if train:
        clips = waveglow_batch(device, batch)
        mel, audio = (clips[name].to(device.torch_device) for name in ("mel", "audio"))
        criterion = glow.WaveGlowLoss(1.0)
        step = training_step(model.to(device.torch_device), lambda: criterion(model((mel, audio))), autocast)
        return Job(step, audio.numel())
    model = model.remove_weightnorm(model).to(device.torch_device).eval()
    mel = torch.randn(batch, 80, FRAMES, device=device.torch_device)

    def work() -> Tensor:
        with torch.no_grad(), autocast(), _cuda_tensors_on(device):
            return model.infer(mel, sigma=0.6).float().cpu()

    return Job(work, batch * FRAMES * 256)


def nvidia_tacotron2(peers: Path, device: Device, train: bool, precision: str, batch: int) -> Job:
    """NVIDIA's Tacotron2 at full size. Its inference takes one text at a time, whatever the batch."""
    network = _import("model", peers / "tacotron2")
    sizes = asdict(tacotron2.config.Tacotron2Config(max_decoder_steps=DECODED, gate_threshold=1.0))
    model = network.Tacotron2(SimpleNamespace(**sizes, fp16_run=False)).to(device.torch_device)
    network.get_mask_from_lengths = lambda lengths: (
        torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    )
    autocast = autocast_of(device, precision)
    if train:
        inputs, targets, frames = tacotron2_training_data(batch, device)
        criterion = _import("loss_function", peers / "tacotron2").Tacotron2Loss()
        step = training_step(model, lambda: criterion(model(inputs), targets), autocast)
        return Job(step, frames)
    model.eval()
    text = torch.randint(1, 148, (1, SYMBOLS), device=device.torch_device)

    def work() -> Tensor:
        with torch.no_grad(), autocast():
            return model.inference(text)[1].float().cpu()

    return Job(work, DECODED)


def tacotron2_training_data(batch: int, device: Device) -> tuple[tuple, tuple[Tensor, Tensor], int]:
    """What NVIDIA's Tacotron2 is trained with: its inputs, mel and gate as targets, and the frames without padding."""
    clips = tacotron2_batch(batch)
    names = ("text", "text_lengths", "mel", "mel_lengths")
    text, text_lengths, mel, mel_lengths = (clips[name].to(device.torch_device) for name in names)
    gate = (torch.arange(mel.shape[2], device=mel.device) >= mel_lengths[:, None] - 1).float()
    return (text, text_lengths, mel, int(text_lengths.max()), mel_lengths), (mel, gate), int(mel_lengths.sum())


def training_step(
    model: nn.Module, loss: Callable[[], Tensor], autocast: Callable[[], AbstractContextManager]
) -> Callable[[], float]:
    """A step as in NVIDIA's train.py of both models."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def work() -> float:
        optimizer.zero_grad()
        with autocast():
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return value.item()

    return work


def onnxruntime_waveglow(models_dir: Path, quant_mode: str) -> Job:
    """The graph waveglow of tools/deploy."""
    graph, contents = _load("waveglow", models_dir, quant_mode)
    ports = contents.signature("waveglow").inputs
    shapes = {name: port.shape({"batch": 1, "mel": FRAMES}) for name, port in ports.items()}
    mel = np.random.default_rng(0).standard_normal(shapes["mel"]).astype(np.float32)
    inputs = {"mel": mel, "z": np.zeros(shapes["z"], np.float32), "sigma": np.full(1, 0.6, np.float32)}
    return Job(lambda: graph.fetch(graph.run(inputs)["audio"]), FRAMES * contents.waveglow.data_config.hop_length)


def onnxruntime_tacotron2(models_dir: Path, quant_mode: str) -> Job:
    """The graphs encoder, decoder (the whole loop) and postnet of tools/deploy."""
    encoder, contents = _load("encoder", models_dir, quant_mode)
    decoder, _ = _load("decoder", models_dir, quant_mode)
    postnet, _ = _load("postnet", models_dir, quant_mode)
    rng = np.random.default_rng(0)
    text = rng.integers(1, 148, (1, SYMBOLS))
    prenet_dim = contents.tacotron2.tacotron2_config.prenet_dim
    given = {
        "mask": np.zeros((1, SYMBOLS), bool),
        "prenet_masks": 2 * rng.integers(0, 2, (1, DECODED, 2, prenet_dim)).astype(np.float32),
        "max_decoder_steps": np.array([DECODED], np.int32),
    }

    def work() -> np.ndarray:
        encoded = encoder.run({"sequences": text, "sequence_lengths": np.array([SYMBOLS], np.int32)})
        memory = {name: encoded[name] for name in ("memory", "processed_memory")}
        decoded = decoder.run(memory | given)
        lengths = decoder.fetch(decoded["mel_lengths"])
        if lengths[0] != DECODED:
            raise RuntimeError(f"the gate ended the speech after {lengths[0]} frames, and {DECODED} were to be timed")
        refined = postnet.run({"mel_outputs": decoded["mel_outputs"], "mel_lengths": lengths})
        return postnet.fetch(refined["mel_outputs_postnet"])

    return Job(work, DECODED)


def _load(graph: str, models_dir: Path, quant_mode: str) -> tuple[Graph, Contents]:
    """A graph of tools/deploy in ONNX Runtime, and the contents of its folder."""
    from tools.deploy.engines.onnxruntime_engine import OnnxRuntime

    folder = engine_folder(models_dir, "onnxruntime", quant_mode)
    contents = read_contents(folder, "onnxruntime", "run tools/deploy/gen_model/run.sh")
    return OnnxRuntime(0, 1, {}).load(contents.path(folder, graph), graph, contents), contents


def autocast_of(device: Device, precision: str) -> Callable[[], AbstractContextManager]:
    """Stand-in for apex, which NVIDIA's half precision needs and which does not exist for CPUs."""
    if precision == "float32":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=device.half)


def _cuda_tensors_on(device: Device) -> AbstractContextManager:
    """NVIDIA's WaveGlow draws its noise with CUDA's tensor type."""
    if device.type == "cuda":
        return nullcontext()
    return mock.patch("torch.cuda.FloatTensor", torch.FloatTensor, create=True)


def check_checkout(peers: Path, network: str) -> None:
    """UserError if that is not where NVIDIA's code of the network (waveglow, tacotron2) is."""
    if not Path(peers, network, {"waveglow": "glow.py", "tacotron2": "model.py"}[network]).is_file():
        where = peers / network
        raise UserError(f"{where} is no checkout of NVIDIA's: git clone https://github.com/NVIDIA/{network} {where}")


def _import(module: str, checkout: Path) -> Any:
    """The module of this name in a checkout."""
    sys.path.insert(0, str(checkout))
    try:
        return __import__(module)
    except ImportError as error:
        raise UserError(f"{checkout / module}.py: {error}") from error
    finally:
        sys.path.remove(str(checkout))
