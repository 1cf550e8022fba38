"""Checkpoint files by their names and contents: what is written where, found, told apart and refused."""

import json
import os
import time

import pytest
import safetensors.torch
import torch

from common.checkpoints import native, reading
from common.checkpoints.budget import RefusedError
from common.checkpoints.interchange import read
from common.checkpoints.nvidia_names import nvidia_name, nvidia_weights
from common.checkpoints.reading import read_contents
from common.program import UserError


def state(iteration=3):
    return {"model": {"a": torch.arange(3.0)}, "config": {}, "iteration": iteration, "progress": {}}


def test_a_name_that_is_a_link_stays_one_and_what_it_leads_to_is_kept_and_written(tmp_path, monkeypatch, caplog):
    """Where the file is, there its earlier content has a dated name."""
    caplog.set_level("INFO")
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    monkeypatch.setattr(time, "strftime", lambda form: now)
    disk, here = tmp_path / "disk", tmp_path / "here"
    disk.mkdir()
    here.mkdir()
    native.save(disk / "data", state(1))
    assert not caplog.messages
    os.symlink(disk / "data", here / "waveglow_3")
    native.save(here / "waveglow_3", state(2))
    assert (here / "waveglow_3").is_symlink() and os.listdir(here) == ["waveglow_3"]
    assert sorted(os.listdir(disk)) == ["data", f"data.{now}"]
    assert [native.load(disk / name)["iteration"] for name in ("data", f"data.{now}")] == [2, 1]
    assert caplog.messages == [f"{disk / 'data'} was left by another run and is now data.{now}"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("a tensor is odd"), "a tensor is odd"),
    ],
)
def test_why_a_checkpoint_is_not_saved_is_said_and_nothing_is_left(tmp_path, monkeypatch, error, said):
    def fail(*args):
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=rf"cannot save {tmp_path}/a: {said}.*; the earlier checkpoints are untouched"):
        native.save(tmp_path / "a", state())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["model", "config", "iteration", "progress"])
def test_a_checkpoint_has_four_entries_at_least(tmp_path, missing):
    torch.save({name: value for name, value in state().items() if name != missing}, tmp_path / "a")
    for with_tensors in (True, False):
        with pytest.raises(UserError, match="a is no checkpoint of this repository: it lacks some of config, iterat"):
            native.load(tmp_path / "a", with_tensors)
    native.save(tmp_path / "b", state() | {"more": 1})
    assert native.load(tmp_path / "b").keys() == {"model", "config", "iteration", "progress", "more"}
    assert native.load(tmp_path / "b", with_tensors=False)["model"]["a"].is_meta
    assert not native.load(tmp_path / "b")["model"]["a"].is_meta


def test_checkpoints_are_found_by_their_whole_names(tmp_path):
    for name in (
        "waveglow_2",
        "waveglow_010",
        "waveglow_9",
        "waveglow_3.part",
        "old_waveglow_4",
        "waveglow_",
        "waveglow_-5",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in native.newest_first(tmp_path, "waveglow")] == [
        "waveglow_010",
        "waveglow_9",
        "waveglow_2",
    ]
    assert native.checkpoint_path(str(tmp_path), "tacotron2", 70) == tmp_path / "tacotron2_70"


# ---- forms of files ----


def written(path, metadata):
    safetensors.torch.save_file({"x.y": torch.ones(2), "z": torch.zeros(1).half()}, path, metadata)
    return path


def test_safetensors_hold_weights_and_in_json_configuration_and_steps(tmp_path):
    metadata = {"format": "pt", "config": json.dumps({"a": [1]}), "iteration": "7", "progress": "5"}
    found = read_contents(written(tmp_path / "a", metadata))
    assert found.keys() == {"model", "config", "iteration"}
    assert (found["config"], found["iteration"]) == ({"a": [1]}, 7)
    assert found["model"].keys() == {"x.y", "z"} and found["model"]["z"].dtype == torch.float16
    assert read_contents(written(tmp_path / "b", None)).keys() == {"model"}
    assert read_contents(written(tmp_path / "b", {"iteration": "7"})).keys() == {"model", "iteration"}
    with pytest.raises(UserError, match=r"c is truncated or no checkpoint$"):
        read_contents(written(tmp_path / "c", {"config": "{"}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file"), "no checkpoint at {path}"),
        (
            IsADirectoryError(21, "Is a directory"),
            "{path} is a folder: name a checkpoint in it, such as {path}/waveglow_1000",
        ),
        (PermissionError(13, "Permission denied"), "cannot read {path}: Permission denied"),
        (OSError(5, "Input/output error"), "cannot read {path}: Input/output error"),
        (UserError("a pipe is no file"), "a pipe is no file"),
        (RefusedError("it asks for 'os.system'"), "{path} is refused: it asks for 'os.system'; nothing in it was run"),
        (ValueError("Bad CRC-32 for file 'a'"), "{path} is damaged: Bad CRC-32 for file 'a'"),
        (KeyError("a"), "{path} is truncated or no checkpoint"),
        (EOFError(), "{path} is truncated or no checkpoint"),
        (MemoryError(), "{path} is truncated or no checkpoint"),
        (RecursionError(), "{path} is truncated or no checkpoint"),
    ],
)
def test_why_a_file_is_not_read_is_said_in_a_line(tmp_path, monkeypatch, error, said):
    def fail(*args):
        raise error

    path = tmp_path / "a"
    path.write_bytes(b"anything")
    monkeypatch.setattr(reading.restricted_pickle, "load", fail)
    with pytest.raises(UserError) as raised:
        read_contents(path)
    assert str(raised.value) == said.format(path=path)


@pytest.mark.parametrize("with_tensors", [True, False])
def test_tensors_are_read_or_not_as_asked(tmp_path, with_tensors):
    torch.save({"a": torch.ones(2)}, tmp_path / "a")
    found = read_contents(tmp_path / "a", with_tensors)["a"]
    assert found.is_meta != with_tensors and found.shape == (2,)
    assert not read_contents(tmp_path / "a")["a"].is_meta


# ---- names of weights ----


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("WN.0.start.weight_g", "WN.0.start.weight_g"),
        ("module.1._orig_mod.WN.0.start.parametrizations.weight.original0", "WN.0.start.weight_g"),
        ("WN.0.start.parametrizations.weight.original1", "WN.0.start.weight_v"),
        ("generator.upsample.bias", "upsample.bias"),
        ("a.b.convinv.0.conv.weight", "convinv.0.conv.weight"),
        ("x.embedding.weight", "embedding.weight"),
        ("x.encoder.lstm.bias", "encoder.lstm.bias"),
        ("x.postnet.0.bias", "postnet.0.bias"),
        ("x.decoder.prenet.encoder.bias", "decoder.prenet.encoder.bias"),  # the first of them begins
        ("WN._orig_mod.0.module.start.bias", "WN.0.start.bias"),
        ("something.else", "something.else"),
        ("module.something", "something"),
        (7, "7"),
    ],
)
def test_a_weight_has_nvidias_name(name, found):
    assert nvidia_name(name) == found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_weights_are_float32_in_memory_of_their_own(dtype):
    whole = torch.arange(12).to(dtype).view(3, 4)
    (found,) = nvidia_weights("a", {"module.WN.0.a": whole.t()}).values()
    assert found.dtype == (torch.float32 if dtype.is_floating_point else dtype)
    assert torch.equal(found, whole.t().to(found.dtype)) and found.is_contiguous()
    assert found.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()
    exact = torch.ones(2)
    (found,) = nvidia_weights("a", {"WN.0.a": exact}).values()
    exact += 1
    assert found.tolist() == [1, 1]


@pytest.mark.parametrize("suffix", ["weight_g", "weight_v", "weight", "bias"])
def test_layers_of_old_releases_are_joined_by_their_numbers(suffix):
    def numbered(part, count):
        return {f"WN.3.{part}_layers.{i}.{suffix}": torch.full((2, 1), 10.0 * i + len(part)) for i in range(count)}

    old = numbered("cond", 11) | numbered("res", 10) | numbered("skip", 11)
    found = nvidia_weights("a", dict(reversed(old.items())) | {"WN.3.end.bias": torch.zeros(1)})
    joined = {"WN.3.cond_layer." + suffix, "WN.3.end.bias", *(f"WN.3.res_skip_layers.{i}.{suffix}" for i in range(11))}
    assert found.keys() == joined
    assert found[f"WN.3.cond_layer.{suffix}"][::2, 0].tolist() == [10.0 * i + 4 for i in range(11)]
    for i in range(11):
        res, skip = [10.0 * i + 3] * 2, [10.0 * i + 4] * 2
        assert found[f"WN.3.res_skip_layers.{i}.{suffix}"][:, 0].tolist() == (res + skip if i < 10 else skip)


def test_layers_that_do_not_fit_together_are_refused():
    parts = {"WN.0.cond_layers.0.weight": torch.zeros(2, 3), "WN.0.cond_layers.1.weight": torch.zeros(2, 4)}
    with pytest.raises(UserError, match=r"^a: the cond_layers, res_layers and skip_layers do not fit together$"):
        nvidia_weights("a", parts)
    with pytest.raises(UserError, match=r"^a holds WN\.0\.x more than once, the second time as b\.WN\.0\.x$"):
        nvidia_weights("a", {"a.WN.0.x": torch.zeros(1), "b.WN.0.x": torch.zeros(1)})


def test_a_file_of_another_model_is_named_by_what_it_is(tmp_path):
    for name, kind in (("WN.0.a", "WaveGlow"), ("convinv.0.a", "WaveGlow"), ("decoder.attention_rnn.a", "Tacotron2")):
        torch.save({"m": {f"module.{name}": torch.zeros(1)}}, tmp_path / "a")
        with pytest.raises(UserError, match=f"a is not a complete {kind}: .* is missing"):
            read(tmp_path / "a")
        other = {"WaveGlow": "tacotron2", "Tacotron2": "waveglow"}[kind]
        with pytest.raises(UserError, match=f"a is a checkpoint of {kind}, and one of .* is needed here"):
            read(tmp_path / "a", other)
