"""From a checkpoint to a model that is ready to be used: on its device, in its precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import torch
from torch import nn

from common.checkpoints.interchange import fitted, read
from common.checkpoints.progress import Progress, read_progress
from common.config import AnyConfig, NpuConfig, config_of_checkpoint
from common.device import Device
from common.layers.channels_last import use_channels_last
from common.layers.int8 import use_int8
from common.layers.npu import patch_for_npu
from common.precision import Precision
from common.training.run import AnyModel


@dataclass
class Loaded(Generic[AnyConfig, AnyModel]):
    """The parts of a checkpoint that synthesis needs."""

    config: AnyConfig
    "The configuration, as far as the checkpoint has it."
    model: AnyModel
    "On the CPU, in float32."
    training: Progress
    "Progress of the training that made the weights."


def load(
    path: str | Path, kind: str, config_type: type[AnyConfig], build_model: Callable[[AnyConfig], AnyModel]
) -> Loaded[AnyConfig, AnyModel]:
    """A model of ``kind`` (waveglow or tacotron2) with the weights of a checkpoint of any form.

    UserError as ``interchange.read`` and ``interchange.fitted``.
    """
    checkpoint = read(path, kind)
    config = config_of_checkpoint(path, config_type, checkpoint.config)
    training = read_progress(path, checkpoint.progress) if checkpoint.progress else Progress(checkpoint.iteration)
    weights = fitted(path, checkpoint.weights, without_memory(config, build_model))
    model = build_model(config).eval().requires_grad_(False)
    model.load_state_dict(weights)
    return Loaded(config, model, training)


def without_memory(config: AnyConfig, build_model: Callable[[AnyConfig], AnyModel]) -> AnyModel:
    """The model with shapes and no numbers: what a file's sizes say costs nothing before they are compared."""
    with torch.device("meta"):
        return build_model(config)


def prepare(model: nn.Module, device: Device, level: str, npu_config: NpuConfig, int8: bool = False) -> Precision:
    """Bring a model to the device, its layers as they are fastest there; ``int8``: convolutions in 8-bit integers.

    Returns the precision to run it in, of amp level ``level``.
    """
    patch_for_npu(model, npu_config, device)
    use_channels_last(model, device)
    precision = Precision(level, 1.0, device, model)
    if int8:
        use_int8(model, device)
    model.to(device.torch_device)
    return precision
