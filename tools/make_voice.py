"""Make a voice from two trained checkpoints: python tools/make_voice.py --help"""

import argparse
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # isort: skip  # noqa: F401 - before torch, see there
import safetensors.torch
import torch

from common import program, voices
from common.checkpoints.interchange import Weights, read
from common.files import make_output_folder, written_whole
from common.folder_lock import hold_folder
from common.log import open_log
from common.program import UserError
from common.voices import MODELS, Settings
from tacotron2.text.dictionary import BUNDLED

log = logging.getLogger(__name__)

DESCRIPTION = """\
Put two trained checkpoints into voices/NAME, in half precision and without what only training needs.

The voice then speaks by its name: python tools/synthesize.py "Any text." --voice=NAME -o out.wav
Write a model card beside it: voices/NAME/README.md."""

EXAMPLES = """\
  python tools/make_voice.py anna --tacotron2=checkpoints/tacotron2_20000 --waveglow=checkpoints/waveglow_60000
  python tools/make_voice.py anna --tacotron2=tacotron2.pt --waveglow=waveglow.pt --denoiser_strength=0.05"""

FILES = ("training_files", "validation_files")
"Names of files in data_config."
LARGEST_FLOAT16 = torch.finfo(torch.float16).max


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    folder = voices.FOLDER / args.name
    contents = {model: shipped(getattr(args, model), model) for model in MODELS}
    hold_folder(make_output_folder(folder))
    for model, data in contents.items():
        with written_whole(folder / f"{model}.safetensors") as file:
            file.write(data)
    hashes = {model: voices.sha256(folder / f"{model}.safetensors") for model in MODELS}
    settings = Settings(hashes, args.sigma, args.denoiser_strength)
    with written_whole(folder / "voice.json") as file:
        file.write(json.dumps(asdict(settings), indent=4).encode() + b"\n")
    sizes = ", ".join(f"{model} {len(data) / 1e6:.1f} MB" for model, data in contents.items())
    log.info("wrote %s: %s", folder, sizes)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="of the voice; replaced if it exists")
    for model in MODELS:
        parser.add_argument(f"--{model}", required=True, metavar="FILE", help="a checkpoint of any form")
    parser.add_argument("--sigma", type=float, default=0.6, help="scale of WaveGlow's noise (default: %(default)s)")
    parser.add_argument("--denoiser_strength", type=float, default=0.0, help="0 = off (default)")
    args = parser.parse_args()
    if Path(args.name).name != args.name or args.name in ("", ".."):
        parser.error(f"NAME is {args.name!r}, must be the name of a folder in voices/")
    for name in ("sigma", "denoiser_strength"):
        if not 0 <= getattr(args, name) < float("inf"):
            parser.error(f"--{name} is {getattr(args, name)}, must be 0 or above")
    return args


def shipped(path: str, model: str) -> bytes:
    """The safetensors of a checkpoint: weights in float16, weight norm merged; configuration and iteration beside.

    UserError if a weight is not finite or too large for float16.
    """
    checkpoint = read(path, model)
    weights = {name: in_half(path, name, tensor) for name, tensor in merged(checkpoint.weights).items()}
    metadata = {
        "format": "pt",
        "config": json.dumps(without_run(checkpoint.config, model)),
        "iteration": json.dumps(checkpoint.iteration),
    }
    return safetensors.torch.save(weights, metadata)


def merged(weights: Weights) -> Weights:
    """With one weight in the place of weight norm's two."""
    plain: Weights = {}
    for name, tensor in weights.items():
        if name.endswith(".weight_v"):
            plain[name[:-2]] = torch._weight_norm(tensor, weights[f"{name[:-1]}g"], 0)
        elif not name.endswith(".weight_g"):
            plain[name] = tensor
    return plain


def in_half(path: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    if not tensor.abs().max() <= LARGEST_FLOAT16:
        raise UserError(f"{path}: {name} has values that are not finite or too large for float16")
    return tensor.half()


def without_run(config: dict, model: str) -> dict:
    """The configuration that synthesis and finetuning need: the model and the audio, without names of files."""
    data = {name: value for name, value in config["data_config"].items() if name not in FILES}
    dictionary = data.get("dictionary", "")
    if dictionary and dictionary not in BUNDLED:
        raise UserError(f"a voice cannot include its dictionary {dictionary}: train with 'cmudict', or without one")
    return {f"{model}_config": config[f"{model}_config"], "data_config": data}


if __name__ == "__main__":
    program.run(main)
