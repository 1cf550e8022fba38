"""The training loop of both models."""

import logging
import math
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common import distributed
from common.adam import has_foreach
from common.checkpoints.saving import Saver
from common.device import Device
from common.files import remove_leftovers
from common.log import progress_bar
from common.program import StopSignal, UserError
from common.random_numbers import rng_state
from common.training.agreement import COMPARE_EVERY, agree_on_weights
from common.training.profiling import profiled
from common.training.run import Run
from common.training.tensorboard import TensorBoard
from common.training.watchdog import Watchdog

log = logging.getLogger(__name__)

Batch = dict  # tensors, and the "names" of the clips
Loss = Callable[[nn.Module, Batch], Tensor]
"Forward pass and loss of a batch on the device."

MAX_SKIPPED_IN_A_ROW = 10
WARM_UP_STEPS = 5
"Left out of the throughput, as in the Ascend port."


@dataclass
class Task:
    """The parts of a training that depend on the model."""

    batches: Callable[[int, int], Generator[Batch, None, None]]
    "(epoch, clips already seen of it) -> this process's batches from there on, without end."
    loss: Loss
    validate: Callable[[], float]
    "The loss on held-back clips, the same on every process."
    show: Callable[[SummaryWriter, int], None]
    "Log audio and spectrograms to TensorBoard; called on the first rank."
    clips_per_epoch: int
    "Training clips."
    samples_per_clip: int
    "Audio samples that a clip stands for in the throughput."


@dataclass
class Summary:
    """The outcome of a run."""

    iteration: int
    validation_loss: float
    clips_per_second: float
    "Sum over all processes, without the first steps; nan if there was no step."
    samples_per_second: float
    step_seconds: float
    stopped: bool
    "Whether SIGTERM ended it early."


def train(run: Run, task: Task, stop: StopSignal) -> Summary:
    """Train until the configured end or SIGTERM, writing checkpoints on the way.

    Raises UserError when the loss stays non-finite or a checkpoint cannot be written.
    """
    config, progress = run.config.train_config, run.progress
    clips_per_step = config.batch_size * config.grad_accumulation * distributed.ranks().world_size
    next_epoch_if_done(run, task, clips_per_step)
    board = TensorBoard(f"{config.output_directory}/logs" if config.with_tensorboard else "")
    saver = make_saver(run)
    model = distributed.wrap(run.model, run.device)
    seconds: list[float] = []
    skipped_in_a_row, stopping = 0, False
    with Watchdog(config.hang_limit) as watchdog, saver, make_bar(run, task.clips_per_epoch // clips_per_step) as bar:
        if progress.steps == 0:
            validate(run, task, board)
        batches = task.batches(progress.epoch, progress.clips)
        if config.profile:
            batches = profiled(batches, config, run.device, run.crossings)
        while not (stopping or is_finished(run)):
            began = time.perf_counter()
            set_learning_rate(run, steps_left(run, task, clips_per_step))
            watchdog.beat("loading data")
            step_batches = list(islice(batches, config.grad_accumulation))
            loss, finite, stopping = step(run, task.loss, model, step_batches, stop, watchdog.beat)
            seconds.append(time.perf_counter() - began)
            note_step(run, loss, seconds[-1], clips_per_step, board, bar)
            if next_epoch_if_done(run, task, clips_per_step):
                log.debug("Epoch %d FPS:%.9f", progress.epoch - 1, throughput(seconds, clips_per_step))
            skipped_in_a_row = 0 if finite else skipped_in_a_row + 1
            if not finite:
                report_skip(run, step_batches, loss, skipped_in_a_row)
            hopeless = skipped_in_a_row == MAX_SKIPPED_IN_A_ROW

            if progress.iteration % config.iters_per_validation == 0 or is_finished(run):
                watchdog.beat("validating")
                validate(run, task, board)
            saver.check()
            saving = progress.iteration % config.iters_per_checkpoint == 0 or is_finished(run) or stopping or hopeless
            if saving or progress.iteration % COMPARE_EVERY == 0:
                watchdog.beat("comparing weights", waits_for_others=True)
                agree_on_weights(run.model, run.precision, progress.iteration)
            if saving:
                watchdog.beat("saving", waits_for_others=True)
                save(run, saver)
            if hopeless:
                give_up(run, step_batches)
        batches.close()
    board.write(SummaryWriter.close)
    clips_per_second = throughput(seconds, clips_per_step)
    return Summary(
        iteration=progress.iteration,
        validation_loss=progress.validation_losses[-1][1],
        clips_per_second=clips_per_second,
        samples_per_second=clips_per_second * task.samples_per_clip,
        step_seconds=clips_per_step / clips_per_second,
        stopped=not is_finished(run),
    )


def step(
    run: Run, loss_of: Loss, model: nn.Module, batches: list[Batch], stop: StopSignal, beat: Callable[..., None]
) -> tuple[float, bool, bool]:
    """One step of the optimizer; ``beat``: that of a ``Watchdog``.

    Returns the loss averaged over all processes, whether it and the gradients were finite (if not,
    the model stays as it was), and whether any process was asked to stop.
    """
    config, precision = run.config.train_config, run.precision
    buffers = [buffer.clone() for buffer in run.model.buffers()]
    precision.start_step(run.optimizer)
    total = torch.zeros((), device=run.device.torch_device)
    for i, batch in enumerate(batches):
        beat("computing the loss")
        last = i == len(batches) - 1
        with distributed.gradients_reduced(model, last), precision.autocast():
            loss = loss_of(model, batch) / len(batches)
        beat("exchanging gradients", waits_for_others=True)
        precision.backward(loss, last)
        total += loss.detach()
    overflowed = precision.unscale_gradients()
    norm = clip_gradients(precision.master_params, config.grad_clip, run.device)

    # One exchange tells every process what any of them knows, so that all do the same.
    wrong = ~(torch.isfinite(total) & torch.isfinite(norm)) | overflowed
    asked = torch.full_like(total, float(stop.requested))  # which is filled there; a copy would be waited for
    sums = distributed.sum_over_ranks(torch.stack([total, wrong.float(), asked])).tolist()
    finite = sums[1] == 0
    if finite:
        run.optimizer.step()
    else:
        # Batch norm's statistics already include this batch.
        for buffer, before in zip(run.model.buffers(), buffers):
            buffer.copy_(before)
    precision.finish_step(finite)
    if finite and run.average:
        run.average.update(run.progress.steps + 1)
    return sums[0] / distributed.ranks().world_size, finite, sums[2] > 0


def clip_gradients(parameters: list[nn.Parameter], limit: float, device: Device) -> Tensor:
    """The norm of all gradients, which are scaled down to the norm ``limit`` unless it is 0."""
    foreach = has_foreach(device)
    if limit:
        return nn.utils.clip_grad_norm_(parameters, limit, foreach=None if foreach else False)
    # The same norm, without a multiplication of everything by 1.
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients) if foreach else [torch.linalg.vector_norm(each) for each in gradients]
    return torch.linalg.vector_norm(torch.stack(norms))


def set_learning_rate(run: Run, left: float) -> None:
    """Set the configured rate, given how many steps are left: it rises over the first steps, falls to a tenth at each
    of the anneal_epochs, and falls along a cosine over the last steps."""
    config, progress = run.config.train_config, run.progress
    rate = config.learning_rate * 0.1 ** sum(progress.epoch >= epoch for epoch in config.anneal_epochs)
    if progress.steps < config.warmup_steps:
        rate *= (progress.steps + 1) / config.warmup_steps
    decay_steps = min(config.decay_steps, progress.steps + left)
    if left < decay_steps:
        rate *= (1 - math.cos(math.pi * left / decay_steps)) / 2
    for group in run.optimizer.param_groups:
        group["lr"] = rate


def steps_left(run: Run, task: Task, clips_per_step: int) -> int:
    """Steps from here to the configured end, the next one included."""
    config, progress = run.config.train_config, run.progress
    per_epoch = task.clips_per_epoch // clips_per_step
    left = (config.epochs - progress.epoch) * per_epoch - progress.clips // clips_per_step
    return min(left, config.max_steps - progress.steps) if config.max_steps else left


def note_step(run: Run, loss: float, seconds: float, clips: int, board: TensorBoard, bar: tqdm) -> None:
    """Count a step and show it."""
    progress = run.progress
    progress.iteration += 1
    progress.clips += clips
    progress.losses.append(loss)
    log.debug("%d:\tloss:%.9f\ttime:%.9f\t", progress.iteration, loss, seconds)
    bar.update()
    bar.set_postfix(loss=f"{loss:.3f}")
    board.write(SummaryWriter.add_scalar, "loss/training", loss, progress.iteration)


def next_epoch_if_done(run: Run, task: Task, clips_per_step: int) -> bool:
    """Go to the next epoch if this one has too few clips left for a step."""
    done = task.clips_per_epoch - run.progress.clips < clips_per_step
    if done:
        run.progress.epoch += 1
        run.progress.clips = 0
    return done


def is_finished(run: Run) -> bool:
    """Whether the configured end has been reached."""
    config, progress = run.config.train_config, run.progress
    return progress.epoch >= config.epochs or 0 < config.max_steps <= progress.steps


def report_skip(run: Run, batches: list[Batch], loss: float, in_a_row: int) -> None:
    """Log that a step was skipped, with the clips it concerns."""
    # Every process logs its own clips: the first one alone would hide the others'.
    log.warning(
        "iteration %d: loss %s or its gradients are not finite, step skipped (%d in a row); clips: %s",
        run.progress.iteration, loss, in_a_row, ", ".join(names_of(batches)),
    )  # fmt: skip


def give_up(run: Run, batches: list[Batch]) -> None:
    """UserError after too many skipped steps, with the clips of the last one."""
    everywhere = [name for names in distributed.gather_objects(names_of(batches)) for name in names]
    raise UserError(
        f"the loss was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row, up to iteration {run.progress.iteration};"
        f" clips of the last one: {', '.join(everywhere)}; lower the learning rate or look at these clips"
    )


def names_of(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch["names"]]


def validate(run: Run, task: Task, board: TensorBoard) -> None:
    """Record the loss on held-back clips, and show one of them in TensorBoard."""
    run.model.eval()
    with torch.no_grad(), run.average.in_place() if run.average else nullcontext():
        distributed.share_buffers(run.model)
        loss = task.validate()
        run.progress.validation_losses.append((run.progress.iteration, loss))
        log.info("iteration %d: validation loss:%.6f", run.progress.iteration, loss)
        board.write(SummaryWriter.add_scalar, "loss/validation", loss, run.progress.iteration)
        board.write(task.show, run.progress.iteration)
    run.model.train()


def make_saver(run: Run) -> Saver:
    """A saver. The first process's knows what the run has saved before; those of the others have nothing to do."""
    config = run.config.train_config
    saved = []
    if distributed.ranks().rank == 0:
        remove_leftovers(config.output_directory)
        saved = run.saved()
    return Saver(config.keep_checkpoints, config.on_save_error, saved)


def save(run: Run, saver: Saver) -> None:
    """Save a checkpoint; the first process writes it for all."""
    states = distributed.gather_objects(rng_state(run.device))
    if distributed.ranks().rank == 0:
        saver.save(run.path(), run.state(states), run.progress.validation_losses[-1][1])


def throughput(seconds: list[float], clips_per_step: int) -> float:
    """Clips per second without the warm-up, unless the run was too short to leave it out; nan without steps."""
    measured = seconds[WARM_UP_STEPS:] or seconds
    return clips_per_step * len(measured) / sum(measured) if measured else math.nan


def make_bar(run: Run, steps_per_epoch: int) -> tqdm:
    """The progress bar of the whole run."""
    config = run.config.train_config
    steps = config.epochs * steps_per_epoch
    return progress_bar("training", min(steps, config.max_steps or steps), run.progress.steps)
