"""Weights of WaveGlow and Tacotron2 from every form of checkpoint found in the wild.

``load_weights`` reads this repository's own form; NVIDIA's pickled modules, also those from before
2019-08; DeepLearningExamples' and NGC's; the Ascend port's; bare state dicts and safetensors; each
with weight norm in either notation or fused, in any precision, behind any prefixes. Nothing in a
file is executed. ``fitted`` brings the weights into a model. ``tools/convert_checkpoint.py`` writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.checkpoints import TITLES
from common.checkpoints.native import REQUIRED
from common.checkpoints.nvidia_names import Weights, nvidia_name, nvidia_weights
from common.checkpoints.pickle_names import Shell
from common.checkpoints.reading import read_contents
from common.checkpoints.sizes import tacotron2_sizes, waveglow_sizes
from common.program import UserError, shown

AUDIO = ("sampling_rate", "filter_length", "hop_length", "win_length", "mel_fmin", "mel_fmax")
NOT_IN_SHAPES = (
    "mask_padding", "p_prenet_dropout", "p_attention_dropout", "p_decoder_dropout", "p_frame_dropout",
    "max_decoder_steps", "gate_threshold",
)  # fmt: skip
"Hyperparameters of Tacotron2 that no tensor's shape reveals."
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"How the names of a state dict's buffers end."
ROWS = 8
MOST_VISITS, DEEPEST = 100_000, 50
"How many modules to search for weights, and how deeply nested; honest files have hundreds of modules, ten levels deep."


@dataclass
class Checkpoint:
    """The contents of a checkpoint, whatever its form was."""

    kind: str
    "waveglow or tacotron2."
    config: dict[str, Any]
    "waveglow_config or tacotron2_config, and data_config, as far as known; a native file's whole configuration."
    weights: Weights
    "NVIDIA's names; float32, on the CPU; convolutions 3-D; weight norm split or fused as in the file."
    iteration: int
    "Steps of training behind the weights; 0 where the file does not say."
    progress: dict[str, Any]
    "A native file's; empty in other forms."
    guessed: set[str] = field(default_factory=set)
    "Keys of the configuration that the file does not state, and whose values the shapes only make likely."


def load_weights(path: str | Path, expect: str | None = None) -> tuple[dict[str, Any], Weights]:
    """The configuration and the state dict of a checkpoint; see ``Checkpoint`` and ``read``."""
    checkpoint = read(path, expect)
    return checkpoint.config, checkpoint.weights


def read(path: str | Path, expect: str | None = None) -> Checkpoint:
    """Read a checkpoint of any form; ``expect`` is waveglow, tacotron2 or None for either.

    UserError if the file is missing or damaged, would run code, or holds the other model.
    """
    contents = read_contents(path)
    tensors, attributes = _find_weights(path, contents) or ({}, {})
    kind = _kind(tensors)
    if kind is None:
        raise UserError(f"{path} holds no weights of {TITLES[expect] if expect else ' or '.join(TITLES.values())}")
    if expect and kind != expect:
        raise UserError(f"{path} is a checkpoint of {TITLES[kind]}, and one of {TITLES[expect]} is needed here")
    weights = nvidia_weights(path, tensors)
    top = _dict(contents)
    is_native = top.keys() >= REQUIRED
    progress = top["progress"] if is_native else {}
    if not isinstance(progress, dict):
        raise UserError(f"{path}: its progress is {shown(progress)}, must be an object")
    known = attributes | _options(top)
    config = top["config"] if is_native else _config(path, kind, weights, known)
    iteration = top.get("iteration")
    return Checkpoint(
        kind,
        config,
        weights,
        iteration=iteration if isinstance(iteration, int) else 0,
        progress=progress,
        guessed={"hop_length"} if kind == "waveglow" and not is_native and "hop_length" not in known else set(),
    )


def fitted(path: str | Path, weights: Any, model: nn.Module) -> Weights:
    """The weights for ``model.load_state_dict``, with weight norm where the model has it.

    The model may be on the device meta. UserError with a short table, if the weights are not those of this model, or
    not finite.
    """
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(f"{path} holds something other than tensors among its weights")
    expected = model.state_dict()
    # torch before 0.4.1 did not count batches.
    uncounted = {name for name in expected if name.endswith("num_batches_tracked")} - weights.keys()
    weights = {name: torch.zeros_like(expected[name], device="cpu") for name in uncounted} | weights
    for name in [name for name in weights if f"{name}_g" in expected and weights[name].ndim == 3]:
        weight = weights.pop(name)
        weights[f"{name}_g"] = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
        weights[f"{name}_v"] = weight
    differences = _differences(expected, weights)
    if differences:
        more = [f"... and {len(differences) - ROWS} more"] if len(differences) > ROWS else []
        table = "\n  ".join(differences[:ROWS] + more)
        raise UserError(f"{path} does not fit the model, {len(differences)} weights differ:\n  {table}")
    if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"{path} holds numbers that are not finite: in {broken[0]} and {len(broken) - 1} other weights")
    return weights


def load_adam(path: str | Path) -> tuple[float, Weights, Weights]:
    """The steps, exp_avg and exp_avg_sq of the Adam that made the weights, by the names of the weights.

    UserError where the file does not hold one that belongs to its weights.
    """
    contents = read_contents(path)
    tensors, _ = _find_weights(path, contents) or ({}, {})
    optimizer = _dict(_dict(contents).get("optimizer"))
    groups, state = optimizer.get("param_groups"), _dict(optimizer.get("state"))
    # An optimizer numbers its parameters in the order of the model's, which a state dict keeps.
    names = [name for name in tensors if not str(name).endswith(BUFFERS)]
    lists = [_dict(group).get("params") for group in groups] if isinstance(groups, list) else []
    numbers = [number for each in lists if isinstance(each, list) for number in each if isinstance(number, int)]
    if len(numbers) < len(names):  # a fixed upsampling is no parameter to an optimizer
        names = [name for name in names if not nvidia_name(name).startswith("upsample.")]
    states = [_dict(state.get(number)) for number in numbers]
    fits = len(states) == len(names) > 0 and all(
        isinstance(each.get(key), Tensor) and each[key].shape == tensors[name].shape
        for name, each in zip(names, states)
        for key in ("exp_avg", "exp_avg_sq")
    )
    steps = steps_of_adam(states[0].get("step")) if fits else None
    if steps is None:
        raise UserError(f"{path} holds no state of an Adam that belongs to its weights: leave --keep_optimizer out")
    exp_avg, exp_avg_sq = (
        nvidia_weights(path, {name: each[key] for name, each in zip(names, states)})
        for key in ("exp_avg", "exp_avg_sq")
    )
    return steps, exp_avg, exp_avg_sq


def steps_of_adam(value: Any) -> float | None:
    """An Adam's step count as a number; None if it is not one."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return float(value) if type(value) in (int, float) and 0 <= value < 2**53 else None


def _differences(expected: Weights, given: Weights) -> list[str]:
    """A row for each weight that is missing, unexpected or of another shape."""
    missing = [f"missing: {name} {list(expected[name].shape)}" for name in expected if name not in given]
    unexpected = [f"unexpected: {str(name)[:100]} {list(given[name].shape)}" for name in given if name not in expected]
    of_another_kind = [
        f"dtype: {name} {given[name].dtype}, the model's is {tensor.dtype}"
        for name, tensor in expected.items()
        if name in given and given[name].is_floating_point() != tensor.is_floating_point()
    ]
    misshapen = [
        f"shape: {name} {list(given[name].shape)}, the model's is {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    return missing + unexpected + misshapen + of_another_kind


def _find_weights(path: str | Path, contents: Any) -> tuple[Weights, dict[str, Any]] | None:
    """The first module or dict that holds a model's weights, and the attributes of the modules."""
    visits, seen = iter(range(MOST_VISITS)), set()

    def look_in(value: Any, depth: int) -> tuple[Weights, dict[str, Any]] | None:
        if not isinstance(value, dict) or (id(value), depth) in seen:  # it may hold itself
            return None
        seen.add((id(value), depth))
        tensors, attributes = _of_module(path, value, visits) if isinstance(value, Shell) else ({}, {})
        tensors |= {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
        if _kind(tensors):
            return tensors, attributes
        # Where a training keeps an average of its weights, the average is the result.
        first_the_usual = sorted(value, key=lambda name: (name != "average", name not in ("model", "state_dict")))
        found = (look_in(value[name], depth - 1) for name in first_the_usual if depth)
        return next((each for each in found if each), None)

    return look_in(contents, depth=3)


def _of_module(path: str | Path, root: Shell, visits: Iterator[int]) -> tuple[Weights, dict[str, Any]]:
    """The state dict of a pickled module, and the attributes of it and all modules in it."""
    tensors: Weights = {}
    attributes: dict[str, Any] = {}
    for prefix, module in _modules(root):
        if next(visits, None) is None:  # each of many modules may hold all the others
            raise UserError(f"{path} is refused: its modules hold more than {MOST_VISITS} others")
        if module.name == "glow_old.WaveGlow":
            raise UserError(
                f"{path} is of NVIDIA's first WaveGlow (glow_old, 2018), whose couplings change sides"
                " from flow to flow: its weights are of no use in any later one"
            )
        for part in ("_parameters", "_buffers"):
            own = _dict(module.state.get(part))
            tensors |= {f"{prefix}{name}": tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
        attributes |= {name: v for name, v in module.state.items() if isinstance(v, int | float)}
        match module.state.get("stride"):
            case (int(hop_length),) if prefix.endswith("upsample."):
                attributes["hop_length"] = hop_length
    return tensors, attributes


def _modules(root: Shell) -> Iterator[tuple[str, Shell]]:
    """(prefix of its weights, module) in the order of the weights; each module once, even if modules refer to one
    another in a circle."""
    waiting, seen = [("", root)], set()
    while waiting:
        prefix, module = waiting.pop()
        if id(module) not in seen and prefix.count(".") <= DEEPEST:
            seen.add(id(module))
            yield prefix, module
            children = _dict(module.state.get("_modules")).items()
            waiting += [(f"{prefix}{name}.", child) for name, child in reversed(children) if isinstance(child, Shell)]


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _kind(tensors: Weights) -> str | None:
    names = [nvidia_name(name) for name in tensors]
    if any(name.startswith(("WN.", "convinv.")) for name in names):
        return "waveglow"
    if any(name.startswith(("decoder.attention_", "decoder.prenet.")) for name in names):
        return "tacotron2"
    return None


def _options(top: dict) -> dict[str, Any]:
    """The options saved beside the weights, without the sections they may be in."""
    saved: dict = next((top[name] for name in ("config", "hparams", "args") if isinstance(top.get(name), dict)), {})
    saved = {**saved, **(saved.state if isinstance(saved, Shell) else {})}
    sections = [_dict(section) for name, section in saved.items() if str(name).endswith("_config")]
    flat = {name: value for part in (*sections, saved) for name, value in part.items()}
    return flat | _dict(flat.get("WN_config"))


def _reading(known: dict[str, Any]) -> dict[str, Any]:
    """How text is read. A dictionary counts only if it is a name: the path of a file belongs to another machine."""
    dictionary = known.get("dictionary")
    found: dict[str, Any] = {}
    for name in ("text_cleaners", "symbols"):
        value = known.get(name)
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            found[name] = value
    if isinstance(dictionary, str) and Path(dictionary).name == dictionary:
        found["dictionary"] = dictionary
    return found


def _config(path: str | Path, kind: str, weights: Weights, known: dict[str, Any]) -> dict[str, Any]:
    """The configuration from what the file says (``known``) and from the shapes of the weights."""
    try:
        sizes = waveglow_sizes(weights) if kind == "waveglow" else tacotron2_sizes(weights)
    except KeyError as error:
        raise UserError(f"{path} is not a complete {TITLES[kind]}: {error.args[0]} is missing") from error
    except (IndexError, ZeroDivisionError) as error:
        raise UserError(f"{path} is no {TITLES[kind]}: a weight has too few dimensions or none") from error
    numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
    model = {name: known[name] if type(known.get(name)) is int else size for name, size in sizes.items()}
    audio = {name: numbers[name] for name in AUDIO if name in numbers}
    if kind == "tacotron2":
        model |= {name: numbers[name] for name in NOT_IN_SHAPES if name in numbers}
        return {"tacotron2_config": model, "data_config": audio | _reading(known)}
    model["WN_config"] = {name: model.pop(name) for name in ("n_layers", "n_channels", "kernel_size")}
    # NVIDIA's upsampling reaches over four frames: 1024 samples for one of 256.
    hop_length = weights["upsample.weight"].shape[2] // 4
    return {"waveglow_config": model, "data_config": {"hop_length": hop_length} | audio}
