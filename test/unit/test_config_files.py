"""How values become a configuration: their types, keys that are not known or missing, files beside it."""

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import pytest

from common.config_fields import check_type, choices, flattened
from common.config_reading import LARGEST_FILE, config_of_checkpoint, from_dict, load_config, read_json
from common.program import UserError
from conftest import write_config


@dataclass
class Inner:
    needed: int
    depth: float = 0.5


@dataclass
class Outer:
    name: str
    inner: Inner
    numbers: list = field(default_factory=list)
    mode: Literal["", "slow", "fast"] = ""
    either: str | float = "dynamic"


GOOD = {"name": "a", "inner": {"needed": 3}}


@pytest.mark.parametrize(
    ("hint", "allowed", "refused", "said"),
    [
        (int, (0, -3, 10**30), (True, False, 1.0, "1", None, [1]), "must be int"),
        (float, (0.5, 3, float("inf")), (True, "0.5", None), "must be float"),
        (bool, (True, False), (0, 1, "true", None), "must be bool"),
        (str, ("", "a"), (1, True, None, ["a"]), "must be str"),
        (list, ([], [1, "a"]), ("a", (1,), {}, None), "must be list"),
        (str | float, ("dynamic", 0.5, 3), (True, None, []), "must be str or float"),
        (list | str, ("a", ["a"]), (1, True, None), "must be list or str"),
        (Literal["", "O0", "O1"], ("", "O0", "O1"), ("O2", 0, None, np.array(["O0", "x"]), {}), "must be O0 or O1$"),
        (Literal["stop", "skip"], ("stop", "skip"), ("", "st", True), "must be stop or skip$"),
    ],
)
def test_a_value_is_of_the_type_of_its_field(hint, allowed, refused, said):
    """A whole number is a fraction, too; true and false are no numbers."""
    for value in allowed:
        check_type("a.b", value, hint)
    for value in refused:
        with pytest.raises(UserError, match=rf"^a\.b is .*, {said}"):
            check_type("a.b", value, hint)


def test_what_a_field_may_be():
    assert choices(Literal["", "a"]) == ("", "a")
    assert choices(str) is choices(str | float) is choices(list) is None


def test_values_of_sections_have_the_names_of_their_sections():
    values = {"a": 1, "b": {"c": 2, "d": {"e": [3], "f": {}}}, "g": {}}
    assert flattened(values) == {"a": 1, "b.c": 2, "b.d.e": [3]}
    assert flattened(values, "x.")["x.b.d.e"] == [3]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], r"^the config must be an object \{...\}, not \[\]$"),
        ({**GOOD, "inner": 3}, r"^inner must be an object \{...\}, not 3$"),
        ({}, "^the config lacks name, inner$"),
        ({"name": "a"}, "^the config lacks inner$"),
        ({"name": "a", "inner": {}}, "^inner lacks needed$"),
        ({**GOOD, "nmae": 1}, "^the config has the unknown key 'nmae', perhaps 'name'[?]$"),
        ({**GOOD, "x": 1}, "^the config has the unknown key 'x'; known are name, inner, numbers, mode, either$"),
        ({**GOOD, 3: 1}, "^the config has the unknown key 3; known are"),
        ({**GOOD, "inner": {"needed": 3, "deep": 1}}, "^inner has the unknown key 'deep', perhaps 'depth'[?]$"),
        ({**GOOD, "inner": {"needed": 3.5}}, "^inner.needed is 3.5, must be int$"),
        ({**GOOD, "numbers": 3}, "^numbers is 3, must be list$"),
    ],
)
def test_what_is_wrong_with_values_is_said_with_the_place(tmp_path, values, said):
    with pytest.raises(UserError, match=said):
        from_dict(Outer, values)
    if all(isinstance(key, str) for key in values):
        path = write_config(tmp_path / "c.json", values)
        with pytest.raises(UserError) as error:
            load_config(path, Outer)
        assert str(error.value).startswith(f"{path}: ")


def test_what_is_not_given_is_the_default():
    assert asdict(from_dict(Outer, GOOD)) == {
        "name": "a", "inner": {"needed": 3, "depth": 0.5}, "numbers": [], "mode": "", "either": "dynamic"
    }  # fmt: skip
    given = {"name": "b", "inner": {"needed": 4, "depth": 2}, "numbers": [1], "mode": "fast", "either": 0.5}
    assert asdict(from_dict(Outer, given)) == given


def test_a_checkpoint_may_know_more_than_we_do(caplog):
    """All of it is said, with its place; other mistakes are refused with the file's name."""
    more = {**GOOD, "mood": 1, "inner": {"needed": 3, "moods": [1]}, "x": {}}
    config = config_of_checkpoint("a.pt", Outer, more)
    assert config == from_dict(Outer, GOOD)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"a.pt: {place} is not known here and ignored; is it from a newer version?")
        for place in ("inner: 'moods'", "the config: 'mood'", "the config: 'x'")
    ]
    for values, said in (({**GOOD, "name": 1}, "name is 1, must be str"), ({"x": 1}, "the config lacks name, inner")):
        with pytest.raises(UserError, match=f"^a.pt: {said}$"):
            config_of_checkpoint("a.pt", Outer, values)


@pytest.mark.parametrize(("bytes_", "is_taken"), [(LARGEST_FILE, True), (LARGEST_FILE + 1, False)])
def test_a_file_of_a_mebibyte_is_read(tmp_path, bytes_, is_taken):
    path = tmp_path / "c.json"
    path.write_text("{}" + " " * (bytes_ - 2))
    assert path.stat().st_size == bytes_ and LARGEST_FILE == 2**20
    if is_taken:
        assert read_json(path) == {}
    else:
        with pytest.raises(UserError, match=f"^{path} is no configuration: it has more than 1048576 bytes$"):
            read_json(path)


def test_files_that_are_beside_the_configuration_are_found_from_anywhere(tmp_path, monkeypatch):
    """Those of the data; what is not there, or is a folder, stays as it stands."""
    folder = tmp_path / "configs"
    (folder / "sub").mkdir(parents=True)
    for name in ("symbols.txt", "train.txt", "val.txt", "sub/more.txt"):
        (folder / name).write_text("")
    monkeypatch.chdir(tmp_path)

    def read(**data):
        (folder / "c.json").write_text(
            json.dumps({"data_config": data, "train_config": {"checkpoint_path": "val.txt"}})
        )
        values = read_json("configs/c.json")
        assert values["train_config"] == {"checkpoint_path": "val.txt"}
        return values["data_config"]

    for name in ("symbols", "training_files", "validation_files"):
        for file in ("train.txt", "sub/more.txt"):
            assert read(**{name: file, "dictionary": file}) == {name: f"configs/{file}", "dictionary": file}
        for other in ("", "sub", "none.txt", "../none.txt", ["train.txt"], None, 3):
            assert read(**{name: other}) == {name: other}
        assert read(**{name: f"{folder}/train.txt"}) == {name: f"{folder}/train.txt"}
    for values in ([], 3, {"data_config": ["train.txt"]}, {"training_files": "train.txt"}):
        (folder / "c.json").write_text(json.dumps(values))
        assert read_json(folder / "c.json") == values
