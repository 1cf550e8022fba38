"""The mel spectrograms that Tacotron2 makes of a whole corpus, in step with its recordings.

Each frame is predicted from the recording's frames before it, so the prediction is as long as the recording. A vocoder
that is trained on these in place of the recordings' own (Shen et al. 2018, arXiv:1712.05884, section 3.1) learns to
sound well on what Tacotron2 predicts.
"""

import argparse
import json
import logging
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import distributed
from common.audio import read_wav
from common.bad_clips import BadClips
from common.config_reading import read_json
from common.evaluation.metrics import mel_cepstral_distortion, mel_l1
from common.evaluation.runner import check_outputs_differ, mean
from common.files import open_input, remove_leftovers, written_whole
from common.log import progress_bar
from common.program import UserError, shown
from tacotron2.config import DataConfig
from tacotron2.data import Clip, Utterances, collate, find_utterances
from tacotron2.model import Utterance
from tacotron2.synthesizer import LEAST_DIAGONALITY, Synthesizer, derive_seed
from tacotron2.train import report_census

log = logging.getLogger(__name__)

FACTS = "teacher_forced.json"
"What the mels of a folder were made with."
BATCH_SIZE = 16
SHOWN = 5
"Clips that a warning names."


@dataclass
class Measured:
    """How near a prediction is to its recording."""

    mel_l1: float
    mel_cepstral_distortion: float
    diagonality: float


def predict_corpus(args: argparse.Namespace, synthesizer: Synthesizer, output: Path) -> None:
    """Write ``<name of the clip>.npy``, [n_mel, T] float32, for every clip of a corpus, T as for its recording.

    A mel that is there, and newer than recording and transcripts, is kept. UserError for bad clips as
    ``BadClips.settle``, for two clips of one name, and if the folder's mels were made with something else.
    """
    data = data_of(args, synthesizer)
    clips, samples = find_corpus(args, synthesizer, data, output)
    if distributed.ranks().rank == 0:
        remove_leftovers(output)
    distributed.first_ranks(lambda: settle_facts(output / FACTS, facts_of(args, synthesizer)))
    since = newest_transcript(args, data)
    is_done = [
        is_whole(output / mel_name(clip.path), mel_shape(count, synthesizer), max(since, clip.path.stat().st_mtime))
        for clip, count in zip(clips, samples)
    ]
    batches = batches_of(samples, args.batch_size or BATCH_SIZE)
    waiting = [batch for batch in batches if not all(is_done[number] for number in batch)]
    distributed.gather_objects(None)  # no process writes before all of them have looked
    own = waiting[distributed.ranks().rank :: distributed.ranks().world_size]
    log.info("%d of %d clips are to be predicted", sum(map(len, waiting)), len(clips))
    recorded = Utterances(clips, data, lambda path: recorded_mel(path, synthesizer), on_bad_clip="stop")
    measured: dict[str, Measured] = {}
    with progress_bar("predicting", sum(map(len, own)), initial=0) as bar:
        for batch in own:
            measured |= predict_batch([recorded[number] for number in batch], synthesizer, args.seed, output)
            bar.update(len(batch))
            log.debug("%d clips predicted", len(measured))
    everyones = distributed.gather_objects(measured)
    report({name: figures for some in everyones for name, figures in some.items()}, len(clips), output)


def data_of(args: argparse.Namespace, synthesizer: Synthesizer) -> DataConfig:
    """How texts and recordings are read, and which: those of the options, not the lists the model was trained on."""
    return replace(synthesizer.config.data_config, training_files=args.training_files, validation_files="")


def find_corpus(
    args: argparse.Namespace, synthesizer: Synthesizer, data: DataConfig, output: Path
) -> tuple[list[Clip], list[int]]:
    """All clips that can be used, the held-back ones too, and their samples."""
    bad = BadClips(args.on_bad_clip, output)
    training, held_back = find_utterances(data, args.data_path, bad)
    clips = held_back + training
    samples = report_census(clips, replace(synthesizer.config, data_config=data), bad)
    kept = bad.without(clips, "corpus's")
    check_outputs_differ((clip.path for clip in kept), mel_name)
    return kept, [count for clip, count in zip(clips, samples) if clip.path not in bad.paths]


def facts_of(args: argparse.Namespace, synthesizer: Synthesizer) -> dict[str, str | int]:
    """What a clip's mel depends on, beside the clip."""
    digest = 0
    for tensor in synthesizer.model.state_dict().values():
        digest = zlib.crc32(tensor.cpu().reshape(-1).view(torch.uint8).numpy(), digest)
    data = synthesizer.config.data_config
    return {
        "weights": f"crc32 {digest:08x}",
        "seed": args.seed,
        "precision": synthesizer.precision.level,
        "text_cleaners": " ".join(data.text_cleaners),
        "dictionary": data.dictionary,
    }


def settle_facts(path: Path, facts: dict[str, str | int]) -> None:
    """Write the facts; UserError if the folder was made with others, or they cannot be read."""
    there = read_json(path) if os.path.lexists(path) else facts
    for name, now in facts.items():
        was = there.get(name) if isinstance(there, dict) else None
        if was != now:
            folder = f"{path.parent} holds mels made with {name} {shown(was)}"
            raise UserError(f"{folder}, now it is {shown(now)}: name another folder")
    with written_whole(path) as file:
        file.write((json.dumps(facts, indent=2) + "\n").encode())


def newest_transcript(args: argparse.Namespace, data: DataConfig) -> float:
    """When the transcripts changed last, in seconds."""
    path = Path(args.data_path, "metadata.csv") if args.data_path else Path(data.training_files)
    return path.stat().st_mtime


def batches_of(samples: list[int], batch_size: int) -> list[list[int]]:
    """The numbers of a corpus's clips in batches of similar length.

    What is done already makes no difference, so a run that was stopped ends with the same numbers as one that was not.
    """
    order = np.argsort(samples, kind="stable").tolist()
    return [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]


def mel_name(clip: Path) -> str:
    return f"{clip.stem}.npy"


def mel_shape(samples: int, synthesizer: Synthesizer) -> tuple[int, int]:
    return len(synthesizer.mel.filters), samples // synthesizer.mel.hop_length + 1


def is_whole(path: Path, shape: tuple[int, int], since: float) -> bool:
    """Whether an array of this shape is there, written at or after ``since``. UserError as ``open_input``."""
    try:
        open_input(path).close()
        there = np.load(path, mmap_mode="r").shape  # fails for a file that is cut off, without reading it
        return there == shape and path.stat().st_mtime >= since
    except (OSError, ValueError, EOFError):
        return False


def recorded_mel(path: Path, synthesizer: Synthesizer) -> Tensor:
    """mel [n_mel, T] of a recording."""
    audio = read_wav(path, synthesizer.config.data_config.sampling_rate)
    return synthesizer.mel(torch.from_numpy(audio)[None])[0]


def predict_batch(items: list[dict], synthesizer: Synthesizer, seed: int, output: Path) -> dict[str, Measured]:
    """Write the mels of some items of ``Utterances``; how near they are to the recordings, by the clips' names."""
    measured = {}
    for item, predicted in zip(items, predict(items, synthesizer, seed)):
        name, mel = item["names"], item["mel"]
        if not torch.isfinite(predicted.mel).all():
            raise UserError(f"the mel spectrogram of {name} is not finite: {synthesizer.path} is not usable here")
        path = output / mel_name(Path(name))
        try:
            with written_whole(path) as file:
                np.save(file, predicted.mel.numpy())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        distances = (mel_l1(mel, predicted.mel), mel_cepstral_distortion(mel, predicted.mel))
        measured[name] = Measured(*distances, predicted.diagonality)
    return measured


def predict(items: list[dict], synthesizer: Synthesizer, seed: int) -> list[Utterance]:
    """The predictions for some clips; the dropout of each is drawn by ``seed`` and its name."""
    batch, place = collate(items), synthesizer.device.torch_device
    names = ("text", "text_lengths", "mel", "mel_lengths")
    text, text_lengths, mel, mel_lengths = (batch[name].to(place) for name in names)
    seeds = [derive_seed(seed, zlib.crc32(Path(name).stem.encode())) for name in batch["names"]]
    with synthesizer.precision.autocast():
        return synthesizer.model.predict(text, text_lengths, mel, mel_lengths, seeds)


def report(measured: dict[str, Measured], clips: int, output: Path) -> None:
    """What was made, and which clips' attention went astray."""
    means = {name: mean(getattr(each, name) for each in measured.values()) for name in Measured.__dataclass_fields__}
    if measured:
        log.info(
            "beside the recordings: mel L1 %(mel_l1).3f, MCD %(mel_cepstral_distortion).2f dB,"
            " diagonality of attention %(diagonality).2f",
            means,
        )
    astray = sorted((each.diagonality, name) for name, each in measured.items() if each.diagonality < LEAST_DIAGONALITY)
    if astray:
        log.warning(
            "in %d clips the attention does not advance with the speech (%s): do their transcripts belong to them?",
            len(astray), ", ".join(name for _, name in astray[:SHOWN]) + ", ..." * (len(astray) > SHOWN),
        )  # fmt: skip
    log.info("%s holds the mels of all %d clips: train WaveGlow with --mels_path=%s", output, clips, output)
