"""From a checkpoint to a model that is ready to be used: on its device, in its precision."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic

import torch
from torch import nn

from common.checkpoints.interchange import AUDIO, NOT_IN_SHAPES, Checkpoint, fitted, read
from common.checkpoints.progress import Progress
from common.config import AnyConfig, BaseConfig, NpuConfig
from common.config_reading import config_of_checkpoint
from common.device import Device, keep_freed_memory
from common.hints import Hints, for_kind
from common.layers.channels_last import use_channels_last
from common.layers.int8 import use_int8
from common.layers.npu import patch_for_npu
from common.precision import Precision
from common.training.finetuning import check_same_model
from common.training.run import AnyModel, progress_of

log = logging.getLogger(__name__)

TOLD = (*AUDIO, "text_cleaners", "gate_threshold", "max_decoder_steps")
"Settings that are worth a line in the log where a checkpoint does not state them."


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
    path: str | Path,
    kind: str,
    config_type: type[AnyConfig],
    build_model: Callable[[AnyConfig], AnyModel],
    hints: Hints | None = None,
) -> Loaded[AnyConfig, AnyModel]:
    """A model of ``kind`` (waveglow or tacotron2) with the weights of a checkpoint of any form.

    UserError as ``interchange.read``, ``interchange.fitted`` and ``with_hints``.
    """
    checkpoint = with_hints(path, read(path, kind), hints or {}, config_type)
    config = config_of_checkpoint(path, config_type, checkpoint.config)
    say_what_is_assumed(path, checkpoint, config)
    weights = fitted(path, checkpoint.weights, without_memory(config, build_model))
    model = build_model(config).eval().requires_grad_(False)
    model.load_state_dict(weights)
    return Loaded(config, model, progress_of(path, checkpoint))


def with_hints(path: str | Path, checkpoint: Checkpoint, hints: Hints, kind: type[BaseConfig]) -> Checkpoint:
    """The checkpoint with the hints in place of its own statements. UserError where one contradicts the weights."""
    own = for_kind(hints, kind)
    model = f"{checkpoint.kind}_config"
    own.get(model, {}).pop("n_symbols", None)  # follows from the weights
    if not any(own.values()) or not isinstance(checkpoint.config, dict):
        return checkpoint
    of_file = [checkpoint.config.get(name, {}) for name in (model, "data_config")]
    if not all(isinstance(section, dict) for section in of_file):
        return checkpoint  # what is no section is refused later
    current = {model: own.get(model, {}), "data_config": {}}
    check_same_model(path, checkpoint.config, current, checkpoint.kind, may_change=NOT_IN_SHAPES)
    free = {name: value for name, value in current[model].items() if name in NOT_IN_SHAPES}
    data = own.get("data_config", {})
    sections = {model: of_file[0] | free, "data_config": of_file[1] | data}
    return replace(checkpoint, config=checkpoint.config | sections, guessed=checkpoint.guessed - data.keys())


def say_what_is_assumed(path: str | Path, checkpoint: Checkpoint, config: BaseConfig) -> None:
    """One line about what neither the file nor the user says."""
    if checkpoint.progress:  # of this repository: all is said
        return
    model = f"{checkpoint.kind}_config"
    both = (checkpoint.config, asdict(config))
    said, values = (sections.get("data_config", {}) | sections.get(model, {}) for sections in both)
    assumed = [f"{n} {values[n]}" for n in TOLD if n in values and (n not in said or n in checkpoint.guessed)]
    if assumed:
        log.info("%s leaves these to be assumed: %s; --config=FILE changes them", path, ", ".join(assumed))


def without_memory(config: AnyConfig, build_model: Callable[[AnyConfig], AnyModel]) -> AnyModel:
    """The model with shapes but no numbers: sizes that a file claims cost nothing before they are checked."""
    with torch.device("meta"):
        return build_model(config)


def prepare(model: nn.Module, device: Device, level: str, npu_config: NpuConfig, int8: bool = False) -> Precision:
    """Bring a model to the device, its layers as they are fastest there; ``int8``: convolutions in 8-bit integers.

    Returns the precision to run it in, of amp level ``level``.
    """
    keep_freed_memory(device)
    patch_for_npu(model, npu_config, device)
    use_channels_last(model, device)
    precision = Precision(level, 1.0, device, model)
    if int8:
        use_int8(model, device)
    model.to(device.torch_device)
    return precision
