"""The voices that a process serves, from checkpoints to speakers on its device."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from common.checkpoints.interchange import read
from common.config_reading import config_of_checkpoint
from common.device import Device, keep_freed_memory
from common.hints import Hints
from common.inference import with_hints
from common.voices import DEFAULT, Settings, find_voice, names
from tacotron2.config import Config
from tacotron2.synthesizer import BaseSynthesizer, Synthesizer
from tools.deploy import stages
from tools.deploy.artifacts import ONNX, engine_folder, read_contents
from tools.deploy.checkpoints import Wanted
from tools.deploy.export_model.export import export_graphs
from tools.deploy.gen_model.build import Order, build
from tools.deploy.gen_model.settings import load_settings
from tools.deploy.infer_python.synthesizer import EngineSynthesizer
from tools.serve.speaker import LARGEST_BATCH, Speaker
from tools.serve.voices import Entry, Voices
from tools.sound import check_same_audio
from waveglow.vocoder import Vocoder

OWN = "own"
"Name of the voice that is made of the user's two checkpoints."
MEMORY = 4.0
"GiB for the weights of the voices of a process."
WARM_UP = "The first sentence takes longer than those after it."


def find_voices(default: str = "", tacotron2: str = "", waveglow: str = "", hints: Hints | None = None) -> list[Entry]:
    """The voice of the two checkpoints, if they are given, and all of voices/; the default is the first.

    ``hints`` are about the default. UserError for a voice that is not there or not whole.
    """
    entries = []
    if tacotron2:
        entries.append(Entry(OWN, tacotron2, waveglow, Settings(), rate_of(tacotron2, hints or {}), hints or {}))
    default = default or DEFAULT
    for name in [default, *(name for name in names() if name != default)]:
        voice, own = find_voice(name), (hints or {}) if not entries else {}
        entries.append(Entry(name, voice.tacotron2, voice.waveglow, voice.settings, rate_of(voice.tacotron2, own), own))
    return entries


def rate_of(tacotron2: str | Path, hints: Hints) -> int:
    """Samples a second of what a checkpoint's voice speaks."""
    checkpoint = with_hints(tacotron2, read(tacotron2, "tacotron2"), hints, Config)
    return config_of_checkpoint(tacotron2, Config, checkpoint.config).data_config.sampling_rate


@dataclass(frozen=True)
class Decoding:
    """What runs Tacotron2: PyTorch, or an engine of tools/deploy on the CPU."""

    engine: str = "torch"
    quant_mode: str = "force_float32"
    models_dir: Path = Path()
    "Of an engine: has a folder for each voice, with its graphs and engines."

    def folder(self, voice: str) -> Path:
        return engine_folder(self.models_dir / voice, self.engine, self.quant_mode)


def make_engines(entries: list[Entry], decoding: Decoding) -> None:
    """Export the voices and build their engines, where they are not there. UserError as these programs."""
    settings = load_settings(None).for_batches([1, LARGEST_BATCH // 2, LARGEST_BATCH])
    for entry in entries:
        models_dir = decoding.models_dir / entry.name
        paths = {"tacotron2": str(entry.tacotron2), "waveglow": str(entry.waveglow)}
        wanted = Wanted(paths, named=True, sigma=entry.settings.sigma, hints=entry.hints)
        if wanted.hints or not stages.are_there(models_dir / ONNX, wanted):
            export_graphs(models_dir, wanted)
        build(Order(decoding.engine, decoding.quant_mode, models_dir, decoding.folder(entry.name), settings))


def voices_on(
    device: Device,
    entries: list[Entry],
    threads: int,
    amp: str = "",
    memory: float = MEMORY,
    decoding: Decoding = Decoding(),
) -> Voices:
    """Voices that are loaded to the device when they are asked for, with so many threads on a CPU; memory in GiB."""
    keep_freed_memory(device)
    if device.type == "cpu":  # a speaker's two threads compute at the same time
        torch.set_num_threads(max(1, threads // 2))
    make = partial(load, device=device, amp=amp or fastest_level(device), decoding=decoding)
    return Voices(entries, make, memory * 2**30)


def load(entry: Entry, device: Device, amp: str, decoding: Decoding) -> Speaker:
    """A voice that has spoken its first sentence, which takes longer than those after it."""
    synthesizer = load_synthesizer(entry, device, amp, decoding)
    vocoder = Vocoder(entry.waveglow, device, amp, hints=entry.hints)
    check_same_audio(synthesizer.config, synthesizer.path, vocoder.config, entry.waveglow)
    warm_up = WARM_UP if synthesizer.symbols(WARM_UP) else synthesizer.alphabet.example()
    for spoken in synthesizer.speak([warm_up], tries=1):
        vocoder.synthesize(spoken.utterance.mel)
    return Speaker(synthesizer, vocoder)


def load_synthesizer(entry: Entry, device: Device, amp: str, decoding: Decoding) -> BaseSynthesizer:
    cleaners = entry.settings.text_cleaners
    if decoding.engine == "torch":
        return Synthesizer(entry.tacotron2, device, amp, hints=entry.hints, cleaners=cleaners)
    folder = decoding.folder(entry.name)
    contents = read_contents(folder, decoding.engine, "start the service again")
    return EngineSynthesizer(folder, contents, len(os.sched_getaffinity(0)) // torch.get_num_threads(), cleaners)


def fastest_level(device: Device) -> str:
    """O1 on a CPU that computes in bfloat16; else empty, which is the device's own."""
    flags = Path("/proc/cpuinfo")
    bfloat16 = flags.is_file() and {"amx_bf16", "avx512_bf16"} & set(flags.read_text().split())
    return "O1" if device.type == "cpu" and bfloat16 else ""
