"""Export Tacotron2 and WaveGlow to ONNX: python -m tools.deploy.export_model.export --help"""

import argparse

from common import program
from common.log import open_log
from tools.deploy.checkpoints import find_checkpoints
from tools.deploy.options import add_checkpoint_options, add_models_dir, add_opset, check_checkpoint_options

DESCRIPTION = """\
Export Tacotron2 and WaveGlow to ONNX: encoder, decoder_iter (one frame), decoder (the whole loop), postnet, waveglow.

The graphs go to DIR/onnx, each checked by onnx and compared with its model in ONNX Runtime. The checkpoints are those
that you name, else those that get_datasets_and_models.sh has fetched, else those of the default voice."""

EXAMPLES = """\
  python -m tools.deploy.export_model.export
  python -m tools.deploy.export_model.export --voice heart
  python -m tools.deploy.export_model.export --tacotron2 tacotron2_5000 --waveglow waveglow_21000 --opset 13"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    wanted = find_checkpoints(args)
    # Only now PyTorch is loaded, which takes seconds.
    from tools.deploy.export_model.to_onnx import export_graphs

    export_graphs(args.models_dir, wanted, args.opset)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add_checkpoint_options(parser)
    add_models_dir(parser)
    add_opset(parser)
    args = parser.parse_args()
    check_checkpoint_options(parser, args)
    return args


if __name__ == "__main__":
    program.run(main)
