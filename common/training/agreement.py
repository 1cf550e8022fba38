"""What the processes of a training must have in common: none of them notices by itself that the others differ."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.config import BaseConfig
from common.config_fields import flattened
from common.distributed import agree, ranks
from common.files import open_input
from common.log import with_progress
from common.precision import Precision
from common.program import UserError

ROOT = Path(__file__).resolve().parents[2]
MAY_DIFFER = {
    "output_directory", "checkpoint_path", "training_files", "validation_files", "workers", "dist_backend", "dist_url",
}  # fmt: skip
"Fields of the configuration that each machine has for itself: paths, and what it can bear."
COMPARE_EVERY = 100
"""Steps from one comparison of the weights to the next. It copies them to the host, one by one, and takes 0.25 s of a
core there for WaveGlow's 350 MB, while a hundred steps take a minute."""
MIDDLE = 4096
"Bytes of each clip that are compared: a tenth of a second. Where files are on a network, reading them takes time."
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"By their bytes."


def facts_of_start(name: str, config: BaseConfig, resume: str, case: str) -> dict[str, Any]:
    """The configuration, options that are not in it, and the code of the model ``name``, file by file."""
    values = asdict(config)
    facts: dict[str, Any] = {"network": name, "case": case}
    facts["--resume"] = resume if resume in ("auto", "no") else "a file"
    facts["finetuning"] = bool(config.train_config.checkpoint_path)
    for section, fields in values.items():
        for field, value in flattened(fields).items():
            if field not in MAY_DIFFER:
                facts[f"{section}.{field}"] = value
    for package in ("common", name):
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                facts[f"the code in {path.relative_to(ROOT).as_posix()}"] = digest([path.read_bytes()])
    return facts


def agree_on_corpus(paths: list[Path], texts: Iterable[str] = ()) -> None:
    """UserError if what ``facts_of_corpus`` tells is not the same on all processes."""
    if ranks().world_size > 1:
        agree(facts_of_corpus(paths, texts))


def facts_of_corpus(paths: list[Path], texts: Iterable[str]) -> dict[str, Any]:
    """The clips by number, name, size and what is in the middle of their files, and the transcripts.

    Clips that were made otherwise (level, dither, filter) differ in the middle, too. One changed sample elsewhere in a
    file of the same size does not show: each process would have to read the whole corpus.
    """
    middles = (middle_of(path) for path in with_progress(paths, "comparing clips"))
    return {
        "the corpus' number of clips": len(paths),
        "the corpus' names of clips": digest(path.name.encode() for path in paths),
        "the corpus' sizes of clips": digest(str(size_of(path)).encode() for path in paths),
        "the corpus' samples": digest(middles),
        "the corpus' transcripts": digest(text.encode() for text in texts),
    }


def middle_of(path: Path) -> bytes:
    """MIDDLE bytes from the middle of a file, or what there is; none of one that cannot be read, which is reported
    elsewhere."""
    try:
        with open_input(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - MIDDLE) // 2)
            return file.read(MIDDLE)
    except (OSError, UserError):
        return b""


def size_of(path: Path) -> int:
    """In bytes; -1 for a file that is not there, which is reported elsewhere."""
    return path.stat().st_size if path.is_file() else -1


def agree_on_start(model: nn.Module, precision: Precision, iteration: int) -> None:
    """UserError if the processes do not begin with the same weights and at the same step."""
    if ranks().world_size > 1:
        facts = {
            f"the start value of {name}": checksum(tensor) for name, tensor in precision.model_state(model).items()
        }
        agree({"the iteration to start from": iteration} | facts)


def agree_on_weights(model: nn.Module, precision: Precision, iteration: int) -> None:
    """UserError if the weights of the processes are not the same bit for bit. Batch norm's statistics are not
    compared: each process has its own."""
    if ranks().world_size == 1:
        return
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    agree(
        {name: checksum(master) for name, master in zip(names, precision.master_params)},
        f"the weights are no longer the same after iteration {iteration}, and no checkpoint of them is written;"
        " the same command goes on from the last one",
    )


def checksum(tensor: Tensor) -> int:
    """The sum of a tensor's numbers, with their bits taken as integers: it changes with any bit of any of them."""
    whole = tensor.detach().cpu().contiguous()
    return int(whole.view(INTEGERS[whole.element_size()]).sum(dtype=torch.int64))


def digest(parts: Iterable[bytes]) -> str:
    """A digest of the parts and their order."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:12]
