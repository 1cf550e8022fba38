"""What a user adds about a checkpoint that the file itself leaves out, such as its sampling rate or its symbols."""

import argparse
import typing
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from common.config import BaseConfig
from common.config_reading import from_dict, read_json
from common.program import Parser, UserError, shown

Hints = dict[str, dict[str, Any]]
"Sections of a configuration, with those keys that were said."

AUDIO_OPTIONS = {"sampling_rate": "data_config", "hop_length": "data_config"}
SPEECH_OPTIONS = {
    "symbols": "data_config",
    "gate_threshold": "tacotron2_config",
    "max_decoder_steps": "tacotron2_config",
}
"Option -> section of its key."
NAME_SYMBOLS = (
    "name them with --symbols=FILE, a symbol on each line in the order of their ids, or with --config=FILE that has"
    " data_config.symbols"
)


def add_hint_options(parser: Parser, speech: bool) -> None:
    """``--config`` and single keys of it; ``speech``: also those of Tacotron2."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="JSON like the training's, for what a checkpoint does not say")
    add("--sampling_rate", type=int, metavar="HZ", help="for a checkpoint that does not say it")
    add("--hop_length", type=int, metavar="N", help="samples per mel frame, for a checkpoint that does not say it")
    if speech:
        add("--symbols", metavar="FILE", help="a symbol on each line, for a checkpoint that does not list them")
        add("--gate_threshold", type=float, metavar="X", help="speech ends when the gate's probability is above this")
        add("--max_decoder_steps", type=int, metavar="N", help="steps after which speech is cut")


def read_hints(args: argparse.Namespace, kinds: Sequence[type[BaseConfig]]) -> Hints:
    """What the options of ``add_hint_options`` say, for models that have configurations of these kinds.

    UserError as ``load_config``; a key must be known to one of the kinds.
    """
    path = getattr(args, "config", None)
    values = read_json(path) if path else {}
    try:
        hints = _checked(values, kinds)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    options: Hints = {}
    for name, section in (AUDIO_OPTIONS | SPEECH_OPTIONS).items():
        if getattr(args, name, None) is not None:
            options.setdefault(section, {})[name] = getattr(args, name)
    for section, given in _checked(options, kinds).items():
        hints[section] = hints.get(section, {}) | given
    return hints


def for_kind(hints: Hints, kind: type[BaseConfig]) -> Hints:
    """The hints that concern a model of this kind."""
    sections = typing.get_type_hints(kind)
    return {
        section: {key: value for key, value in given.items() if key in typing.get_type_hints(sections[section])}
        for section, given in hints.items()
        if section in sections
    }


def _checked(values: Any, kinds: Sequence[type[BaseConfig]]) -> Hints:
    """The values, each as its configuration keeps it."""
    if not isinstance(values, dict) or not all(isinstance(section, dict) for section in values.values()):
        raise UserError(f"must be an object of sections {{...}}, not {shown(values)}")
    hints: Hints = {}
    for kind in kinds:
        given = for_kind(values, kind)
        kept = asdict(from_dict(kind, given))
        for section, keys in given.items():
            hints.setdefault(section, {}).update(_only(keys, kept[section]))
    for section, keys in values.items():
        owner = next((kind for kind in kinds if section in typing.get_type_hints(kind)), kinds[0])
        unknown = {key: value for key, value in keys.items() if key not in hints.get(section, {})}
        if unknown or section not in hints:
            from_dict(owner, {section: unknown})  # names what it does not know
    return hints


def _only(given: dict, kept: dict) -> dict:
    """The part of ``kept`` that was given."""
    return {key: _only(value, kept[key]) if isinstance(value, dict) else kept[key] for key, value in given.items()}
