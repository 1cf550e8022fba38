"""What the processes of a training must have in common: none of them notices by itself that the others differ."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.config import BaseConfig
from common.config_fields import flattened
from common.distributed import agree, gather_objects, ranks
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
CHUNK = 2**20
"Bytes of a file that are in memory at a time."
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


def agree_on_corpus(clips: list[Path], texts: Iterable[str] = (), others: Mapping[str, Path] | None = None) -> None:
    """UserError if the processes have not the same clips and transcripts, and, by their names, the same ``others``:
    files that the training reads, too."""
    if ranks().world_size > 1:
        agree(facts_of_corpus(clips, texts))
        numbered = {f"clip {number}, {clip.name},": clip for number, clip in enumerate(clips, start=1)}
        agree(contents(numbered | dict(others or {})))


def facts_of_corpus(clips: list[Path], texts: Iterable[str]) -> dict[str, Any]:
    """What is known without reading the clips: their number, names and sizes, and the transcripts."""
    return {
        "the corpus' number of clips": len(clips),
        "the corpus' names of clips": digest(path.name.encode() for path in clips),
        "the corpus' sizes of clips": digest(str(size_of(path)).encode() for path in clips),
        "the corpus' transcripts": digest(text.encode() for text in texts),
    }


def contents(files: Mapping[str, Path]) -> dict[str, str]:
    """A digest of each file as it is on this machine, by its name there. Each machine reads all of them once, its
    processes a share each; where there is one machine alone, none is read."""
    ours = ranks()
    machines = gather_objects(ours.rank - ours.local_rank)  # each by the first rank on it
    if len(set(machines)) == 1:
        return {}
    here = [rank for rank, machine in enumerate(machines) if machine == machines[ours.rank]]
    own = list(files.items())[here.index(ours.rank) :: len(here)]
    read = {name: digest_of_file(path) for name, path in with_progress(own, "comparing files")}
    shares = gather_objects(read)
    return {name: value for rank in here for name, value in shares[rank].items()}


def digest_of_file(path: Path) -> str:
    """The digest of a file's bytes; empty where it cannot be read, which is reported elsewhere."""
    try:
        with open_input(path) as file:
            return digest(iter(lambda: file.read(CHUNK), b""))
    except (OSError, UserError):
        return ""


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
