"""A folder of engines: when it is made again, what it keeps of its order, which graphs of the user's own it takes."""

import json
import os
import shutil
from dataclasses import replace

import onnx
import pytest
from deploy_toys import models_dir

from common.program import UserError
from tools.deploy.artifacts import CONTENTS, read_contents
from tools.deploy.engines.engine import DeviceError, Engine
from tools.deploy.gen_model import building
from tools.deploy.gen_model.building import Order
from tools.deploy.gen_model.settings import load_settings


class Fake(Engine):
    """Whose files hold their requests."""

    suffix = ".fake"

    @staticmethod
    def build(request, path):
        path.write_text(request.graph)


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(building, "find_engine", lambda name: Fake)


def order(folder, quant_mode="force_float32", **more):
    settings = load_settings(None).for_batches([1, 2, 8])
    return Order("onnxruntime", quant_mode, models_dir(), folder, settings, **{"compare": False} | more)


def built(folder):
    """When each engine was made."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.fake")}


def changed_file(folder):
    (folder / "postnet.fake").write_text("postnot")


def missing_file(folder):
    (folder / "postnet.fake").unlink()


def missing_contents(folder):
    (folder / CONTENTS).unlink()


def nothing(folder):
    """Which is kept as it is."""


@pytest.mark.parametrize("damage", [nothing, changed_file, missing_file, missing_contents])
def test_what_is_not_whole_is_made_again(tmp_path, damage):
    building.build(order(tmp_path))
    for path in tmp_path.glob("*.fake"):
        os.utime(path, (1, 1))
    before = built(tmp_path)
    damage(tmp_path)
    building.build(order(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.glob("*.fake")} == {
        f"{name}.fake": name for name in ("encoder", "decoder", "postnet", "waveglow")
    }
    assert (built(tmp_path) == before) == (damage is nothing)


def test_other_engines_are_made_again_and_the_same_by_another_way_are_kept(tmp_path):
    """The options that name files are for messages alone."""
    building.build(order(tmp_path))
    for path in tmp_path.glob("*.fake"):
        os.utime(path, (1, 1))
    before = built(tmp_path)
    building.build(replace(order(tmp_path), json=tmp_path / "settings.json"))
    assert built(tmp_path) == before
    for other in (
        replace(order(tmp_path), quant_mode="int8"),
        replace(order(tmp_path), settings=load_settings(None).for_batches([1, 2, 4])),
    ):
        contents = building.build(other)
        assert (contents.quant_mode, contents.ranges["batch"]) == (other.quant_mode, other.settings.ranges.batch)


def test_a_folder_knows_the_files_that_it_was_built_with(tmp_path, monkeypatch):
    """By their whole paths, for whoever builds it again from elsewhere."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(models_dir() / "onnx/postnet.onnx", "mine.onnx")
    (tmp_path / "my.json").write_text(json.dumps({"ranges": {"batch": [1, 1, 1]}}))
    named = {"graphs": {"postnet": (tmp_path / "mine.onnx").relative_to(tmp_path)}}
    building.build(order(tmp_path / "engines", json=(tmp_path / "my.json").relative_to(tmp_path), **named))
    contents = read_contents(tmp_path / "engines", "onnxruntime", "")
    options = [f"--postnet={tmp_path}/mine.onnx", f"--json={tmp_path}/my.json"]
    assert contents.built_by == options
    assert all(option in contents.again(tmp_path / "engines") for option in options)


def test_what_is_built_is_logged_with_its_sizes(tmp_path, caplog):
    caplog.set_level("INFO")
    building.build(order(tmp_path))
    told = [record.getMessage() for record in caplog.records]
    assert (
        "building onnxruntime engines in force_float32, for sizes of batch 1 to 8, text 4 to 256, mel 32 to 1664"
        in told
    )
    assert f"wrote {tmp_path}, for batches of 1 to 8" in told


@pytest.mark.parametrize("end", ["input", "output"])
def test_a_graph_of_the_users_own_has_the_ports_of_its_name(tmp_path, end):
    graph = onnx.load(models_dir() / "onnx/postnet.onnx")
    ports = getattr(graph.graph, end)
    before, ports[0].name = ports[0].name, "another"
    names = ", ".join(port.name for port in ports)
    onnx.save(graph, tmp_path / "mine.onnx")
    wanted = ", ".join([before, *(port.name for port in ports[1:])])
    with pytest.raises(UserError, match=f"--postnet: .*mine.onnx has {names} where {wanted} are wanted"):
        building.build(order(tmp_path / "engines", graphs={"postnet": tmp_path / "mine.onnx"}))


def test_a_graph_that_would_not_be_used_is_refused(tmp_path):
    """With both decoders named, that of the settings decodes."""
    own = {name: models_dir() / "onnx" / f"{name}.onnx" for name in ("decoder", "decoder_iter")}
    says = "--decoder_iter would not be used: onnxruntime is built from the graphs encoder, decoder, postnet, waveglow"
    with pytest.raises(UserError, match=says):
        building.build(order(tmp_path, graphs=own))
    alone = building.build(order(tmp_path, graphs={"decoder_iter": own["decoder_iter"]}))
    assert list(alone.files) == ["encoder", "decoder_iter", "postnet", "waveglow"]


@pytest.mark.parametrize(("mode", "compare"), [("force_float32", True), ("int8", False), ("int8", True)])
def test_what_a_mode_costs_is_measured_once_and_kept(tmp_path, monkeypatch, mode, compare):
    measured = []
    monkeypatch.setattr(building, "samples_for", lambda *_: {})
    monkeypatch.setattr(
        building, "measure_cost", lambda *args: measured.append(args[0]) or {"tacotron2": 0.5, "waveglow": 0.25}
    )
    for _ in range(2):
        contents = building.build(order(tmp_path, mode, compare=compare))
        cost = {"tacotron2": 0.5, "waveglow": 0.25} if (mode, compare) == ("int8", True) else {}
        assert contents.cost == read_contents(tmp_path, "onnxruntime", "").cost == cost
    assert measured == [tmp_path] * bool(cost)


def test_engines_that_cannot_be_compared_here_are_kept(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise DeviceError("device 0 does not exist")

    monkeypatch.setattr(building, "measure_cost", refuse)
    contents = building.build(order(tmp_path, "force_float16", compare=True))
    assert (contents.cost, len(built(tmp_path))) == ({}, 4)
    assert "what force_float16 costs is not known: device 0 does not exist; the engines are written" in caplog.text
