"""From a checkpoint to a model that is ready to be used: on its device, in its precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from torch import nn

from common.checkpoints.interchange import fitted, read
from common.config import AnyConfig, NpuConfig, from_dict
from common.device import Device
from common.layers.channels_last import use_channels_last
from common.layers.int8 import use_int8
from common.layers.npu import patch_for_npu
from common.precision import Precision
from common.training.run import AnyModel, Progress


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
    config = from_dict(config_type, checkpoint.config)
    model = build_model(config).eval().requires_grad_(False)
    model.load_state_dict(fitted(path, checkpoint.weights, model))
    training = Progress(**checkpoint.progress) if checkpoint.progress else Progress(checkpoint.iteration)
    return Loaded(config, model, training)


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
