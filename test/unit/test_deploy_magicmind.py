"""The adapter of MagicMind, on a stand-in for it: every call, its order, and every way in which it can fail."""

import pickle

import pytest
from deploy_toys import SEEDS, TEXTS, make, models_dir, run_script, start

from common.program import UserError
from tools.deploy.engines import names


@pytest.fixture
def magicmind():
    import magicmind.python.runtime as runtime

    runtime.CALLS.clear()
    return runtime


def test_magicmind_is_told_sizes_and_precision(tmp_path):
    make(tmp_path, "magicmind", "force_float16", batch=(2, 3, 5))
    with open(tmp_path / "decoder.graph", "rb") as file:
        assert file.read(9) == b"MagicMind"
        config = pickle.load(file)["config"]
    assert config["precision_config"] == {"precision_mode": "force_float16"}
    assert config["archs"] == [{"mtp_372": [2, 6, 8]}]
    assert config["opt_config"] == {"type64to32_conversion": True, "conv_scale_fold": True}
    assert config["graph_shape_mutable"] is True
    assert config["dim_range"] == {
        "0": {"min": [2, 4, 16], "max": [5, 256, 16]},
        "1": {"min": [2, 4, 10], "max": [5, 256, 10]},
        "2": {"min": [2, 4], "max": [5, 256]},
        "3": {"min": [2, 1, 2, 12], "max": [5, 1664, 2, 12]},
        "4": {"min": [2], "max": [5]},
    }


def test_magicmind_is_taken_down_in_order(tmp_path, magicmind):
    pipeline, engine = start(tmp_path, make(tmp_path, "magicmind"))
    pipeline.spectrograms(TEXTS, SEEDS)
    magicmind.CALLS.clear()
    pipeline.graphs.clear()
    engine.close()
    assert [*["context", "engine", "model"] * 4, "queue", "device", "destory"] == magicmind.CALLS


@pytest.mark.parametrize(
    ("call", "result", "says"),
    [
        ("Builder.build_model", None, "MagicMind failed to build encoder"),
        ("Model.serialize_to_file", "the disk is full", "failed to write .*: the disk is full"),
        ("BuilderConfig.parse_from_string", "unknown key", "failed to configure .*: unknown key"),
        ("NetworkInput.set_dimension", "no", "failed to set the sizes of input 0: no"),
        ("Device.active", "no", "device 0 does not exist"),
        ("Device.create_queue", None, "failed to create a queue"),
        ("Model.create_i_engine", None, "failed to create an engine"),
        ("Engine.create_i_context", None, "failed to create a context"),
        ("Tensor.from_numpy", "no", "failed to set sequences: no"),
        ("Tensor.to", "no", "failed to move sequences to the card: no"),
        ("Context.enqueue", "no", "failed to enqueue: no"),
        ("Queue.sync", "no", "failed to run: no"),
    ],
)
def test_each_way_in_which_magicmind_fails_is_said(tmp_path, monkeypatch, magicmind, call, result, says):
    kind, method = call.split(".")
    answer = result if result is None else magicmind.Status(result)
    monkeypatch.setattr(getattr(magicmind, kind), method, lambda *args, **kwargs: answer)
    with pytest.raises(UserError, match=says):
        pipeline, _ = start(tmp_path, make(tmp_path, "magicmind"))
        pipeline.spectrograms(TEXTS, SEEDS)


def test_magicmind_has_as_many_devices_as_cards(tmp_path):
    contents = make(tmp_path, "magicmind")
    start(tmp_path, contents, device=1)[1].close()
    with pytest.raises(UserError, match="device 2 does not exist"):
        start(tmp_path, contents, device=2)


def test_a_card_has_the_name_that_cnmon_tells(tmp_path, monkeypatch):
    """As public scripts read it."""
    assert names.mlu_name(1) == "MLU, card 1"
    answer = 'echo "    Product Name  : MLU370-S4"'
    (tmp_path / "cnmon").write_text(f'#!/bin/bash\n[[ "$*" == "info -c 1 -t" ]] && {answer}\n')
    (tmp_path / "cnmon").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert names.mlu_name(1) == "MLU370-S4, card 1"
    assert names.mlu_name(0) == "MLU, card 0"


def test_without_magicmind(tmp_path):
    done = run_script(
        "gen_model/run.sh", "force_float32", "1", "4", "8", "--engine=magicmind", f"--models_dir={models_dir()}"
    )
    assert done.returncode == 1
    assert "--engine=magicmind: No module named 'magicmind'; it needs Cambricon's driver" in done.stderr
