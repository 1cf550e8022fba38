"""Speech as a service: bash tools/serve.sh --help"""

import argparse
import logging
import os
from pathlib import Path

import torch
import uvicorn

from common import program
from common.device import Device, keep_freed_memory, pick_device
from common.log import open_log
from common.program import UserError
from common.voices import DEFAULT, Settings, find_voice
from tacotron2.synthesizer import Synthesizer
from tools.serve.application import make_application
from tools.serve.limits import Limits, read_key
from tools.serve.speaker import Speaker
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
    if not args.log_text:  # it names sentences that went wrong
        logging.getLogger("tacotron2.synthesizer").setLevel(logging.ERROR)
    key = read_key(args.api_key_file)
    name, settings = OWN, Settings()
    if not args.tacotron2:
        voice = find_voice(args.voice or "")
        name, settings, args.tacotron2, args.waveglow = voice.name, voice.settings, voice.tacotron2, voice.waveglow
    device = pick_device(args.device)
    keep_freed_memory(device)
    if device.type == "cpu":  # the speaker's two threads compute at the same time
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    amp = args.amp or fastest_level(device)
    synthesizer = Synthesizer(args.tacotron2, device, amp, cleaners=settings.text_cleaners)
    vocoder = Vocoder(args.waveglow, device, amp)
    check_same_audio(synthesizer.config, synthesizer.path, vocoder.config, args.waveglow)
    for spoken in synthesizer.speak([WARM_UP], tries=1):
        vocoder.synthesize(spoken.utterance.mel)
    speaker = Speaker(synthesizer, vocoder)
    app = make_application(speaker, name, settings, Limits(speeches=args.queue), key)
    log.info("listening on http://%s:%d", args.host, args.port)
    config = uvicorn.Config(
        app, args.host, args.port, log_level="warning", access_log=False, timeout_graceful_shutdown=LAST_REQUESTS
    )
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit as error:  # uvicorn has said why
        raise UserError(f"cannot listen on {args.host}:{args.port}: choose another --host or --port") from error
    finally:
        speaker.close()


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--voice", metavar="NAME", help=f"a folder of voices/ (default: {DEFAULT})")
    add("--tacotron2", metavar="FILE", help="checkpoint of Tacotron2, of any form")
    add("--waveglow", metavar="FILE", help="that of WaveGlow")
    add("--host", default="127.0.0.1", help="0.0.0.0 is reached from other machines (default: %(default)s)")
    add("--port", type=int, default=8000, help="default: %(default)s")
    add("--api_key_file", metavar="FILE", help="holds the key that clients must send (default: none is needed)")
    add("--queue", type=int, default=Limits.speeches, metavar="N", help="texts at once (default: %(default)s)")
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    add("--amp", choices=["O0", "O1", "O2"], help="precision (default: O1 on CPUs with bfloat16, else the device's)")
    add("--log_text", action="store_true", help="name sentences that went wrong in the log")
    args = parser.parse_args()
    if bool(args.tacotron2) != bool(args.waveglow):
        parser.error("--tacotron2 and --waveglow go together")
    if not 0 < args.port < 65536 or args.queue < 1:
        parser.error("--port must be 1 to 65535, and --queue at least 1")
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
