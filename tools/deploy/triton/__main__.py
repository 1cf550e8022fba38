"""Write a model repository for NVIDIA's Triton: python -m tools.deploy.triton --help"""

import argparse
from pathlib import Path

from common import program
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.log import open_log
from tools.deploy.artifacts import ONNX, read_exported
from tools.deploy.options import LARGEST_BATCH, add_models_dir

BACKENDS = ("onnxruntime", "python")

DESCRIPTION = """\
Write a model repository for NVIDIA's Triton Inference Server of the graphs that export_model/run.sh has made.

encoder, decoder (the whole loop), postnet and waveglow are batched by Triton. "speech" is what clients ask: ids of
symbols in, audio out. A model of that name calls the others, pads texts and spectrograms so that clips can share a
batch, and draws the random numbers of each clip from its own seed. Models of these names in OUT are replaced."""

EXAMPLES = """\
  python -m tools.deploy.triton -o repository
  tritonserver --model-repository=repository
  python -m tools.deploy.triton -o repository --backend=python   # for a server without ONNX Runtime's backend"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    contents = read_exported(args.models_dir)
    hold_folder(make_output_folder(args.output))
    # Only now PyTorch is loaded, which takes seconds.
    from tools.deploy.triton.repository import write_repository

    write_repository(args.output, args.models_dir / ONNX, contents, args.backend, args.max_batch)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add_models_dir(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", required=True, help="for the repository")
    what = "of the graphs: Triton's onnxruntime, or python with the package onnxruntime (default: %(default)s)"
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help=what)
    what = "clips that share a batch at most, and are spoken at once (default: %(default)s)"
    parser.add_argument("--max_batch", type=int, default=8, metavar="N", help=what)
    args = parser.parse_args()
    if not 1 <= args.max_batch <= LARGEST_BATCH:
        parser.error(f"--max_batch must be 1 to {LARGEST_BATCH}")
    return args


if __name__ == "__main__":
    program.run(main)
