"""PyTorch itself, on any device that it has: the models as they are, without ONNX."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from common.device import Device, card_name, keep_freed_memory, pick_device
from common.layers.channels_last import use_channels_last
from common.layers.int8 import use_int8, why_no_int8
from common.precision import convert
from common.program import UserError
from tacotron2.decoding import STEPS_BETWEEN_LOOKS
from tools.deploy import models
from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import Build, Engine, Graph, Value, counted, share_of_cores
from tools.deploy.engines.hardware_names import processor_name
from tools.deploy.engines.quantization import SMALLEST
from tools.deploy.engines.rounding import quantize_weight
from tools.deploy.signatures import kind_of

EXACT = {"attention_cell", "decoder_cell", "attention_weights", "attention_weights_cum", "mel_outputs"}
"Inputs that are float32 whatever the precision of the model."
SCALE = ".scale"


@lru_cache(maxsize=1)  # graph after graph is one of the same model
def load_model(kind: str, path: str, hop_length: int | None) -> models.Model:
    return models.load(kind, path, {"data_config": {"hop_length": hop_length}} if hop_length else None)


class Torch(Engine):
    """Options: none."""

    suffix = ".safetensors"
    takes_graphs = False

    def __init__(self, device: int, shares: int, options: Mapping[str, Any]):
        kind = pick_device("auto").type
        self.device = pick_device(kind, 0 if kind == "cpu" else device)
        self.threads = share_of_cores(device, shares) if kind == "cpu" else 1
        torch.set_num_threads(self.threads)
        keep_freed_memory(self.device)

    @staticmethod
    def build(request: Build, path: Path) -> None:
        """The weights of the graph's part of the model, in the bits of the quant mode."""
        model = load_model(kind_of(request.graph), request.source.path, request.hop_length)
        if model.source != request.source:
            raise UserError(
                f"{request.source.path} is not what it was when it was exported, export it again: {request.how}"
            )
        part = model.modules()[request.graph].state_dict(keep_vars=True).values()
        own = {id(tensor) for tensor in part}
        weights = {name: t.detach() for name, t in model.model.state_dict(keep_vars=True).items() if id(t) in own}
        path.write_bytes(safetensors.torch.save(packed(weights, request.quant_mode)))

    def load(self, path: Path, graph: str, contents: Contents) -> Graph:
        """The graph's module with its weights on the device."""
        try:
            weights = unpacked(safetensors.torch.load_file(path))
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path} is not a file of the torch engine's: {error}") from error
        kind = kind_of(graph)
        try:
            model = models.rebuild(kind, getattr(contents, kind), weights)
        except UserError as error:
            raise UserError(f"{error}, build them again: {contents.again(path.parent)}") from error
        in_integers = contents.quant_mode == "int8" and kind == "waveglow" and not why_no_int8(self.device)
        dtype = torch.float32 if in_integers else precision(contents.quant_mode, self.device)
        convert(model.model, dtype)
        model.model.to(self.device.torch_device)
        use_channels_last(model.model, self.device)
        if in_integers:
            use_int8(model.model, self.device)
        return TorchGraph(
            model.modules()[graph], list(contents.signature(graph).outputs), self.device.torch_device, dtype
        )

    def wait(self) -> None:
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    @property
    def device_name(self) -> str:
        where = card_name(self.device) or f"{processor_name()}, {counted(self.threads)}"
        return f"PyTorch {torch.__version__} on {where}"


class TorchGraph(Graph):
    """A module; values are its tensors."""

    def __init__(self, module: nn.Module, outputs: list[str], device: torch.device, dtype: torch.dtype):
        self.module, self.outputs, self.device, self.dtype = module.eval(), outputs, device, dtype
        self.steps_at_a_time = 1 if device.type == "cpu" else STEPS_BETWEEN_LOOKS

    def upload(self, name: str, array: np.ndarray) -> Value:
        return self._fitting(name, torch.from_numpy(np.ascontiguousarray(array)).to(self.device))

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, np.ndarray | Value]) -> dict[str, Value]:
        tensors = {
            name: self.upload(name, value) if isinstance(value, np.ndarray) else self._fitting(name, value)
            for name, value in inputs.items()
        }
        results = self.module(**tensors)
        return dict(zip(self.outputs, [results] if isinstance(results, Tensor) else results))

    def fetch(self, value: Value) -> np.ndarray:
        return (value.float() if value.is_floating_point() else value).cpu().numpy()

    def fetch_all(self, values: Sequence[Value]) -> np.ndarray:
        return self.fetch(torch.stack(list(values)))

    def _fitting(self, name: str, tensor: Tensor) -> Tensor:
        """In the precision that the module takes."""
        if not tensor.is_floating_point():
            return tensor
        return tensor.to(torch.float32 if name in EXACT else self.dtype)


def precision(quant_mode: str, device: Device) -> torch.dtype:
    """What is computed in where nothing is in integers: after rounding to 8 bits bfloat16, where that is fast."""
    if quant_mode == "force_float16":
        return half(device)
    return torch.bfloat16 if quant_mode == "int8" and device.half == torch.bfloat16 else torch.float32


def half(device: Device) -> torch.dtype:
    """The precision of force_float16; CPUs are slow in float16 itself."""
    return torch.bfloat16 if device.type == "cpu" else torch.float16


def packed(weights: dict[str, Tensor], quant_mode: str) -> dict[str, Tensor]:
    """Weights as a file holds them: large ones in half precision, or in 8 bits with a scale for each row.

    Those of an upsampling in float16, by which it is still seen to interpolate.
    """
    if quant_mode == "force_float32":
        return weights
    weights |= {name: tensor.half() for name, tensor in weights.items() if name.startswith(models.UPSAMPLING)}
    large = [name for name, t in weights.items() if t.dtype == torch.float32 and t.ndim > 1 and t.numel() >= SMALLEST]
    if quant_mode == "force_float16":
        weights |= {name: weights[name].to(half(pick_device())) for name in large}
    if quant_mode == "int8":
        for name in large:
            tensor = weights[name].numpy()
            integers, scale = quantize_weight(tensor, axes=tuple(range(1, tensor.ndim)))
            weights |= {name: torch.from_numpy(integers), f"{name}{SCALE}": torch.from_numpy(scale)}
    return weights


def unpacked(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``packed``, but for what it rounded."""
    scales = {name.removesuffix(SCALE): weights.pop(name) for name in list(weights) if name.endswith(SCALE)}
    for name, scale in scales.items():
        weights[name] = weights[name].float() * scale.reshape(-1, *[1] * (weights[name].ndim - 1))
    return {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}
