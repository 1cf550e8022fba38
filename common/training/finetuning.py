"""The weights that a training begins with: those of a checkpoint, which may know another alphabet."""

import difflib
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from common.checkpoints.interchange import AUDIO, NOT_IN_SHAPES, Checkpoint, Weights, fitted
from common.config import BaseConfig
from common.config_fields import flattened
from common.config_reading import config_of_checkpoint
from common.program import UserError, shown

log = logging.getLogger(__name__)

EMBEDDING = "embedding.weight"
"Its rows are symbols."
SHOWN = 20
"Symbols in a line of the log."


class Start(NamedTuple):
    """What to begin with."""

    weights: Weights
    "For ``model.load_state_dict``."
    anew: bool
    "Whether the checkpoint's optimizer and its iterations mean nothing to this training."


def starting_weights(
    path: str | Path, origin: Checkpoint, config: BaseConfig, model: nn.Module, fresh: Weights
) -> Start:
    """The checkpoint's weights; what it lacks is taken from the model's own ``fresh`` ones.

    The rows of the embedding go by their symbols: those that both alphabets have are the checkpoint's. The layers of
    ``ignore_layers`` stay fresh. UserError for another model, other audio, an alphabet that is not known, or a layer
    that does not exist.
    """
    before = config_of_checkpoint(path, type(config), origin.config)
    ignored = find_layers(config.train_config.ignore_layers, fresh)
    # The sizes of what stays fresh are free. Those of the other layers are then compared as shapes.
    sizes = asdict(config)[f"{origin.kind}_config"] if ignored else {}
    free = {*NOT_IN_SHAPES, "n_symbols", *origin.guessed, *sizes}
    check_same_model(path, origin.config, asdict(config), origin.kind, free)
    left_out = {without_norm(name) for name in ignored}
    weights = {name: tensor for name, tensor in origin.weights.items() if name not in left_out}
    weights |= {name: fresh[name].cpu() for name in ignored}
    if ignored:
        log.info("left fresh: %s, %d weights", ", ".join(config.train_config.ignore_layers), len(ignored))
    old, new = (getattr(each.data_config, "symbols", []) for each in (before, config))
    has_rows = EMBEDDING in weights and EMBEDDING not in ignored
    if has_rows and len(old) != len(weights[EMBEDDING]):
        raise UserError(
            f"{path} has {len(weights[EMBEDDING])} symbols and does not list them: --ignore_layers={EMBEDDING} learns"
            " them anew; to keep them, list them: python tools/convert_checkpoint.py IN OUT --to native --symbols=FILE"
        )
    other_alphabet = has_rows and old != new
    if other_alphabet and weights[EMBEDDING].shape[1] == fresh[EMBEDDING].shape[1]:
        weights[EMBEDDING] = rows_by_symbol(weights[EMBEDDING], old, fresh[EMBEDDING].cpu(), new)
    return Start(fitted(path, weights, model), anew=other_alphabet or bool(ignored))


def rows_by_symbol(weight: Tensor, old: Sequence[str], fresh: Tensor, new: Sequence[str]) -> Tensor:
    """An embedding [symbols, C] of the old alphabet turned into one of the new; what becomes of them is logged."""
    places = {symbol: i for i, symbol in enumerate(old)}
    rows = fresh.clone()
    for i, symbol in enumerate(new):
        if symbol in places:
            rows[i] = weight[places[symbol]]
    drawn = [symbol for symbol in new if symbol not in places]
    listed = ": " + " ".join(drawn[:SHOWN]) + " ..." * (len(drawn) > SHOWN) if drawn else ""
    log.info(
        "another alphabet: %d of %d symbols keep their rows of the embedding, %d of the checkpoint's are left out,"
        " %d rows are drawn anew%s",
        len(new) - len(drawn), len(new), len(set(old) - set(new)), len(drawn), listed,
    )  # fmt: skip
    return rows


def find_layers(layers: Sequence[str], fresh: Weights) -> list[str]:
    """The names of the weights of these layers, each named as a module or a weight. UserError for what is neither."""
    found: list[str] = []
    for layer in layers:
        own = [name for name in fresh if layer in (name, without_norm(name)) or name.startswith(f"{layer}.")]
        if not own:
            modules = {name[:end] for name in fresh for end in [*(m.start() for m in re.finditer(r"\.", name)), None]}
            near = difflib.get_close_matches(layer, modules, n=1)
            known = f"perhaps {near[0]}" if near else f"there are {', '.join(sorted({n.split('.')[0] for n in fresh}))}"
            raise UserError(f"ignore_layers: there is no layer {shown(layer)}, {known}")
        found += own
    return list(dict.fromkeys(found))


def without_norm(name: str) -> str:
    """The name of the weight that weight norm makes from two."""
    return re.sub(r"(?<=\.weight)_[gv]$", "", name)


def check_same_model(path: str | Path, saved: dict, current: dict, kind: str, may_change: Collection[str] = ()) -> None:
    """UserError that names the field, if the checkpoint is of another model or other audio.

    What a checkpoint of another form does not tell is not compared.
    """
    for section, names in ((f"{kind}_config", current[f"{kind}_config"]), ("data_config", AUDIO)):
        ours, theirs = (flattened(config.get(section, {})) for config in (current, saved))
        for name in ours.keys() & theirs.keys():
            if name.split(".")[0] in names and name not in may_change and ours[name] != theirs[name]:
                raise UserError(
                    f"{path} was trained with {section}.{name} = {shown(theirs[name])},"
                    f" the config says {shown(ours[name])}"
                )
