"""Checkpoints with flipped bits, or torn: no other weights are taken than those that were saved."""

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_settings import FEW

from common.checkpoints import native
from common.checkpoints.interchange import read
from common.program import UserError
from runs import make_run, start

pytest_plugins = ["hostile"]


@cache
def whole(path) -> bytes:
    return path.read_bytes()


def flatten(value):
    """Everything in it that can differ."""
    if isinstance(value, torch.Tensor):
        return [value.dtype, value.shape, value.flatten().tolist()]
    if isinstance(value, dict):
        return [[key, flatten(item)] for key, item in value.items()]
    return [flatten(item) for item in value] if isinstance(value, list | tuple) else [value]


@FEW
@given(data=st.data())
def test_flipped_bits_are_found_or_did_no_harm(trained, data):
    path, damaged = trained / "out/waveglow_2", trained / "damaged"
    content = bytearray(whole(path))
    for bit in data.draw(st.lists(st.integers(0, 8 * len(content) - 1), min_size=8, max_size=8)):
        content[bit // 8] ^= 1 << bit % 8
    damaged.write_bytes(content)
    try:
        state = native.load(damaged)
    except UserError as error:
        assert str(damaged) in str(error) and "\n" not in str(error)
    else:  # names of other members, dates, what fills up to 64 bytes
        assert flatten(state) == flatten(native.load(path))


def test_a_flipped_bit_in_a_weight_is_damage_by_name(trained):
    content = bytearray(whole(trained / "out/waveglow_2"))
    weight = native.load(trained / "out/waveglow_2")["model"]["WN.0.start.weight_v"].numpy().tobytes()
    content[content.index(weight)] ^= 1
    (trained / "damaged").write_bytes(content)
    for reader in (native.load, read):
        with pytest.raises(UserError, match=r"damaged is damaged: Bad CRC-32"):
            reader(trained / "damaged")


@pytest.mark.usefixtures("disk_that_keeps_up")
@pytest.mark.parametrize(
    ("damage", "said"), [("a flipped bit", "is damaged"), ("torn", "is truncated or no checkpoint")]
)
def test_auto_passes_over_a_damaged_checkpoint(config, corpus, tmp_path, caplog, damage, said):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=4, iters_per_checkpoint=2)
    content = bytearray((out / "waveglow_4").read_bytes())
    weight = native.load(out / "waveglow_4")["model"]["WN.0.start.weight_v"].numpy().tobytes()
    content[content.index(weight)] ^= 1
    (out / "waveglow_4").write_bytes(content[:5000] if damage == "torn" else content)
    run = make_run(config[1], out)
    run.start("auto")
    assert run.progress.iteration == 2
    assert "passed over: " in caplog.text and f"waveglow_4 {said}" in caplog.text
