"""Configurations with any values: taken, or refused by the name of the field."""

import re
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest
from hostile import ODD
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_settings import FEW

from common.config_fields import explanations
from common.config_reading import from_dict, load_config
from common.program import UserError
from tacotron2.config import Config as Tacotron2Config
from waveglow.config import Config

CONFIG_FIELDS = [
    (section, name) for section in ("train_config", "data_config", "waveglow_config")
    for name in getattr(Config(), section).__dataclass_fields__
]  # fmt: skip


@FEW
@given(field=st.sampled_from(CONFIG_FIELDS), value=ODD | st.sampled_from([10**6, 10**9, 2**64, 1e300]))
def test_a_configuration_is_taken_or_refused_by_name(field, value):
    section, name = field
    try:
        taken = getattr(getattr(from_dict(Config, {section: {name: value}}), section), name)
    except UserError as error:
        assert name in str(error) and len(str(error)) < 500
    else:
        if isinstance(taken, int):
            assert taken <= 2**62


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"train_config": {"seed": ' + "1" * 500_000 + "}}", "is not JSON"),
        ('{"train_config": {"epochs": 1' + "0" * 400 + "}}", "epochs is 1000.*must be at most"),
        (" " * 2**21, "more than 1048576 bytes"),
    ],
)
def test_a_configuration_file_is_read_within_limits(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=said):
        load_config(tmp_path / "a.json", Config)


def numbers(kind, *where):
    """The numbers of a configuration: where each is, its name, its default, and what its explanation says."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from numbers(hint, *where, name)
    for field in fields(kind):
        if type(field.default) in (int, float):
            yield where, field.name, field.default, explanations(kind)[field.name]


def said_of(kind, where, values):
    """What is wrong with these values; empty if nothing is."""
    for section in reversed(where):
        values = {section: values}
    try:
        from_dict(kind, values)
    except UserError as error:
        return str(error)
    return ""


NUMBERS = {kind: list(numbers(kind)) for kind in (Config, Tacotron2Config)}
BOUNDED_BY_OTHERS = ("mel_fmin", "mel_fmax")


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_number_is_taken_up_to_the_limit_that_is_said(kind):
    for where, name, default, _ in NUMBERS[kind]:
        number = type(default)
        for refused in (number(-1), number(10**19 + 1)):
            assert f"{name} is" in said_of(kind, where, {name: refused}) or name in BOUNDED_BY_OTHERS
        most = re.search(r"must be at most (\d+)$", said_of(kind, where, {name: number(10**19 + 1)}))
        if most:
            assert "at most" not in said_of(kind, where, {name: number(int(most[1]))})
            assert f"must be at most {most[1]}" in said_of(kind, where, {name: number(int(most[1]) + 1)})
        else:
            assert name in (*BOUNDED_BY_OTHERS, "learning_rate", "seed") or "below 1" in said_of(kind, where, {name: 1})


@pytest.mark.parametrize("kind", NUMBERS)
def test_zero_is_taken_where_it_means_something(kind):
    """Dropout of nothing, or what the explanation says; other numbers of the default configuration are no zeros."""
    for where, name, default, explanation in NUMBERS[kind]:
        means = "0 = " in explanation or not default or name.startswith("p_") or name in ("seed", "weight_decay")
        assert bool(said_of(kind, where, {name: type(default)(0)})) != means, name


@pytest.mark.parametrize("kind", NUMBERS)
def test_three_times_the_default_is_within_all_limits(kind):
    for where in {where for where, *_ in NUMBERS[kind]}:
        values = {name: 3 * default for there, name, default, _ in NUMBERS[kind]
                  if there == where and name != "gate_threshold" and not name.startswith("p_")}  # fmt: skip
        assert not said_of(kind, where, values)
