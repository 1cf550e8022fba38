"""The weights of any form of checkpoint by NVIDIA's names of today."""

import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from common.checkpoints.budget import VIEWS_PER_BYTE
from common.program import UserError

ROOTS = {"upsample", "WN", "convinv", "embedding", "encoder", "decoder", "postnet"}
"How NVIDIA's names of weights begin. Whatever precedes that was added by a wrapper."

Weights = dict[str, Tensor]


def nvidia_name(name: str) -> str:
    """``module.1._orig_mod.WN.0.start.parametrizations.weight.original0`` -> ``WN.0.start.weight_g``."""
    parts = [part for part in str(name).split(".") if part not in ("module", "_orig_mod")]
    begin = next((i for i, part in enumerate(parts) if part in ROOTS), 0)
    name = ".".join(parts[begin:])
    name = name.replace("parametrizations.weight.original0", "weight_g")
    return name.replace("parametrizations.weight.original1", "weight_v")


def nvidia_weights(path: str | Path, tensors: Weights) -> Weights:
    """The weights under NVIDIA's names, each in memory of its own and in today's shapes."""
    own = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(tensor.nbytes for tensor in tensors.values()) > VIEWS_PER_BYTE * (sum(own.values()) + 2**20):
        raise UserError(f"{path} is refused: it has so many names for one tensor that they outgrow the file")
    weights: Weights = {}
    for name, tensor in tensors.items():
        if nvidia_name(name) in weights:
            raise UserError(f"{path} holds {nvidia_name(name)} more than once, the second time as {name}")
        if tensor.ndim == 4:  # the Ascend port's convolutions: [out, in, k, 1]
            tensor = tensor.squeeze(3 if tensor.shape[3] == 1 else 2)
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        weights[nvidia_name(name)] = tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)
    try:
        return _with_merged_layers(weights)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: the cond_layers, res_layers and skip_layers do not fit together") from error


def _with_merged_layers(weights: Weights) -> Weights:
    """One ``cond_layer``, as since 2019-08, and ``res_skip_layers``, as since 2018-11.

    Weight norm goes by the output channel, so g and v can be joined as the weights themselves. The
    last layer has no residual part.
    """
    merged: Weights = {}
    lists: dict[tuple[str, str, str], Weights] = defaultdict(dict)
    for name, tensor in weights.items():
        match = re.fullmatch(r"(WN\.\d+)\.(cond|res|skip)_layers\.(\d+)\.(\w+)", name)
        if match:
            lists[match[1], match[2], match[4]][match[3]] = tensor
        else:
            merged[name] = tensor
    for (wn, part, suffix), layers in lists.items():
        if part == "cond":
            merged[f"{wn}.cond_layer.{suffix}"] = torch.cat([layers[i] for i in sorted(layers, key=int)])
        elif part == "skip":
            residual = lists.get((wn, "res", suffix), {})
            for i, skip in layers.items():
                joined = torch.cat([residual[i], skip]) if i in residual else skip
                merged[f"{wn}.res_skip_layers.{i}.{suffix}"] = joined
    return merged
