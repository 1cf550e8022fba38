"""The voices that a process serves, from checkpoints to speakers on its device."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from common import voices
from common.checkpoints.interchange import read
from common.config_reading import config_of_checkpoint, load_config
from common.device import Device
from common.hints import Hints
from common.inference import with_hints
from common.program import UserError
from common.voices import DEFAULT, Settings
from tacotron2.config import Config
from tacotron2.synthesizer import BaseSynthesizer, Synthesizer
from tools.deploy import stages
from tools.deploy.artifacts import CONTENTS, ONNX, engine_folder, read_any_contents
from tools.deploy.checkpoints import Wanted, naming
from tools.deploy.export_model.to_onnx import export_graphs
from tools.deploy.gen_model.building import Order, build
from tools.deploy.gen_model.settings import load_settings
from tools.deploy.infer_python.synthesizer import EngineSynthesizer
from tools.deploy.infer_python.vocoder import EngineVocoder
from tools.serve.speaker import LARGEST_BATCH, Speaker
from tools.serve.voices import Entry, Voices
from tools.sound import check_same_audio
from waveglow.vocoder import BaseVocoder, Vocoder

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
        rate = rate_of(tacotron2, hints or {})
        entries.append(Entry(OWN, Settings(), rate, tacotron2, waveglow, hints or {}))
    default = default or DEFAULT
    engines = {path.parent.name: path.parent for path in voices.FOLDER.glob(f"*/{CONTENTS}")}
    for name in [default, *sorted({*voices.names(), *engines} - {default})]:
        own = (hints or {}) if not entries else {}
        entries.append(of_engines(engines[name], own) if name in engines else of_checkpoints(name, own))
    return entries


def of_checkpoints(name: str, hints: Hints) -> Entry:
    """A voice whose folder holds the two checkpoints."""
    voice = voices.find_voice(name)
    rate = rate_of(voice.tacotron2, hints)
    return Entry(name, voice.settings, rate, voice.tacotron2, voice.waveglow, hints)


def of_engines(folder: Path, hints: Hints) -> Entry:
    """A voice whose folder holds engines that tools/deploy has built. UserError for hints: they would say nothing."""
    contents = read_any_contents(folder, "build the engines again")
    if contents.engine == ONNX:
        raise UserError(f"{folder} holds graphs: build engines of them, with tools/deploy/gen_model/run.sh -o {folder}")
    if hints:
        raise UserError(f"the engines of {folder} are built: what is said of checkpoints is for their export")
    own = folder / "voice.json"
    settings = load_config(own, Settings) if own.is_file() else Settings(sigma=contents.sigma)
    return Entry(folder.name, settings, contents.waveglow.data_config.sampling_rate, engines=folder)


def rate_of(tacotron2: str | Path, hints: Hints) -> int:
    """Samples a second of what a checkpoint's voice speaks."""
    checkpoint = with_hints(tacotron2, read(tacotron2, "tacotron2"), hints, Config)
    return config_of_checkpoint(tacotron2, Config, checkpoint.config).data_config.sampling_rate


@dataclass(frozen=True)
class Decoding:
    """What runs Tacotron2 of a voice that has checkpoints: PyTorch, or an engine of tools/deploy on the CPU."""

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
        if entry.engines:
            continue
        models_dir = decoding.models_dir / entry.name
        paths = {"tacotron2": str(entry.tacotron2), "waveglow": str(entry.waveglow)}
        sigma, cleaners = entry.settings.sigma, entry.settings.text_cleaners
        wanted = Wanted(paths, True, sigma, entry.hints, cleaners, naming(paths))
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
    if device.type == "cpu":  # a speaker's two threads compute at the same time
        torch.set_num_threads(max(1, threads // 2))
    make = partial(load, device=device, amp=amp or fastest_level(device), decoding=decoding)
    return Voices(entries, make, memory * 2**30)


def load(entry: Entry, device: Device, amp: str, decoding: Decoding) -> Speaker:
    """A voice that has spoken its first sentence, which takes longer than those after it."""
    synthesizer, vocoder = load_synthesizer(entry, device, amp, decoding), load_vocoder(entry, device, amp)
    check_same_audio(synthesizer.config, synthesizer.path, vocoder.config, entry.waveglow)
    warm_up = WARM_UP if synthesizer.symbols(WARM_UP) else synthesizer.alphabet.example()
    for spoken in synthesizer.speak([warm_up], tries=1):
        vocoder.synthesize(spoken.utterance.mel)
    return Speaker(synthesizer, vocoder)


def load_synthesizer(entry: Entry, device: Device, amp: str, decoding: Decoding) -> BaseSynthesizer:
    cleaners = entry.settings.text_cleaners
    if not entry.engines and decoding.engine == "torch":
        return Synthesizer(entry.tacotron2, device, amp, hints=entry.hints, cleaners=cleaners)
    folder = entry.engines or decoding.folder(entry.name)
    return EngineSynthesizer(folder, read_any_contents(folder, "start the service again"), shares(), cleaners)


def load_vocoder(entry: Entry, device: Device, amp: str) -> BaseVocoder:
    if not entry.engines:
        return Vocoder(entry.waveglow, device, amp, hints=entry.hints)
    return EngineVocoder(entry.engines, read_any_contents(entry.engines, "start the service again"), shares())


def shares() -> int:
    """How many such engines share the CPU: those of this process's other threads, and of its other workers."""
    return len(os.sched_getaffinity(0)) // torch.get_num_threads()


def fastest_level(device: Device) -> str:
    """O1 on a CPU that computes in bfloat16; else empty, which is the device's own."""
    flags = Path("/proc/cpuinfo")
    bfloat16 = flags.is_file() and {"amx_bf16", "avx512_bf16"} & set(flags.read_text().split())
    return "O1" if device.type == "cpu" and bfloat16 else ""
