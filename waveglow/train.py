"""Train WaveGlow: python -m waveglow.train --help"""

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Subset
from torch.utils.tensorboard import SummaryWriter

from common import distributed, program
from common.audio import MelSpectrogram
from common.bad_clips import BadClips
from common.corpus import find_clips, hold_back_clips
from common.device import Device
from common.evaluation import pictures
from common.program import UserError
from common.training.agreement import agree_on_corpus
from common.training.batches import load, shuffled, to_device, training_batches
from common.training.loop import Task
from common.training.main import train_program, training_parser
from common.training.run import Run
from waveglow.conditioning import interpolation
from waveglow.config import Config, build_mel, build_model
from waveglow.data import HeldBackSegments, TrainingSegments, take_census
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow
from waveglow.segment_mels import SegmentMels

log = logging.getLogger(__name__)

Forward = Callable[..., tuple[torch.Tensor, torch.Tensor]]

EXAMPLES = """\
  python -m waveglow.train --data_path=LJSpeech-1.1 --output_directory=checkpoints
  python -m waveglow.train --config=configs/waveglow_demo.json --data_path=test/data/corpus --device=cpu
  python -m waveglow.train --data_path=DIR --checkpoint_path=checkpoints/waveglow_1000    (finetune)
  python -m waveglow.train --data_path=DIR --checkpoint_path=... --mels_path=mels   (... on Tacotron2's predictions)
"""

START_SEGMENTS = 64
"Segments from which the mean and the standard deviation of the mel spectrograms are taken."
LOWEST_STD = 0.1
"Smallest standard deviation of a mel band: a band with nothing in it is not amplified."
SHOWN_FRAMES = 160
"Length of the clip that TensorBoard plays: short, since training waits for it."


def main() -> None:
    train_program("waveglow", Config, build_model, make_task, read_arguments())


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    return training_parser("waveglow", Config, EXAMPLES).parse_args(given)


def make_task(run: Run[Config, WaveGlow], data_path: str) -> Task:
    """Datasets, loss, validation: what the training loop asks for."""
    config, device = run.config, run.device
    bad = BadClips(config.train_config.on_bad_clip, Path(config.train_config.output_directory))
    clips, held_back = hold_back_clips(find_clips(data_path, config.data_config.training_files, bad))
    mel = build_mel(config)
    mels = SegmentMels(config.data_config, mel)
    agree_on_corpus(clips + held_back, others=mels.given.of(clips + held_back) if mels.given else None)
    report_census(clips + held_back, config, bad, mels)
    clips, held_back = bad.without(clips, "training"), bad.without(held_back, "held-back")
    run.model.recompute = config.train_config.recompute
    if config.train_config.compile:
        compile_couplings(run.model, device)
    on_bad_clip = config.train_config.on_bad_clip
    training_set = TrainingSegments(clips, config.data_config, mel, config.train_config.seed, on_bad_clip)
    held_back_set = HeldBackSegments(held_back, config.data_config, mel, on_bad_clip)
    if config.train_config.interpolating_start:
        start_as_interpolation(run, training_set)
    criterion = WaveGlowLoss(config.train_config.sigma)

    def loss(model: torch.nn.Module, batch: dict) -> torch.Tensor:
        mel, audio = (to_device(batch[name], device, run.precision.input_dtype) for name in ("mel", "audio"))
        return criterion(model(mel, audio))

    def validate() -> float:
        """Each process takes every world_size-th segment, one batch at a time."""
        ranks = distributed.ranks()
        own = Subset(held_back_set, range(ranks.rank, len(held_back_set), ranks.world_size))
        total = torch.zeros((), device=device.torch_device)
        for batch in load(own, batch_size=config.train_config.batch_size):
            with run.precision.autocast():
                total += loss(run.model, batch) * len(batch["names"])
        return distributed.sum_over_ranks(total).item() / len(held_back_set)

    def show(writer: SummaryWriter, iteration: int) -> None:
        show_sample(writer, iteration, run, held_back_set[0], mel)

    return Task(
        batches=training_batches(
            training_set, shuffled(len(clips), config.train_config.seed), config.train_config, device
        ),
        loss=loss,
        validate=validate,
        show=show,
        clips_per_epoch=len(clips),
        samples_per_clip=config.data_config.segment_length,
    )


def compile_couplings(model: WaveGlow, device: Device) -> None:
    """Have PyTorch's compiler fuse what lies between the convolutions of a coupling, in training steps.

    Validation has batches of other sizes, each of which would be compiled anew. UserError without a CUDA card.
    """
    if device.type != "cuda":
        raise UserError(f"compile is for CUDA cards: leave it out on the {device.type}")
    for wn in model.WN:
        wn.forward = compiled_for_gradients(wn.forward)  # type: ignore[method-assign]


def compiled_for_gradients(forward: Forward) -> Forward:
    """``forward``, compiled where gradients are wanted, for each shape of its inputs."""
    compiled = torch.compile(forward, dynamic=False)
    return lambda *inputs: (compiled if torch.is_grad_enabled() else forward)(*inputs)


def start_as_interpolation(run: Run[Config, WaveGlow], training_set: TrainingSegments) -> None:
    """Give the upsampling its first weights, by the mean and deviation of the training's mel spectrograms."""
    segments = range(min(len(training_set.clips), START_SEGMENTS))
    mel = torch.cat([training_set[0, i]["mel"] for i in segments], dim=1)
    state = run.precision.model_state(run.model)
    upsample = run.model.upsample
    state["upsample.weight"], state["upsample.bias"] = interpolation(
        mel.mean(1), mel.std(1).clamp_min(LOWEST_STD), upsample.kernel_size[0], upsample.stride[0]
    )
    run.precision.load_model_state(run.model, state)


def report_census(clips: list[Path], config: Config, bad: BadClips, mels: SegmentMels) -> None:
    """Look at all clips, each process at a share, and say what was found. UserError as ``BadClips.settle``."""
    ranks = distributed.ranks()
    own = take_census(clips[ranks.rank :: ranks.world_size], config.data_config, bad, mels)
    bad.gather(clips)
    bad.settle(len(clips))
    censuses = distributed.gather_objects(own)
    total = {name: sum(getattr(census, name) for census in censuses) for name in vars(own)}
    log.info(
        "data: %(clips)d clips, %(seconds).0f s; %(short)d shorter than a segment (padded with faint noise);"
        " %(silent)d of %(segments)d segments near-silent (others are drawn instead)",
        total,
    )
    if total["clipped"]:
        log.warning("%(clipped)d clip(s) have samples beyond full scale, which are clipped", total)


def show_sample(
    writer: SummaryWriter, iteration: int, run: Run[Config, WaveGlow], item: dict, mel: MelSpectrogram
) -> None:
    """Let TensorBoard play a held-back clip as synthesized now, beside the recording."""
    device, rate = run.device, run.config.data_config.sampling_rate
    target = item["mel"][:, :SHOWN_FRAMES]
    generator = torch.Generator().manual_seed(run.config.train_config.seed)
    noise = [torch.randn(shape, generator=generator) for shape in run.model.noise_shapes(1, target.shape[1])]
    there = partial(to_device, device=device, dtype=run.precision.input_dtype)
    with run.precision.autocast():
        audio = run.model.infer(there(target[None]), 0.6, [there(n) for n in noise]).float().cpu()
    writer.add_audio("clip/synthesized", audio.clamp(-1, 1), iteration, rate)
    writer.add_audio("clip/recorded", item["audio"][None, : audio.shape[1]], iteration, rate)
    recorded = mel(item["audio"][None])[0, :, :SHOWN_FRAMES]
    figure = pictures.plot_spectrograms({"recorded": recorded, "synthesized": mel(audio)[0]})
    writer.add_figure("clip/mel spectrograms", figure, iteration)


if __name__ == "__main__":
    program.run(main, may_be_rank=True)
