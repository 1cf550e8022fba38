"""How far a training run is, and where it starts from."""

import logging
import math
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from common import device
from common.checkpoints import native
from common.checkpoints.interchange import AUDIO, NOT_IN_SHAPES, fitted, load_adam, read
from common.checkpoints.saving import Saved
from common.config import AnyConfig
from common.device import Device
from common.distributed import gather_objects, ranks
from common.layers.npu import Crossings
from common.precision import Precision
from common.program import UserError
from common.training.averaging import WeightAverage

log = logging.getLogger(__name__)

AnyModel = TypeVar("AnyModel", bound=nn.Module)

RESUMABLE = {"optimizer", "precision", "rng_states"}
"Entries that a checkpoint needs for resuming, beyond the weights."
MAY_CHANGE = {
    "output_directory", "epochs", "max_steps", "learning_rate", "anneal_epochs", "warmup_steps", "decay_steps",
    "batch_size", "grad_accumulation", "iters_per_checkpoint", "iters_per_validation", "workers", "profile",
    "checkpoint_path", "with_tensorboard", "training_files", "keep_checkpoints", "keep_optimizer", "on_save_error",
    "on_bad_clip", "hang_limit", "align_by", "validation_files", "recompute",
}  # fmt: skip
"Fields that may differ from those of the checkpoint that a run goes on from."


@dataclass
class Progress:
    """The state of the loop; with the weights, the optimizer and the random states it is all there is."""

    iteration: int = 0
    "Steps behind the weights, those of the run they were finetuned from included."
    first_iteration: int = 0
    "The iteration at which this run began."
    epoch: int = 0
    "The epoch the next step belongs to."
    clips: int = 0
    "Clips of this epoch that all processes together have seen."
    finetuned_from: str = ""
    "The checkpoint that gave the first weights."
    case: str = "acc"
    "acc, or perf for a measurement of speed, which no other run goes on from."
    started: float = field(default_factory=time.time)
    "When this run began, in seconds since 1970; tells the runs in a directory apart."
    losses: list[float] = field(default_factory=list)
    "The training loss of every step, skipped ones (nan) and those of the run it was finetuned from included."
    validation_losses: list[tuple[int, float]] = field(default_factory=list)
    "(iteration, validation loss)."

    @property
    def steps(self) -> int:
        """Steps of this run."""
        return self.iteration - self.first_iteration


@dataclass
class Run(Generic[AnyConfig, AnyModel]):
    """Everything a step changes."""

    name: str
    "waveglow or tacotron2; begins the names of its checkpoints."
    config: AnyConfig
    "The whole configuration."
    device: Device
    model: AnyModel
    precision: Precision
    optimizer: Optimizer
    average: WeightAverage | None = None
    "Moving average of the weights, if configured; synthesis uses it in place of the weights."
    crossings: Crossings = field(default_factory=Crossings)
    "Copies between device and host that the NPU patch makes."
    progress: Progress = field(default_factory=Progress)

    def path(self) -> Path:
        """Where the checkpoint of this iteration goes."""
        directory = self.config.train_config.output_directory
        return native.checkpoint_path(directory, self.name, self.progress.iteration)

    def state(self, rng_states: list[dict]) -> dict[str, Any]:
        """Contents of a checkpoint. The tensors are not copied."""
        average = {"average": self.average.weights} if self.average else {}
        return average | {
            "model": self.precision.model_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "iteration": self.progress.iteration,
            "learning_rate": self.config.train_config.learning_rate,
            "config": asdict(self.config),
            "progress": vars(self.progress),
            "precision": self.precision.state_dict(),
            "rng_states": rng_states,
        }

    def saved(self) -> list[Saved]:
        """The checkpoints this run has written, the oldest first."""
        own = [
            (path.stat().st_mtime, progress.iteration, path, progress.validation_losses)
            for path, progress in self._checkpoints()
            if progress.started == self.progress.started
        ]
        return [Saved(path, losses[-1][1] if losses else math.nan) for _, _, path, losses in sorted(own)]

    def start(self, resume: str) -> None:
        """Go on from a checkpoint, finetune, or start anew.

        ``resume`` is auto (the newest checkpoint of the output directory, if it is of this run), no,
        or the path of a checkpoint.
        """
        path = self._checkpoint_to_resume(resume)
        if path:
            # A run that goes on from a checkpoint of its choice leaves those after it to the run they are of.
            self._resume(path, branch=resume != "auto")
        elif self._origin():
            self._finetune(self._origin())
        if self.average and not path:
            self.average.restart()

    def _checkpoint_to_resume(self, resume: str) -> Path | None:
        """The first rank looks for all, so that they agree."""
        if resume != "auto":
            return None if resume == "no" else Path(resume)
        return gather_objects(self._newest_of_this_run() if ranks().rank == 0 else None)[0]

    def _newest_of_this_run(self) -> Path | None:
        """The newest whole checkpoint of the latest run of this case that began from the same weights."""
        found = [
            (progress.started, progress.iteration, path)
            for path, progress in self._checkpoints()
            if (progress.finetuned_from, progress.case) == (self._origin(), self.progress.case)
        ]
        return max(found)[2] if found else None

    def _checkpoints(self) -> Iterator[tuple[Path, Progress]]:
        """The whole checkpoints in the output directory, of whatever run."""
        for path in native.newest_first(self.config.train_config.output_directory, self.name):
            try:
                yield path, Progress(**native.load(path, lazily=True)["progress"])
            except (UserError, TypeError) as error:
                log.warning("passed over: %s", error)

    def _origin(self) -> str:
        """The checkpoint to finetune, by its full path; empty for a run that begins anew."""
        path = self.config.train_config.checkpoint_path
        return str(Path(path).resolve()) if path else ""

    def _resume(self, path: Path, branch: bool) -> None:
        state = native.load(path)
        if not state.keys() >= RESUMABLE:
            raise UserError(f"{path} holds weights alone: train on from them with --checkpoint_path={path}")
        check_same_model(path, state["config"], asdict(self.config), self.name)
        check_same_training(path, state["config"], asdict(self.config))
        self.precision.load_model_state(self.model, fitted(path, state["model"], self.model))
        if self.average:
            self.average.load(fitted(path, state["average"], self.model))
        self._load_optimizer(state["optimizer"])
        self.precision.load_state_dict(state["precision"])
        self.progress = Progress(**state["progress"])
        if branch:
            self.progress.started = time.time()
        rng_states = state["rng_states"]
        if len(rng_states) == ranks().world_size:
            device.set_rng_state(rng_states[ranks().rank], self.device)
        else:
            log.info(
                "resumed with %d process(es) instead of %d: a step takes other clips, random states start afresh",
                ranks().world_size, len(rng_states),
            )  # fmt: skip
        log.info("resumed from %s: iteration %d, epoch %d", path, self.progress.iteration, self.progress.epoch)

    def _finetune(self, path: str) -> None:
        origin = read(path, self.name)
        check_same_model(path, origin.config, asdict(self.config), self.name, may_change=NOT_IN_SHAPES)
        self.precision.load_model_state(self.model, fitted(path, origin.weights, self.model))
        keep_optimizer = self.config.train_config.keep_optimizer
        if keep_optimizer:
            self._load_adam(path)
        before = Progress(**origin.progress) if origin.progress else Progress(origin.iteration)
        self.progress = Progress(
            iteration=before.iteration,
            first_iteration=before.iteration,
            finetuned_from=path,
            case=self.progress.case,
            losses=before.losses,
            validation_losses=before.validation_losses,
        )
        how = "Adam as saved" if keep_optimizer else "Adam fresh"
        log.info("finetuning from %s: iteration %d, %s", path, before.iteration, how)

    def _load_adam(self, path: str) -> None:
        steps, *moments = load_adam(path)
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        # Adam has nothing for what is not trained: a fixed upsampling, the statistics of batch norm.
        fixed = {name: tensor for name, tensor in self.model.state_dict().items() if name not in names}
        exp_avg, exp_avg_sq = (fitted(path, fixed | each, self.model) for each in moments)
        state = self.optimizer.state_dict()
        state["state"] = {
            i: {"step": torch.tensor(steps), "exp_avg": exp_avg[name], "exp_avg_sq": exp_avg_sq[name]}
            for i, name in enumerate(names)
        }
        self._load_optimizer(state)

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
        device.count_steps(self.optimizer)


def check_same_model(path: str | Path, saved: dict, current: dict, kind: str, may_change: Collection[str] = ()) -> None:
    """UserError that names the field, if the checkpoint is of another model or other audio.

    What a checkpoint of another form does not tell is not compared.
    """
    for section, names in ((f"{kind}_config", current[f"{kind}_config"]), ("data_config", AUDIO)):
        ours, theirs = (flattened(config.get(section, {})) for config in (current, saved))
        for name in ours.keys() & theirs.keys():
            if name.split(".")[0] in names and name not in may_change and ours[name] != theirs[name]:
                raise UserError(
                    f"{path} was trained with {section}.{name} = {theirs[name]}, the config says {ours[name]}"
                )


def flattened(section: dict, prefix: str = "") -> dict[str, Any]:
    """``{"WN_config": {"n_layers": 8}}`` -> ``{"WN_config.n_layers": 8}``."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def check_same_training(path: str | Path, saved: dict, current: dict) -> None:
    """Say what has changed since; UserError that names the field, if it must not within one run."""
    for section in ("train_config", "data_config"):
        for name, ours in current[section].items():
            theirs = saved[section].get(name, ours)
            if theirs == ours:
                continue
            if name not in MAY_CHANGE:
                raise UserError(
                    f"{path} was trained with {section}.{name} = {theirs}, the config says {ours}:"
                    f" --resume=no begins anew, --checkpoint_path={path} trains on from its weights"
                )
            log.info("changed since the checkpoint: %s %s, was %s", name, ours, theirs)
