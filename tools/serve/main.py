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

from common import program
from common.config import AMP_LEVELS
from common.device import device_count, pick_device
from common.hints import add_hint_options
from common.log import open_log
from common.program import UserError
from common.voices import DEFAULT
from tools.deploy.options import add_models_dir, add_quant_mode
from tools.serve.application import make_application
from tools.serve.errors import RefusalError
from tools.serve.limits import Limits, read_key
from tools.serve.loading import MEMORY, Decoding, find_voices, make_engines, voices_on
from tools.serve.server import make_server
from tools.serve.voices import Entry, Voices
from tools.serve.workers import run_workers
from tools.sound import hints_for_both

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


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    key = read_key(args.api_key_file)
    entries = find_voices(args.voice or "", args.tacotron2 or "", args.waveglow or "", hints_for_both(args))
    decoding = Decoding(args.engine, args.quant_mode, args.models_dir)
    if decoding.engine != "torch":
        make_engines(entries, decoding)
    place = open_port(args.host, args.port)
    if args.workers == 1:
        serve(0, place, args, key, entries, decoding)
    else:
        work = partial(serve, args=args, key=key, entries=entries, decoding=decoding)
        run_workers(args.workers, place, work, LAST_REQUESTS + 10)


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens; UserError if it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        place = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise UserError(f"cannot listen on {host}:{port} ({why}): choose another --host or --port") from error
    return place


def serve(
    index: int, place: socket.socket, args: argparse.Namespace, key: bytes, entries: list[Entry], decoding: Decoding
) -> None:
    """One process: all voices on one device, until SIGTERM or SIGINT."""
    if parent_process():  # a worker
        open_log(None, quiet=False)
    # While the models are loaded; and when all is done, since uvicorn then raises the signal that ended it again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not args.log_text:  # it names sentences that went wrong
        logging.getLogger("tacotron2.synthesizer").setLevel(logging.ERROR)
    device = pick_device(args.device)
    if device.type != "cpu":
        device = pick_device(device.type, index % int(device_count(device.type)))
    threads = len(os.sched_getaffinity(0)) // args.workers
    voices = voices_on(device, entries, threads, args.amp or "", args.memory, decoding)
    asyncio.run(answer(voices, Limits(speeches=args.queue), key, place))


async def answer(voices: Voices, limits: Limits, key: bytes, place: socket.socket) -> None:
    try:
        await voices.speaker(voices.entry(voices.default))
    except RefusalError as error:
        raise UserError(str(error)) from error
    log.info("listening on http://%s:%d", *place.getsockname()[:2])
    server = make_server(make_application(voices, limits, key), LAST_REQUESTS)
    try:
        await server.serve([place])
    finally:
        voices.close()


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--voice", metavar="NAME", help=f"the folder of voices/ for requests that name none (default: {DEFAULT})")
    add("--tacotron2", metavar="FILE", help="checkpoint of Tacotron2, of any form")
    add("--waveglow", metavar="FILE", help="that of WaveGlow")
    add("--host", default="127.0.0.1", help="0.0.0.0 is reached from other machines (default: %(default)s)")
    add("--port", type=int, default=8000, help="default: %(default)s")
    add("--api_key_file", metavar="FILE", help="holds the key that clients must send (default: none is needed)")
    add("--workers", type=int, default=1, metavar="N", help="processes, each with its models and its card")
    add("--memory", type=float, default=MEMORY, metavar="GIB", help="for a process's voices (default: %(default)g)")
    add("--queue", type=int, default=Limits.speeches, metavar="N", help="texts at once (default: %(default)s)")
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    add("--amp", choices=AMP_LEVELS, help="precision (default: O1 on CPUs with bfloat16, else the device's)")
    what = "what runs Tacotron2 (default: %(default)s); onnxruntime is faster on CPUs, the first start takes minutes"
    add("--engine", default="torch", choices=["torch", "onnxruntime"], help=what)
    add_quant_mode(parser, "force_float32")
    add_models_dir(parser)
    add_hint_options(parser, speech=True)
    add("--log_text", action="store_true", help="name sentences that went wrong in the log")
    args = parser.parse_args()
    if bool(args.tacotron2) != bool(args.waveglow):
        parser.error("--tacotron2 and --waveglow go together")
    if not 0 < args.port < 65536 or min(args.queue, args.workers) < 1 or not args.memory > 0:
        parser.error("--port must be 1 to 65535, --queue and --workers at least 1, and --memory above 0")
    if args.voice and args.tacotron2:
        parser.error("--voice and --tacotron2 exclude each other: a voice has its own")
    return args


if __name__ == "__main__":
    program.run(main)
