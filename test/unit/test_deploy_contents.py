"""What a folder of engines says of itself is read as it was written, or refused."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tacotron2.config
import waveglow.config
from common.program import UserError
from tools.deploy.artifacts import CONTENTS, UNFINISHED, Contents, File, Source, as_json, read_contents, renewed

WHOLE = Contents(
    "onnxruntime",
    {"tacotron2": Source("a", "1" * 64), "waveglow": Source("b")},
    tacotron2.config.Config(),
    waveglow.config.Config(),
    opset=18,
    sigma=0.6,
    files={"encoder": File("encoder.onnx", 5, "2" * 64)},
    quant_mode="force_float16",
    made_of={"encoder": "3" * 64},
    ranges={"batch": [1, 2, 4]},
    options={"decoder": "decoder", "threads": 2},
    cost={"waveglow": 0.125},
)
JSON = as_json(WHOLE).encode()


def read(folder, content: bytes) -> Contents:
    (folder / CONTENTS).write_bytes(content)
    return read_contents(folder, "onnxruntime", "build it")


def test_contents_are_read_as_they_were_written(tmp_path):
    assert read(tmp_path, JSON) == WHOLE


def test_the_order_of_fields_says_nothing(tmp_path):
    """As another program may write them."""
    assert read(tmp_path, json.dumps(json.loads(JSON), sort_keys=True).encode()) == WHOLE


def test_contents_say_what_the_models_are_and_nothing_of_their_training():
    for kind in ("tacotron2", "waveglow"):
        assert list(json.loads(JSON)[kind]) == [f"{kind}_config", "data_config"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bits=st.sets(st.integers(0, 8 * len(JSON) - 1), min_size=1, max_size=2))
def test_flipped_bits_are_found(tmp_path_factory, bits):
    """A size, a symbol or the noise's scale would be another one without a word."""
    content = bytearray(JSON)
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    try:
        assert read(tmp_path_factory.mktemp("flipped"), bytes(content)) == WHOLE  # a blank, say
    except UserError as error:
        assert CONTENTS in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("sigma", [0.7, math.nextafter(0.6, 1)])
def test_a_changed_number_is_said(tmp_path, sigma):
    with pytest.raises(UserError, match="damaged, or was changed by hand"):
        read(tmp_path, JSON.replace(b'"sigma": 0.6', f'"sigma": {sigma}'.encode()))


def test_what_is_there_stays_until_all_of_the_new_is(tmp_path):
    old = {name: name.encode() for name in ("a.onnx", "b.onnx", CONTENTS, "mine.txt")}
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / UNFINISHED).mkdir()  # of a run that was killed
    (tmp_path / UNFINISHED / "c.onnx").write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt), renewed(tmp_path) as new:
        (new / "a.onnx").write_bytes(b"new")
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
    with renewed(tmp_path) as new:
        for name in ("a.onnx", CONTENTS):
            (new / name).write_bytes(b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old | {"a.onnx": b"new", CONTENTS: b"new"}


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path):
    (tmp_path / "encoder.onnx/x").mkdir(parents=True)
    with (
        pytest.raises(UserError, match=f"cannot write {tmp_path}/encoder.onnx: Is a directory"),
        renewed(tmp_path) as new,
    ):
        (new / "encoder.onnx").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]


def test_without_its_contents_last_a_folder_is_not_used(tmp_path, monkeypatch):
    """Killed while the new files take their places."""
    for name in ("a.onnx", CONTENTS):
        (tmp_path / name).write_bytes(JSON)
    moved = []
    monkeypatch.setattr("os.replace", lambda path, target: moved.append((path.name, (tmp_path / CONTENTS).exists())))
    with renewed(tmp_path) as new:
        for name in (CONTENTS, "a.onnx", "z.onnx"):
            (new / name).write_bytes(b"new")
    assert sorted(moved[:2]) == [("a.onnx", False), ("z.onnx", False)]
    assert moved[2:] == [(CONTENTS, False)]


def test_sizes_are_taken_from_the_smallest_to_the_largest():
    for size in (1, 2, 4):
        WHOLE.check_range("batch", size, "--bs")
    for size in (0, 5):
        with pytest.raises(UserError, match=f"--bs is {size}, and these engines are built for 1 to 4"):
            WHOLE.check_range("batch", size, "--bs")


def test_a_file_is_the_one_that_was_written_or_refused(tmp_path):
    contents = Contents("onnx", {}, tacotron2.config.Config(), waveglow.config.Config(), opset=18, sigma=0.6)
    file = tmp_path / "a.onnx"
    file.write_bytes(b"12345")
    contents.add(tmp_path, "encoder", file.name)
    assert contents.path(tmp_path, "encoder") == file
    for content, says in (
        (b"1234", "truncated, 4 bytes instead of 5"),
        (b"1234\0", "is not what"),
        (b"123456", "is not"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=says):
            contents.path(tmp_path, "encoder")
    file.unlink()
    with pytest.raises(UserError, match="is missing"):
        contents.path(tmp_path, "encoder")
    with pytest.raises(UserError, match="has no decoder: it holds encoder"):
        contents.path(tmp_path, "decoder")


@pytest.mark.parametrize("form", [3, 5, None, "4"])
def test_contents_of_another_version_are_refused(tmp_path, form):
    assert b'{\n  "form": 4,' in JSON
    with pytest.raises(UserError, match="of another version of this repository"):
        read(tmp_path, JSON.replace(b'"form": 4', f'"form": {json.dumps(form)}'.encode()))


@pytest.mark.parametrize("damaged", [b'{"engine": "onnxruntime"', b"[]", b'{"engine": "onnxruntime"}'])
def test_damaged_contents_are_said(tmp_path, damaged):
    with pytest.raises(UserError, match=r"contents\.json cannot be used .*: build it"):
        read(tmp_path, damaged)


def test_a_folder_that_is_not_there_has_nothing_for_an_engine(tmp_path):
    with pytest.raises(UserError, match=r"nothing for torch in .*nowhere: build it"):
        read_contents(tmp_path / "nowhere", "torch", "build it")


def test_contents_of_another_engine_are_refused(tmp_path):
    (tmp_path / CONTENTS).write_bytes(JSON)
    for engine in ("torch", "onnx"):
        with pytest.raises(UserError, match=f"is for onnxruntime, not for {engine}: build it"):
            read_contents(tmp_path, engine, "build it")
