"""The shapes to add: shipped, and computed from a configuration."""

import json

import pytest

from common.program import UserError
from conftest import ROOT, write_config
from tbe_files import (
    SHAPES,
    TRANS_DATA,
    TRANSPOSE,
)
from tools import patch_tbe
from tools.tbe.lists import PLACES


def test_shipped_shapes_are_those_of_the_shipped_configuration():
    computed = patch_tbe.computed_shapes(str(ROOT / "configs/waveglow.json"))
    assert computed == SHAPES == patch_tbe.read_shapes(patch_tbe.SHIPPED_SHAPES)
    assert list(computed) == list(PLACES)


def test_shapes_of_another_configuration(tmp_path):
    values = {
        "train_config": {"batch_size": 5},
        "data_config": {"segment_length": 4007},
        "waveglow_config": {
            "n_mel_channels": 20, "n_flows": 5, "n_group": 16, "n_early_every": 2, "n_early_size": 4,
            "WN_config": {"n_layers": 3, "n_channels": 64},
        },
    }  # fmt: skip
    shapes = patch_tbe.computed_shapes(str(write_config(tmp_path / "c.json", values)))
    assert shapes[TRANSPOSE] == [
        [16, 1, 16, 1], [12, 1, 12, 1], [8, 1, 8, 1],
        [5, 20, 250, 16], [5, 250, 16, 1], [5, 250, 320, 1], [5, 20, 16, 250],
    ]  # fmt: skip
    sizes = {16, 12, 8, 6, 4, 320, 64, 128, 384, 9, 7, 5, 80, 76, 72}
    for name in TRANS_DATA:
        assert sorted(shapes[name]) == [[5, size, 250, 1] for size in sorted(sizes)]


def test_impossible_configuration_is_named(tmp_path):
    path = write_config(tmp_path / "c.json", {"waveglow_config": {"n_flows": 40}})
    with pytest.raises(UserError, match="leaves flow 16 no channels"):
        patch_tbe.computed_shapes(str(path))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"four_2_five.py": []}', *(json.dumps(SHAPES | {TRANSPOSE: s}) for s in (3, [3], [[0]]))]
)
def test_bad_file_of_shapes_is_named(tmp_path, text):
    path = tmp_path / "shapes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"shapes\.json"):
        patch_tbe.read_shapes(path)


@pytest.mark.parametrize("sizes", ["0", "-1", "8.0", "true", '"8"', "null", "[8]"])
def test_shapes_are_of_positive_whole_numbers(tmp_path, sizes):
    """Whatever the file holds, nothing else gets into CANN's."""
    shapes = {name: [[24, 8]] for name in PLACES}
    good = json.dumps(shapes)
    (tmp_path / "a.json").write_text(good)
    assert patch_tbe.read_shapes(tmp_path / "a.json") == shapes
    (tmp_path / "a.json").write_text(good[::-1].replace("8", sizes[::-1], 1)[::-1])
    with pytest.raises(UserError, match=r"a\.json has a shape that is not of positive whole numbers"):
        patch_tbe.read_shapes(tmp_path / "a.json")
