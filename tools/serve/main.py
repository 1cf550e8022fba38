"""Speech as a service: bash tools/serve.sh --help"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

import torch
import uvicorn

from common import program
from common.checkpoints.interchange import read
from common.config import config_of_checkpoint
from common.device import Device, device_count, keep_freed_memory, pick_device
from common.log import open_log
from common.program import UserError
from common.voices import DEFAULT, Settings, find_voice, names
from tacotron2.config import Config
from tacotron2.synthesizer import Synthesizer
from tools.serve.application import make_application
from tools.serve.errors import RefusalError
from tools.serve.limits import Limits, read_key
from tools.serve.speaker import Speaker
from tools.serve.voices import Entry, Voices
from tools.serve.workers import run_workers
from tools.sound import check_same_audio
from waveglow.vocoder import Vocoder

log = logging.getLogger(__name__)

DESCRIPTION = """\
Speech as a service: OpenAI's interface (POST /v1/audio/speech) with the voice that comes with the repository, or with
your checkpoints. Audio is sent while the rest is made; sentences of all clients are decoded together."""

EXAMPLES = """\
  bash tools/serve.sh
  bash tools/serve.sh --tacotron2=tacotron2_5000 --waveglow=waveglow_21000 --port=9000 --api_key_file=key.txt
  curl http://127.0.0.1:8000/v1/audio/speech -d '{"input": "Any text.", "response_format": "wav"}' \\
      -H 'Content-Type: application/json' -o out.wav"""

LAST_REQUESTS = 120
"Seconds that SIGTERM leaves for what was begun."
OWN = "own"
"Name of the voice of --tacotron2 and --waveglow."
WARM_UP = "The first sentence takes longer than those after it."


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    key = read_key(args.api_key_file)
    entries = find_voices(args)
    place = open_port(args.host, args.port)
    if args.workers == 1:
        serve(0, place, args, key, entries)
    else:
        run_workers(args.workers, place, partial(serve, args=args, key=key, entries=entries), LAST_REQUESTS + 10)


def find_voices(args: argparse.Namespace) -> list[Entry]:
    """The voice of the two checkpoints, if they are given, and all of voices/; the default is the first."""
    entries = []
    if args.tacotron2:
        entries.append(Entry(OWN, args.tacotron2, args.waveglow, Settings(), rate_of(args.tacotron2)))
    default = args.voice or DEFAULT
    for name in sorted(names(), key=lambda name: (name != default, name)) or [default]:
        voice = find_voice(name)
        entries.append(Entry(name, voice.tacotron2, voice.waveglow, voice.settings, rate_of(voice.tacotron2)))
    return entries


def rate_of(tacotron2: str | Path) -> int:
    """Samples a second of what a checkpoint's voice speaks."""
    return config_of_checkpoint(tacotron2, Config, read(tacotron2, "tacotron2").config).data_config.sampling_rate


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens; UserError if it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        place = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --host or --port"
        ) from error
    return place


def serve(index: int, place: socket.socket, args: argparse.Namespace, key: bytes, entries: list[Entry]) -> None:
    """One process: all voices on one device, until SIGTERM or SIGINT."""
    if parent_process():  # a worker
        open_log(None, quiet=False)
    # While the models are loaded; and when all is done, since uvicorn then gives on the signal that has ended it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not args.log_text:  # it names sentences that went wrong
        logging.getLogger("tacotron2.synthesizer").setLevel(logging.ERROR)
    device = pick_device(args.device)
    if device.type != "cpu":
        device = pick_device(device.type, index % int(device_count(device.type)))
    keep_freed_memory(device)
    if device.type == "cpu":  # a speaker's two threads compute at the same time
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // (2 * args.workers)))
    voices = Voices(entries, partial(load, device=device, amp=args.amp or fastest_level(device)), args.memory * 2**30)
    asyncio.run(answer(voices, Limits(speeches=args.queue), key, place))


async def answer(voices: Voices, limits: Limits, key: bytes, place: socket.socket) -> None:
    try:
        await voices.speaker(voices.entry(voices.default))
    except RefusalError as error:
        raise UserError(str(error)) from error
    log.info("listening on http://%s:%d", *place.getsockname()[:2])
    config = uvicorn.Config(
        make_application(voices, limits, key), log_level="warning", access_log=False,
        timeout_graceful_shutdown=LAST_REQUESTS,
    )  # fmt: skip
    try:
        await uvicorn.Server(config).serve([place])
    finally:
        voices.close()


def load(entry: Entry, device: Device, amp: str) -> Speaker:
    """A voice that has spoken its first sentence, which takes longer than those after it."""
    synthesizer = Synthesizer(entry.tacotron2, device, amp)
    vocoder = Vocoder(entry.waveglow, device, amp)
    check_same_audio(synthesizer.config, synthesizer.path, vocoder.config, entry.waveglow)
    for spoken in synthesizer.speak([WARM_UP], tries=1):
        vocoder.synthesize(spoken.utterance.mel)
    return Speaker(synthesizer, vocoder)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--voice", metavar="NAME", help=f"the folder of voices/ for requests that name none (default: {DEFAULT})")
    add("--tacotron2", metavar="FILE", help="checkpoint of Tacotron2, of any form")
    add("--waveglow", metavar="FILE", help="that of WaveGlow")
    add("--host", default="127.0.0.1", help="0.0.0.0 is reached from other machines (default: %(default)s)")
    add("--port", type=int, default=8000, help="default: %(default)s")
    add("--api_key_file", metavar="FILE", help="holds the key that clients must send (default: none is needed)")
    add(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes, each with its models and, if any, a card",
    )
    add("--memory", type=float, default=4.0, metavar="GIB", help="for the voices of a process (default: %(default)g)")
    add(
        "--queue",
        type=int,
        default=Limits.speeches,
        metavar="N",
        help="texts at once, of a process (default: %(default)s)",
    )
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    add("--amp", choices=["O0", "O1", "O2"], help="precision (default: O1 on CPUs with bfloat16, else the device's)")
    add("--log_text", action="store_true", help="name sentences that went wrong in the log")
    args = parser.parse_args()
    if bool(args.tacotron2) != bool(args.waveglow):
        parser.error("--tacotron2 and --waveglow go together")
    if not 0 < args.port < 65536 or min(args.queue, args.workers) < 1 or not args.memory > 0:
        parser.error("--port must be 1 to 65535, --queue and --workers at least 1, and --memory above 0")
    if args.voice and args.tacotron2:
        parser.error("--voice and --tacotron2 exclude each other: a voice has its own")
    return args


def fastest_level(device: Device) -> str:
    """O1 on a CPU that computes in bfloat16; else empty, which is the device's own."""
    flags = Path("/proc/cpuinfo")
    bfloat16 = flags.is_file() and {"amx_bf16", "avx512_bf16"} & set(flags.read_text().split())
    return "O1" if device.type == "cpu" and bfloat16 else ""


if __name__ == "__main__":
    program.run(main)
