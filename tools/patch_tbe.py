"""Add WaveGlow's shapes to the white lists of CANN's operators: python tools/patch_tbe.py --help"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import program
from common.files import open_input
from common.program import UserError
from tools.tbe.edits import Edit, addition, commit, restoration
from tools.tbe.find_cann import find_impl
from tools.tbe.lists import FIVE_2_FOUR, FOUR_2_FIVE, PLACES, TRANSPOSE

if TYPE_CHECKING:
    from tools.tbe.lists import Shape

DESCRIPTION = """\
Add WaveGlow's shapes to the white lists of CANN's operators Transpose and TransData, which are slow
on other shapes: all three files or none. This matters where operators are compiled at run time, as on
Ascend 910A; newer CANN needs less of it, which the report says for each file. Python 3.7 without
any package runs it.

exit codes: 0 patched, or restored; of --check: nothing is missing
            3 --check found lists that lack shapes
            4 --apply or --restore had nothing to do
            5 a loss: this CANN lacks some of the lists, and is slower without them (the others are done)
            1 an error, the files are as they were; 2 wrong options"""

LACKING, NOTHING_TO_DO, LOST = 3, 4, 5
"Exit codes."

EXAMPLES = """\
  python tools/patch_tbe.py
  python tools/patch_tbe.py --apply --opp_path=/usr/local/Ascend/ascend-toolkit/5.0.3/arm64-linux/opp
  python tools/patch_tbe.py --apply --config=my.json    (another batch size, segment length, ...)"""

SHIPPED_SHAPES = Path(__file__).resolve().parents[1] / "configs/tbe_whitelist.json"
"Shapes of configs/waveglow.json."


def main() -> None:
    args = parse_args()
    try:
        impl = find_impl(args.opp_path)
        if args.mode == "restore":
            edits = [restoration(impl, name) for name in PLACES]
        else:
            shapes = computed_shapes(args.config) if args.config else read_shapes(SHIPPED_SHAPES)
            edits = [addition(impl, name, shapes[name]) for name in PLACES]
        if args.mode != "check":
            commit(edits)
    except OSError as error:
        raise UserError(f"cannot read or write {error.filename or 'a file'}: {error.strerror}") from error
    lacking = args.mode == "check" and any(edit.added for edit in edits)
    say(f"CANN's operators in {impl}")
    for edit in edits:
        to_do = edit.added and lacking
        say(f"{edit.name}: {f'not patched ({edit.added} lacking)' if to_do else edit.outcome}")
    if lacking:
        say("--apply adds what is missing")
    sys.exit(exit_code(args.mode, lacking, edits))


def say(line: str) -> None:
    """Print a line; a reader that has seen enough, such as head, changes nothing."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends


def exit_code(mode: str, lacking: bool, edits: list[Edit]) -> int:
    """See DESCRIPTION."""
    if lacking:
        return LACKING
    if any(edit.is_loss for edit in edits):
        return LOST
    return 0 if mode == "check" or any(edit.after != edit.before for edit in edits) else NOTHING_TO_DO


def parse_args() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--opp_path", metavar="DIR", help="CANN's opp folder (default: $ASCEND_OPP_PATH, else a search)")
    add("--config", metavar="FILE", help="compute the shapes from this configuration of WaveGlow")
    modes = parser.add_mutually_exclusive_group()
    for mode, description in (
        ("check", "change nothing, say what is missing (default)"),
        ("apply", "add what is missing; each original is kept beside its file"),
        ("restore", "put the originals back"),
    ):
        modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=description)
    parser.set_defaults(mode="check")
    return parser.parse_args()


def read_shapes(path: Path) -> dict[str, list[Shape]]:
    """The shapes to add, for each file. Raises UserError if the file does not have this form."""
    try:
        with open_input(path) as file:
            shapes = json.loads(file.read())
        sizes = [size for name in PLACES for shape in shapes[name] for size in shape]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} has no lists of shapes for {', '.join(PLACES)}: {error!r}") from error
    if not all(type(size) is int and size > 0 for size in sizes):
        raise UserError(f"{path} has a shape that is not of positive whole numbers")
    return shapes


def computed_shapes(path: str) -> dict[str, list[Shape]]:
    """The shapes that Transpose and TransData meet in WaveGlow as this configuration has it."""
    try:
        # Not at the head: they need torch, which root's Python may lack; all else does without.
        from common.config_reading import load_config
        from waveglow.config import Config, WNConfig, build_model
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(f"--config needs the Python environment of training: {error}") from error
    config = load_config(path, Config)
    model, wn = config.waveglow_config, config.waveglow_config.WN_config
    batch, group, mel = config.train_config.batch_size, model.n_group, model.n_mel_channels * model.n_group
    groups = config.data_config.segment_length // group
    small = replace(model, n_mel_channels=1, WN_config=WNConfig(n_layers=1, n_channels=1, kernel_size=1))
    steps = [len(step.conv.weight) for step in build_model(replace(config, waveglow_config=small)).convinv]

    # What convolutions take and give: the channels of a step of the flow and WN's half of them, the
    # mel frames of a group, WN's own channels; and of its merged layers, the half with ones, residual and output.
    sizes = [size for channels in steps for size in (channels, channels // 2)]
    sizes = [*sizes[:2], mel, wn.n_channels, *sizes[2:], 2 * wn.n_channels, 2 * wn.n_channels * wn.n_layers]
    sizes += [size for channels in steps for size in (channels // 2 + 1, wn.n_channels + channels)]
    sizes = list(dict.fromkeys(sizes))
    return {
        TRANSPOSE: [
            *([channels, 1, channels, 1] for channels in dict.fromkeys(steps)),
            [batch, model.n_mel_channels, groups, group],
            [batch, groups, group, 1],
            [batch, groups, mel, 1],
            [batch, model.n_mel_channels, group, groups],
        ],
        FOUR_2_FIVE: [[batch, size, groups, 1] for size in sizes],
        FIVE_2_FOUR: [[batch, size, groups, 1] for size in sorted(sizes)],
    }


if __name__ == "__main__":
    program.run(main)
