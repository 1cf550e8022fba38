"""What the emulated card refuses: a table, with the cards and the CANN versions each row holds for, and its source.

Only rows about the emulated card hold, see ``NPU_EMULATOR_CARD`` and ``NPU_EMULATOR_CANN``. What is refused is an
error, also where the real torch_npu would compute on the host: as with ``TORCH_NPU_FALLBACK_CPU_DISABLE=1``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ANY, FIRST, NEWER = ".*", r"Ascend910(?!B\d|C|_9)", r"Ascend(910B\d|910C|910_9|950)"
"Cards by name: all, the first generation (910A, 910ProB, 910B without a digit), A2, A3 and later."
OPERATORS = Path(__file__).parents[1] / "operators.txt"


@dataclass(frozen=True)
class Row:
    """A limit."""

    cards: str
    "A regular expression of their names."
    before: tuple[int, int]
    "It holds for CANN before this version; (99, 0): for all there are."
    source: str
    names: frozenset[str] = frozenset()
    "Operators refused whatever they are given."
    convolution: tuple[str, int] | None = None
    "What of a convolution may have at most which size."


ALWAYS = (99, 0)
ACLNN_CONVOLUTION = "github.com/hicann/ops-nn, conv/convolution_forward/docs/aclnnConvolution.md, constraints"
OP_PLUGIN = "github.com/Ascend/op-plugin, op_plugin/config/op_plugin_functions.yaml has none, see operators.txt"
ROWS = {
    "1-D convolutions, with CANN before 8": Row(
        ANY, (8, 0), "the Ascend port, which replaces them on CANN 5.0.3; what lies between is treated alike",
        frozenset({"conv1d", "conv1d_backward", "conv_transpose1d", "conv_transpose1d_backward"}),
    ),
    "1-D convolutions, on first-generation cards": Row(
        FIRST, ALWAYS, "aclnnConvolution.md, products: not on Atlas training products; and the Ascend port",
        frozenset({"conv1d", "conv1d_backward", "conv_transpose1d", "conv_transpose1d_backward"}),
    ),
    "im2col and its like": Row(
        ANY, (8, 3), "the Ascend port, whose unfold ran on the host; CANN 8.3 has the gradient on A2 and A3",
        frozenset({"unfold", "unfold_backward", "im2col", "col2im"}),
    ),
    "log-determinants": Row(
        ANY, ALWAYS, OP_PLUGIN, frozenset({
            "_linalg_slogdet", "_linalg_det", "linalg_lu", "linalg_lu_factor_ex", "linalg_lu_solve", "lu_unpack",
        }),
    ),
    "inverses by torch.linalg": Row(ANY, ALWAYS, OP_PLUGIN, frozenset({"linalg_inv_ex"})),
    "transposed kernels": Row(ANY, ALWAYS, ACLNN_CONVOLUTION, convolution=("transposed kernel", 255)),
    "transposed dilation": Row(ANY, ALWAYS, ACLNN_CONVOLUTION, convolution=("transposed dilation", 255)),
    "padding": Row(ANY, ALWAYS, ACLNN_CONVOLUTION, convolution=("padding", 255)),
    "dimensions": Row(ANY, ALWAYS, ACLNN_CONVOLUTION, convolution=("dimension", 1_000_000)),
}  # fmt: skip
"""Without rows of their own, since all cards and versions have them:

- Operators that torch_npu has no kernel for: all that operators.txt does not name for the CANN.
- float64 and complex numbers in any operator: by aclnnConvolution.md and aclnnMatmul.md products do not take them. Some
  others do, on the card's own CPU, so here the emulated card is stricter than a real one.
- Gradients that share a storage, in NpuFusedAdam: torch_npu/utils/combine_tensors.py of its wheels, see optim.py.
"""
STAND_INS = {"_weight_norm_interface": "_weight_norm", "_weight_norm_interface_backward": "_weight_norm"}
"Operators that PyTorch's own function of the second name calls, in the place of which torch_npu has one of its own."


def holding(card: str, cann: tuple[int, int]) -> list[Row]:
    """The rows about a card with a CANN."""
    return [row for row in ROWS.values() if re.match(row.cards, card) and cann < row.before]


def with_kernel(cann: tuple[int, int]) -> set[str]:
    """The operators that the card computes itself."""
    names: set[str] = set()
    for part in OPERATORS.read_text().split("[CANN ")[1:]:
        version, _, text = part.partition("]")
        if version_of(version) <= cann:
            names.update(text.split())
    return names | {stand_in for stand_in, real in STAND_INS.items() if real in names}


def version_of(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
