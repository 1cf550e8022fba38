"""Convert a checkpoint from any form to any other: python tools/convert_checkpoint.py --help"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # isort: skip  # noqa: F401 - before torch, see there
import safetensors.torch
import torch
from torch import nn

import tacotron2.config
import waveglow.config
from common import program
from common.checkpoints import TITLES
from common.checkpoints.interchange import Checkpoint, Weights, fitted, read
from common.checkpoints.progress import Progress
from common.checkpoints.sizes import NVIDIA_UPSAMPLE_KERNEL
from common.config_reading import config_of_checkpoint, from_dict
from common.files import written_whole
from common.hints import NAME_SYMBOLS, add_hint_options
from common.inference import say_what_is_assumed, with_hints, without_memory
from common.log import open_log
from common.program import UserError
from common.voices import checkpoint_of
from tools.sound import hints_for_both

log = logging.getLogger(__name__)

DESCRIPTION = """\
Convert a checkpoint of WaveGlow or Tacotron2 from any form, which is detected, to one of these:

  native       this repository's, to synthesize from and to finetune
  nvidia       NVIDIA/waveglow's {'model': the pickled module glow.WaveGlow, ...}, for its own programs
               (they need torch.load(..., weights_only=False)); NVIDIA/tacotron2's {'state_dict', ...}
  dle          DeepLearningExamples' {'epoch', 'config', 'state_dict', ...}: names behind 'module.',
               one cond_layers.i for each layer
  ascend       the Ascend port's {'model': state dict, ...}: convolution weights 4-D
  safetensors  NVIDIA's names, the configuration as JSON in the metadata

The weights are converted; the optimizer starts afresh. Fused weights stay fused, except in native."""

EXAMPLES = """\
  python tools/convert_checkpoint.py waveglow_256channels_universal_v5.pt waveglow_published --to native
  python tools/convert_checkpoint.py checkpoints/waveglow_21000 waveglow.safetensors --to safetensors
  python tools/convert_checkpoint.py russian.pt tacotron2_0 --to native --symbols=symbols.txt --sampling_rate=16000"""

PACKAGES = {"waveglow": waveglow.config, "tacotron2": tacotron2.config}
LEARNING_RATES = {"waveglow": 1e-4, "tacotron2": 1e-3}
"NVIDIA's learning rates, for the forms that hold one."


def main() -> None:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    parser.add_argument("input", metavar="IN", help="the checkpoint, of any form; or a voice's, as in heart/waveglow")
    parser.add_argument("output", metavar="OUT", help="the file to write; replaced if it exists")
    parser.add_argument("--to", required=True, choices=["native", *FORMS], help="the form of OUT")
    add_hint_options(parser, speech=True)
    args = parser.parse_args()
    open_log(None, quiet=False)
    hints = hints_for_both(args)
    source = checkpoint_of(args.input)
    checkpoint = read(source)
    checkpoint = with_hints(source, checkpoint, hints, PACKAGES[checkpoint.kind].Config)
    native = to_native(checkpoint, source)  # in any case, since it checks the weights
    if args.to == "native":  # which has no room for what is not known
        config = from_dict(PACKAGES[checkpoint.kind].Config, native["config"])
        say_what_is_assumed(source, checkpoint, config)
        if isinstance(config, tacotron2.config.Config):
            tacotron2.config.check_symbols(source, config, NAME_SYMBOLS)
    write(args.output, native if args.to == "native" else FORMS[args.to](checkpoint))
    log.info("wrote %s: %s at iteration %d, as %s", args.output, TITLES[checkpoint.kind], checkpoint.iteration, args.to)


def write(path: str, contents: dict[str, Any] | bytes) -> None:
    with written_whole(path) as file, glow_importable():
        if isinstance(contents, bytes):
            file.write(contents)
        else:
            torch.save(contents, file)


def to_native(checkpoint: Checkpoint, source: str | Path) -> dict[str, Any]:
    """UserError, if the weights are not those of the configuration."""
    package = PACKAGES[checkpoint.kind]
    config = config_of_checkpoint(source, package.Config, checkpoint.config)
    weights = fitted(source, checkpoint.weights, without_memory(config, package.build_model))
    progress = Progress(checkpoint.iteration, checkpoint.iteration, finetuned_from=os.path.realpath(source))
    return {"model": weights, "config": asdict(config), "iteration": checkpoint.iteration, "progress": asdict(progress)}


def to_nvidia(checkpoint: Checkpoint) -> dict[str, Any]:
    model: dict[str, Any] = {"state_dict": checkpoint.weights}
    if checkpoint.kind == "waveglow":
        model = {"model": glow_module(checkpoint.weights, checkpoint.config)}
    return model | {"iteration": checkpoint.iteration, **fresh_optimizer(checkpoint.kind, checkpoint.weights)}


def to_dle(checkpoint: Checkpoint) -> dict[str, Any]:
    config = dict(checkpoint.config[f"{checkpoint.kind}_config"])
    kernel = config.pop("upsample_kernel", NVIDIA_UPSAMPLE_KERNEL)
    if kernel != NVIDIA_UPSAMPLE_KERNEL:
        raise UserError(f"DeepLearningExamples knows no upsample_kernel of {kernel}: take another form")
    weights: Weights = {}
    for name, tensor in checkpoint.weights.items():
        if ".cond_layer." in name:
            for i, part in enumerate(tensor.chunk(config["WN_config"]["n_layers"])):
                weights["module." + name.replace(".cond_layer.", f".cond_layers.{i}.")] = part.clone()
        else:
            weights[f"module.{name}"] = tensor
    optimizer = fresh_optimizer(checkpoint.kind, weights)["optimizer"]
    return {"epoch": 0, "config": config, "state_dict": weights, "optimizer": optimizer}


def to_ascend(checkpoint: Checkpoint) -> dict[str, Any]:
    weights = {
        name: tensor[..., None] if tensor.ndim == 3 and not name.startswith("upsample.") else tensor
        for name, tensor in checkpoint.weights.items()
    }
    return {"model": weights, "iteration": checkpoint.iteration, **fresh_optimizer(checkpoint.kind, weights)}


def to_safetensors(checkpoint: Checkpoint) -> bytes:
    metadata = {
        "format": "pt",
        "config": json.dumps(checkpoint.config),
        "iteration": json.dumps(checkpoint.iteration),
    }
    return safetensors.torch.save(checkpoint.weights, metadata)


FORMS: dict[str, Callable[[Checkpoint], dict[str, Any] | bytes]] = {
    "nvidia": to_nvidia,
    "dle": to_dle,
    "ascend": to_ascend,
    "safetensors": to_safetensors,
}


def fresh_optimizer(kind: str, weights: Weights) -> dict[str, Any]:
    """An Adam before its first step, so that the other programs can train on."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = [tensor for name, tensor in weights.items() if not name.endswith(buffers)]
    learning_rate = LEARNING_RATES[kind]
    return {
        "optimizer": torch.optim.Adam(parameters, lr=learning_rate).state_dict(),
        "learning_rate": learning_rate,
    }


# NVIDIA pickles the module itself. A pickle refers to the classes by name and holds the attributes;
# so classes of those names without any code are enough to write it.
GLOW = ModuleType("glow")
for _name in ("WaveGlow", "WN", "Invertible1x1Conv"):
    setattr(GLOW, _name, type(_name, (nn.Module,), {"__module__": "glow"}))


@contextmanager
def glow_importable() -> Iterator[None]:
    """Let pickle import glow: it makes sure that it finds the classes under their names."""
    before = sys.modules.get("glow")
    sys.modules["glow"] = GLOW
    try:
        yield
    finally:
        del sys.modules["glow"]
        if before:
            sys.modules["glow"] = before


def glow_module(weights: Weights, config: dict[str, Any]) -> nn.Module:
    """NVIDIA's glow.WaveGlow with these weights, but without its methods."""
    sizes = config["waveglow_config"]
    wn_sizes = sizes["WN_config"]
    model = GLOW.WaveGlow()
    for name in ("n_flows", "n_group", "n_early_every", "n_early_size"):
        setattr(model, name, sizes[name])
    mel, _, kernel = weights["upsample.weight"].shape
    model.upsample = nn.ConvTranspose1d(mel, mel, kernel, stride=config["data_config"]["hop_length"])
    model.WN, model.convinv = nn.ModuleList(), nn.ModuleList()
    for k in range(sizes["n_flows"]):
        convinv, wn = GLOW.Invertible1x1Conv(), GLOW.WN()
        convinv.conv = conv_of(weights, f"convinv.{k}.conv")
        model.convinv.append(convinv)
        model.WN.append(wn)
        wn.n_layers, wn.n_channels = wn_sizes["n_layers"], wn_sizes["n_channels"]
        for name in ("start", "cond_layer", "end"):
            setattr(wn, name, conv_of(weights, f"WN.{k}.{name}"))
        for name, dilates in (("in_layers", True), ("res_skip_layers", False)):
            layers = [conv_of(weights, f"WN.{k}.{name}.{i}", 2**i if dilates else 1) for i in range(wn.n_layers)]
            setattr(wn, name, nn.ModuleList(layers))
    model.n_remaining_channels = convinv.conv.in_channels
    model.load_state_dict(weights)
    for module in model.modules():
        for weight_norm in module._forward_pre_hooks.values():
            weight_norm(module, None)  # the pickle holds the effective weight too
    return model


def conv_of(weights: Weights, name: str, dilation: int = 1) -> nn.Conv1d:
    """A convolution of the size of these weights, with weight norm where they have it."""
    has_norm = f"{name}.weight_g" in weights
    out_channels, in_channels, kernel = weights[f"{name}.weight_v" if has_norm else f"{name}.weight"].shape
    padding = dilation * (kernel - 1) // 2
    has_bias = f"{name}.bias" in weights
    conv = nn.Conv1d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=has_bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the notation of weight norm that NVIDIA uses
        return nn.utils.weight_norm(conv) if has_norm else conv


if __name__ == "__main__":
    program.run(main)
