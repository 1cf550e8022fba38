"""What a field of a configuration says about itself: its type, its explanation, whether it may change on resume."""

import ast
import inspect
import itertools
import types
import typing
from typing import Annotated, Any, Literal, TypeVar

from common.program import UserError, shown

Value = TypeVar("Value")
MayChange = Annotated[Value, "may change"]
"Type of a field that may differ from the checkpoint's when a run is resumed. All others must be equal."


def may_change(kind: type) -> set[str]:
    """Names of the dataclass's fields of type ``MayChange``."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name for name, hint in hints.items() if getattr(hint, "__metadata__", ()) == MayChange.__metadata__}


def explanations(kind: type) -> dict[str, str]:
    """The string under each field of the dataclass and of those that it extends, by the field's name."""
    found = {}
    for part in reversed(kind.__mro__[:-1]):
        lines = ast.parse(inspect.getsource(part)).body[0].body  # type: ignore[attr-defined]  # a class has a body
        for field, text in itertools.pairwise(lines):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def choices(hint: Any) -> tuple | None:
    """The values that a Literal allows; None for another type."""
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else None


def flattened(section: dict, prefix: str = "") -> dict[str, Any]:
    """``{"WN_config": {"n_layers": 8}}`` -> ``{"WN_config.n_layers": 8}``."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def check_type(name: str, value: Any, hint: Any) -> None:
    """UserError unless the value is of the field's type."""
    if allowed := choices(hint):
        fits = isinstance(value, str) and value in allowed
    else:
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        allowed = tuple(kind.__name__ for kind in kinds)
        # bool is an int to Python, but `"epochs": true` is a mistake.
        fits = (
            bool in kinds
            if isinstance(value, bool)
            else isinstance(value, kinds) or (float in kinds and isinstance(value, int))
        )
    if not fits:
        raise UserError(f"{name} is {shown(value)}, must be {' or '.join(filter(None, allowed))}")
