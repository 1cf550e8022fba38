"""How far a training run is, and where it starts from."""

import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from common.adam import count_steps
from common.checkpoints import TITLES, native
from common.checkpoints.interchange import Checkpoint, fitted, load_adam, read, steps_of_adam
from common.checkpoints.progress import Progress, read_progress
from common.checkpoints.saving import Saved
from common.config import AnyConfig, BaseConfig
from common.config_fields import may_change
from common.config_reading import config_of_checkpoint
from common.device import Device
from common.distributed import first_ranks, gather_objects, ranks
from common.layers.npu import Crossings
from common.precision import Precision
from common.program import UserError, shown
from common.random_numbers import set_rng_state
from common.training.averaging import WeightAverage
from common.training.finetuning import check_same_model, starting_weights

log = logging.getLogger(__name__)

AnyModel = TypeVar("AnyModel", bound=nn.Module)

RESUMABLE = {"optimizer", "precision", "rng_states"}
"Entries that a checkpoint needs for resuming, beyond the weights."
ADAM = ("step", "exp_avg", "exp_avg_sq")
"What Adam keeps for a parameter."


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
            (progress.iteration, path, progress.validation_losses)
            for path, progress in self._checkpoints()
            if progress.which_run == self.progress.which_run
        ]
        return [Saved(path, losses[-1][1] if losses else math.nan) for _, path, losses in sorted(own)]

    def start(self, resume: str) -> None:
        """Go on from a checkpoint, finetune, or start anew.

        ``resume`` is auto (the newest checkpoint of the output directory, if it is of this run), no,
        or the path of a checkpoint.
        """
        holder, self.progress.run = self._look_at_all_machines()
        state = first_ranks(lambda: self._state_to_resume(resume), holder if resume == "auto" else 0)
        if state:
            # A run that continues from a checkpoint of its choice leaves later ones to the run that wrote them.
            self._resume(*state, branch=resume != "auto")
        elif self._origin():
            self._finetune(self._origin())
        if self.average and not state:
            self.average.restart()

    def _look_at_all_machines(self) -> tuple[int, int]:
        """Which rank has the newest checkpoint of this run, and the number of a run that begins now.

        Only the first rank writes checkpoints, and machines with disks of their own may be started in another order.
        """
        progress = [each for _, each in self._checkpoints()] if ranks().local_rank == 0 else []
        own = max(((*each.which_run, each.iteration) for each in progress if self._is_of_this_run(each)), default=())
        everyones = gather_objects((own, max((each.run for each in progress), default=0)))
        newest = [of_this_run for of_this_run, _ in everyones]
        holder = newest.index(max(newest))
        if holder:
            log.info("the newest checkpoint is not on the first rank's disk but on that of rank %d", holder)
        return holder, 1 + max(run for _, run in everyones)

    def _is_of_this_run(self, progress: Progress) -> bool:
        """Whether it is of this case and began from the same weights."""
        return (progress.finetuned_from, progress.case) == (self._origin(), self.progress.case)

    def _state_to_resume(self, resume: str) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint that ``resume`` means and what is in it, all read."""
        if resume == "no":
            return None
        return self._newest_of_this_run() if resume == "auto" else (Path(resume), native.load(resume))

    def _newest_of_this_run(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint of the latest run of this case that began from the same weights."""
        found = [
            (progress.which_run, progress.iteration, path)
            for path, progress in self._checkpoints()
            if self._is_of_this_run(progress)
        ]
        for _, _, path in sorted(found, reverse=True):
            try:
                return path, native.load(path)
            except UserError as error:
                log.warning("passed over: %s", error)
        return None

    def _checkpoints(self) -> Iterator[tuple[Path, Progress]]:
        """The whole checkpoints in the output directory, of whatever run."""
        for path in native.newest_first(self.config.train_config.output_directory, self.name):
            try:
                yield path, read_progress(path, native.load(path, with_tensors=False)["progress"])
            except UserError as error:
                log.warning("passed over: %s", error)

    def _origin(self) -> str:
        """The checkpoint to finetune, by its full path; empty for a run that begins anew."""
        path = self.config.train_config.checkpoint_path
        return os.path.realpath(path) if path else ""

    def _resume(self, path: Path, state: dict[str, Any], branch: bool) -> None:
        """Check everything before using any of it."""
        if not state.keys() >= RESUMABLE:
            raise UserError(f"{path} holds weights alone: train on from them with --checkpoint_path={path}")
        kinds = [kind for kind in TITLES if isinstance(state["config"], dict) and f"{kind}_config" in state["config"]]
        if kinds and self.name not in kinds:
            raise UserError(
                f"{path} is a checkpoint of {TITLES[kinds[0]]}, and one of {TITLES[self.name]} is needed here"
            )
        saved_config = asdict(config_of_checkpoint(path, type(self.config), state["config"]))
        check_same_model(path, saved_config, asdict(self.config), self.name)
        check_same_training(path, saved_config, self.config)
        progress = read_progress(path, state["progress"])
        # By its type first: a tensor may have no truth value.
        if not isinstance(state["iteration"], int) or state["iteration"] != progress.iteration:
            stands = shown(state["iteration"])
            raise UserError(f"{path}: its iteration is {stands}, and {progress.iteration} in its progress")
        if self.average and "average" not in state:
            raise UserError(
                f"{path} lacks the average of the weights that its run keeps:"
                f" --checkpoint_path={path} trains on from its weights"
            )
        weights = fitted(path, state["model"], self.model)
        average = fitted(path, state["average"], self.model) if self.average else {}
        adam = checked_adam(path, state["optimizer"], self.optimizer)
        scaling = self.precision.checked_state(path, state["precision"])
        rng_state = checked_rng_state(path, state["rng_states"])

        self.precision.load_model_state(self.model, weights)
        if self.average:
            self.average.load(average)
        self._load_optimizer(adam)
        self.precision.load_state_dict(scaling)
        number, self.progress = self.progress.run, progress
        if branch:
            self.progress.run, self.progress.started = number, time.time()
        if rng_state:
            set_rng_state(rng_state, self.device)
        log.info("resumed from %s: iteration %d, epoch %d", path, self.progress.iteration, self.progress.epoch)

    def _finetune(self, path: str) -> None:
        origin = first_ranks(lambda: read(path, self.name))
        fresh = self.precision.model_state(self.model)
        start = starting_weights(path, origin, self.config, self.model, fresh)
        keep_optimizer = self.config.train_config.keep_optimizer
        if keep_optimizer and start.anew:
            raise UserError("--keep_optimizer does not go with another alphabet or fresh layers")
        self.precision.load_model_state(self.model, start.weights)
        if keep_optimizer:
            self._load_adam(path)
        before = Progress() if start.anew else progress_of(path, origin)
        self.progress = Progress(
            iteration=before.iteration,
            first_iteration=before.iteration,
            finetuned_from=path,
            case=self.progress.case,
            run=self.progress.run,
            losses=before.losses,
            validation_losses=before.validation_losses,
        )
        how = "Adam as saved" if keep_optimizer else "Adam fresh"
        log.info("finetuning from %s: iteration %d, %s", path, before.iteration, how)

    def _load_adam(self, path: str) -> None:
        steps, *moments = first_ranks(lambda: load_adam(path))
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
        count_steps(self.optimizer)


def progress_of(path: str | Path, checkpoint: Checkpoint) -> Progress:
    """How far the training had come that made the checkpoint, as far as the file says so."""
    return read_progress(path, checkpoint.progress) if checkpoint.progress else Progress(checkpoint.iteration)


def checked_adam(path: str | Path, saved: Any, optimizer: Optimizer) -> dict[str, Any]:
    """What ``optimizer.load_state_dict`` takes, with the moments of a checkpoint and the settings of this run.

    UserError unless they fit these parameters: another shape would be written beyond the end of the memory.
    """
    state = saved.get("state") if isinstance(saved, dict) else None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Before the first step it has none.
    if not isinstance(state, dict) or (state and state.keys() != set(range(len(parameters)))):
        raise UserError(f"{path}: its optimizer's state is not that of {len(parameters)} parameters")
    for number, each in state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moment, parameter = each.get(name) if isinstance(each, dict) else None, parameters[number]
            if not isinstance(moment, torch.Tensor) or moment.shape != parameter.shape:
                shape = list(getattr(moment, "shape", [])) if moment is not None else "missing"
                raise UserError(f"{path}: {name} of its parameter {number} is {shape}, not {list(parameter.shape)}")
            if not moment.is_floating_point() or not torch.isfinite(moment).all():
                raise UserError(f"{path}: {name} of its parameter {number} has values that are no finite numbers")
        if (each["exp_avg_sq"] < 0).any():
            raise UserError(f"{path}: exp_avg_sq of its parameter {number} has squares below 0")
        if steps_of_adam(each.get("step")) is None:
            raise UserError(f"{path}: the steps of its parameter {number} are {shown(each.get('step'))}")
    kept = {number: {name: each[name] for name in ADAM} for number, each in state.items()}
    return optimizer.state_dict() | {"state": kept}


def checked_rng_state(path: str | Path, rng_states: Any) -> dict[str, torch.Tensor] | None:
    """This rank's random states; None, with a log line, if the number of ranks differs. UserError for bad ones."""
    if not isinstance(rng_states, list) or not all(isinstance(state, dict) for state in rng_states):
        raise UserError(f"{path}: its rng_states are {shown(rng_states)}, must be a list with an object for each rank")
    if len(rng_states) != ranks().world_size:
        log.info(
            "resumed with %d process(es) instead of %d: a step takes other clips, random states start afresh",
            ranks().world_size, len(rng_states),
        )  # fmt: skip
        return None
    state = rng_states[ranks().rank]
    try:
        torch.Generator().set_state(state["cpu"])  # one to try it on
        is_of_bytes = all(tensor.dtype == torch.uint8 for tensor in state.values())
    except (KeyError, TypeError, AttributeError, RuntimeError):
        is_of_bytes = False
    if not is_of_bytes:
        raise UserError(f"{path}: the random states in it are not valid")
    return state


def check_same_training(path: str | Path, saved: dict, current: BaseConfig) -> None:
    """Log what has changed since; UserError that names a field which must not change within one run."""
    for section in ("train_config", "data_config"):
        settings = getattr(current, section)
        changeable = may_change(type(settings))
        for name, ours in vars(settings).items():
            theirs = saved[section].get(name, ours)
            if theirs == ours:
                continue
            if name not in changeable:
                raise UserError(
                    f"{path} was trained with {section}.{name} = {shown(theirs)}, the config says {shown(ours)}:"
                    f" --resume=no begins anew, --checkpoint_path={path} trains on from its weights"
                )
            log.info("changed since the checkpoint: %s %s, was %s", name, ours, theirs)
