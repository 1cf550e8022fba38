"""How far a training run is, and where it starts from."""

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from common import checkpoint, device
from common.device import Device
from common.distributed import gather_objects, ranks
from common.npu import Crossings
from common.precision import Precision
from common.program import UserError

log = logging.getLogger("train")


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
class Run:
    """Everything a step changes."""

    name: str
    "waveglow or tacotron2; begins the names of its checkpoints."
    config: Any
    "The whole configuration, a dataclass."
    device: Device
    model: nn.Module
    precision: Precision
    optimizer: Optimizer
    crossings: Crossings = field(default_factory=Crossings)
    "Copies between device and host that the NPU patch makes."
    progress: Progress = field(default_factory=Progress)

    def save(self, rng_states: list[dict]) -> Path:
        """Write a checkpoint and return its path."""
        directory = self.config.train_config.output_directory
        path = checkpoint.checkpoint_path(directory, self.name, self.progress.iteration)
        state = {
            "model": self.precision.model_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "iteration": self.progress.iteration,
            "learning_rate": self.config.train_config.learning_rate,
            "config": asdict(self.config),
            "progress": dict(vars(self.progress)),
            "precision": self.precision.state_dict(),
            "rng_states": rng_states,
        }
        earlier = keep_earlier(path)
        try:
            checkpoint.save(path, state)
        except UserError:
            if earlier:
                earlier.rename(path)
            raise
        return path

    def start(self, resume: str) -> None:
        """Go on from a checkpoint, finetune, or start anew.

        ``resume`` is auto (the newest checkpoint of the output directory, if it is of this run), no,
        or the path of a checkpoint.
        """
        path = self._checkpoint_to_resume(resume)
        if path:
            self._resume(path)
        elif self._origin():
            self._finetune(self._origin())

    def _checkpoint_to_resume(self, resume: str) -> Path | None:
        """The first rank looks for all, so that they agree."""
        if resume != "auto":
            return None if resume == "no" else Path(resume)
        return gather_objects(self._newest_of_this_run() if ranks().rank == 0 else None)[0]

    def _newest_of_this_run(self) -> Path | None:
        """The newest whole checkpoint of the latest run of this case that began from the same weights."""
        found = []
        for path in checkpoint.newest_first(self.config.train_config.output_directory, self.name):
            try:
                progress = Progress(**checkpoint.load(path, lazily=True)["progress"])
            except (UserError, TypeError) as error:
                log.warning("passed over: %s", error)
                continue
            if (progress.finetuned_from, progress.case) == (self._origin(), self.progress.case):
                found.append((progress.started, progress.iteration, path))
        return max(found)[2] if found else None

    def _origin(self) -> str:
        """The checkpoint to finetune, by its full path; empty for a run that begins anew."""
        path = self.config.train_config.checkpoint_path
        return str(Path(path).resolve()) if path else ""

    def _resume(self, path: Path) -> None:
        state = checkpoint.load(path)
        self._load_weights(path, state)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.train_config.learning_rate
        self.precision.load_state_dict(state["precision"])
        self.progress = Progress(**state["progress"])
        rng_states = state["rng_states"]
        if len(rng_states) == ranks().world_size:
            device.set_rng_state(rng_states[ranks().rank], self.device)
        else:
            log.info("resumed with %d process(es) instead of %d", ranks().world_size, len(rng_states))
        log.info("resumed from %s: iteration %d, epoch %d", path, self.progress.iteration, self.progress.epoch)

    def _finetune(self, path: str) -> None:
        state = checkpoint.load(path)
        self._load_weights(path, state)
        before = Progress(**state["progress"])
        self.progress = Progress(
            iteration=before.iteration,
            first_iteration=before.iteration,
            finetuned_from=path,
            case=self.progress.case,
            losses=before.losses,
            validation_losses=before.validation_losses,
        )
        log.info("finetuning from %s: iteration %d, fresh optimizer", path, before.iteration)

    def _load_weights(self, path: str | Path, state: dict[str, Any]) -> None:
        check_same_model(path, state["config"], asdict(self.config), f"{self.name}_config")
        checkpoint.check_fits(path, self.model, state["model"])
        self.precision.load_model_state(self.model, state["model"])


def check_same_model(path: str | Path, saved: dict, current: dict, model_section: str) -> None:
    """UserError that names the field, if the checkpoint is of another model or other audio."""
    audio_fields = ("sampling_rate", "filter_length", "hop_length", "win_length", "mel_fmin", "mel_fmax")
    model_fields = current[model_section].keys() | saved.get(model_section, {}).keys()
    for section, names in ((model_section, sorted(model_fields)), ("data_config", audio_fields)):
        for name in names:
            theirs, ours = (config.get(section, {}).get(name) for config in (saved, current))
            if theirs != ours:
                raise UserError(f"{path} was trained with {section}.{name} = {theirs}, the config says {ours}")


def keep_earlier(path: Path) -> Path | None:
    """Give a checkpoint that another run left under this name a dated one, and return that."""
    if not path.exists():
        return None
    dated = path.with_name(f"{path.name}.{time.strftime('%Y-%m-%d_%H-%M-%S')}")
    path.rename(dated)
    log.info("%s is there from another run, now %s", path, dated.name)
    return dated
