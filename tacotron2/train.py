"""Train Tacotron2: python -m tacotron2.train --help"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Subset
from torch.utils.tensorboard import SummaryWriter

from common import distributed, program
from common.bad_clips import BadClips
from common.evaluation import pictures
from common.files import remove_leftovers
from common.random_numbers import own_random_numbers
from common.training.agreement import agree_on_corpus
from common.training.batches import load, to_device, training_batches
from common.training.loop import Task
from common.training.main import train_program, training_parser
from common.training.run import Run
from tacotron2.alignment import alignment_quality
from tacotron2.config import Config, build_mel, build_model, check_symbols
from tacotron2.data import Clip, MelCache, Utterances, bucketed, collate, count_samples_and_symbols, find_utterances
from tacotron2.decoder import steps_of
from tacotron2.loss import Tacotron2Loss
from tacotron2.model import Tacotron2
from tacotron2.text.dictionary import path_of

log = logging.getLogger(__name__)

EXAMPLES = """\
  python -m tacotron2.train --data_path=LJSpeech-1.1 --output_directory=checkpoints
  python -m tacotron2.train --config=configs/tacotron2_demo.json --data_path=test/data/corpus --device=cpu
  python -m tacotron2.train --data_path=DIR --checkpoint_path=tacotron2_statedict.pt    (finetune)
"""

ALIGNED = 0.7
"Diagonality from which on text and speech can be said to advance together; evenly strewn attention has 0."


def main() -> None:
    train_program("tacotron2", Config, build_model, make_task, read_arguments())


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    return training_parser("tacotron2", Config, EXAMPLES).parse_args(given)


def make_task(run: Run[Config, Tacotron2], data_path: str) -> Task:
    """Datasets, loss, validation: what the training loop asks for."""
    config, settings = run.config, run.config.train_config
    check_symbols("the configuration", config, "tacotron2_config.n_symbols must be the number of data_config.symbols")
    bad = BadClips(settings.on_bad_clip, Path(settings.output_directory))
    clips, held_back = find_utterances(config.data_config, data_path, bad)
    kept = Path(settings.output_directory, "mels")
    if distributed.ranks().local_rank == 0:
        remove_leftovers(kept)
    # Only behind this, where all processes wait for each other, does one write there.
    dictionary = config.data_config.dictionary
    others = {"the dictionary": path_of(dictionary)} if dictionary else {}
    agree_on_corpus([clip.path for clip in clips + held_back], [clip.text for clip in clips + held_back], others)
    counted = report_census(clips + held_back, config, bad)
    samples = [count for clip, count in zip(clips, counted) if clip.path not in bad.paths]
    clips, held_back = bad.without(clips, "training"), bad.without(held_back, "held-back")
    mels = MelCache(kept, config.data_config, build_mel(config))
    training_set, held_back_set = (
        Utterances(some, config.data_config, mels, settings.on_bad_clip) for some in (clips, held_back)
    )
    n_frames_per_step = config.tacotron2_config.n_frames_per_step
    criterion = Tacotron2Loss(settings.guided_attention, n_frames_per_step)

    def loss(model: nn.Module, batch: dict) -> Tensor:
        return run_teacher_forced(model, batch, run, criterion)[0]

    def validate() -> float:
        """Each process takes every world_size-th clip; the prenet's dropout is the same every time."""
        ranks = distributed.ranks()
        own = Subset(held_back_set, range(ranks.rank, len(held_back_set), ranks.world_size))
        sums = torch.zeros(2, device=run.device.torch_device)
        with own_random_numbers(settings.seed, run.device):
            for batch in load(own, batch_size=settings.batch_size, collate_fn=collate):
                # Not around the loader: mel spectrograms are float32.
                with run.precision.autocast():
                    loss, output = run_teacher_forced(run.model, batch, run, criterion)
                diagonality = sum_of_diagonality(output[3], batch, n_frames_per_step)
                sums += torch.tensor([loss * len(batch["names"]), diagonality], device=sums.device)
        loss, diagonality = (distributed.sum_over_ranks(sums) / len(held_back_set)).tolist()
        report_alignment(run, diagonality)
        return loss

    def show(writer: SummaryWriter, iteration: int) -> None:
        batch = collate([held_back_set[0]])
        with own_random_numbers(settings.seed, run.device), run.precision.autocast():
            _, output = run_teacher_forced(run.model, batch, run, criterion)
        for name, figure in plot_sample(batch["mel"][0], output).items():
            writer.add_figure(f"clip/{name}", figure, iteration)

    return Task(
        batches=training_batches(
            training_set, bucketed(samples, settings.batch_size, settings.seed), settings, run.device, collate
        ),
        loss=loss,
        validate=validate,
        show=show,
        clips_per_epoch=len(clips),
        samples_per_clip=sum(samples) // len(samples),
    )


def run_teacher_forced(
    model: nn.Module, batch: dict, run: Run, criterion: Tacotron2Loss
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss of a batch of ``collate``, a scalar, and the model's output: two mels [B, n_mel, T], gate [B, S],
    alignments [B, S, N]."""
    names = ("text", "text_lengths", "mel", "mel_lengths")
    text, text_lengths, mel, mel_lengths = (to_device(batch[name], run.device) for name in names)
    output = model(text, text_lengths, mel, mel_lengths)
    return criterion(output, text_lengths, mel, mel_lengths), output


def report_census(clips: list[Clip], config: Config, bad: BadClips) -> list[int]:
    """Look at all clips, each process at a share, and say what was found; the samples of each clip, 0 of bad ones.

    UserError as ``BadClips.settle``.
    """
    ranks = distributed.ranks()
    own = count_samples_and_symbols(clips[ranks.rank :: ranks.world_size], config.data_config, bad)
    bad.gather([clip.path for clip in clips])
    bad.settle(len(clips))
    samples, symbols = [0] * len(clips), [0] * len(clips)
    for rank, (some_samples, some_symbols) in enumerate(distributed.gather_objects(own)):
        samples[rank :: ranks.world_size], symbols[rank :: ranks.world_size] = some_samples, some_symbols
    rate = config.data_config.sampling_rate
    log.info(
        "data: %d clips, %.0f s, the longest %.1f s; %d symbols, at most %d in a clip",
        sum(map(bool, samples)), sum(samples) / rate, max(samples) / rate, sum(symbols), max(symbols),
    )  # fmt: skip
    return samples


def sum_of_diagonality(alignments: Tensor, batch: dict, n_frames_per_step: int) -> float:
    """Sum of the diagonalities of a batch's alignments [B, S, N], each without its padding."""
    lengths = zip(alignments, steps_of(batch["mel_lengths"], n_frames_per_step), batch["text_lengths"])
    return sum(alignment_quality(each[:steps, :symbols]).diagonality for each, steps, symbols in lengths)


def report_alignment(run: Run, diagonality: float) -> None:
    """Warn if attention has not learned to advance with the speech; without that nothing will be intelligible."""
    iteration, late = run.progress.iteration, run.progress.steps >= run.config.train_config.align_by
    log.info("iteration %d: alignment diagonality:%.3f", iteration, diagonality)
    if late and diagonality < ALIGNED:
        log.warning(
            "iteration %d: still no diagonal alignment (%.2f of 1, %.1f is needed): look at TensorBoard's pictures,"
            " check that the transcripts belong to the clips, try guided_attention 1.0 or a larger batch",
            iteration, diagonality, ALIGNED,
        )  # fmt: skip


def plot_sample(mel: Tensor, output: tuple[Tensor, ...]) -> dict[str, Figure]:
    """Pictures of a clip alone in its batch: mel [n_mel, T] as recorded, and the model's output."""
    _, predicted, gate, alignment = (each[0].float().cpu() for each in output)
    return {
        "alignment": pictures.plot_alignment(alignment),
        "mel spectrograms": pictures.plot_spectrograms({"recorded": mel, "predicted": predicted}),
        "gate": pictures.plot_gate(gate.sigmoid()),
    }


if __name__ == "__main__":
    program.run(main, may_be_rank=True)
