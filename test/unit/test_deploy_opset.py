"""Graphs in older sets of ONNX's operators: valid there, the same numbers, and refused where they cannot be said."""

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from deploy_toys import exported, make, models_dir, toy
from onnx import helper

from common.program import UserError
from tools.deploy import stages
from tools.deploy.artifacts import ONNX, read_contents, write_contents
from tools.deploy.export_model.opset import OPSETS, lowered
from tools.deploy.export_model.to_onnx import exports
from tools.deploy.export_model.verify import difference
from tools.deploy.models import PACKAGES
from tools.deploy.onnx_graphs import graphs, names_in, remove_unused
from tools.deploy.signatures import GRAPHS


@cache
def newest():
    return {each.name: each for kind in PACKAGES for each in exports(toy(kind), OPSETS[-1])}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", GRAPHS)
def test_the_graphs_compute_the_same_in_every_opset(name, opset):
    _, graph, module, inputs = newest()[name]
    older = lowered(graph, opset)
    onnx.checker.check_model(older, full_check=True)
    assert [(each.domain, each.version) for each in older.opset_import] == [("", opset)]
    assert difference(older, module, inputs) <= 3e-5


def test_graphs_inside_of_graphs_are_seen_at_any_depth():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (bool c, float[1] x) => (float[1] y) <float[1] w = {2}, float[1] unused = {3}> { y = If (c) <
            then_branch = a () => (float[1] ya) { ya = If (c) <
                then_branch = b () => (float[1] yb) { yb = Add (x, w) },
                else_branch = d () => (float[1] yd) { yd = Identity (x) }> },
            else_branch = e () => (float[1] ye) { ye = Identity (x) }> }""")
    assert sorted(each.name for each in graphs(model.graph)) == ["a", "b", "d", "e", "g"]
    assert set(names_in(model.graph.node[0])) == {"c", "x", "w"}
    remove_unused(model.graph)
    assert [each.name for each in model.graph.initializer] == ["w"]


def test_by_default_it_is_the_oldest():
    assert read_contents(models_dir() / ONNX, "onnx", "").opset == 11
    assert {each.graph.opset_import[0].version for each in exported().values()} == {11}


def one(node: onnx.NodeProto, *constants: onnx.TensorProto, rank: int = 3, opset: int = 18) -> onnx.ModelProto:
    """A graph of one node, whose input x is of three axes and whose outputs are of so many."""
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["a", "b", "c"])
    dtype = onnx.TensorProto.INT64 if node.op_type == "Shape" else onnx.TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(name, dtype, [None] * rank) for name in node.output]
    graph = helper.make_graph([node], "one", [x], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def integers(*values: int) -> onnx.TensorProto:
    return helper.make_tensor("n", onnx.TensorProto.INT64, [len(values)], values)


@pytest.mark.parametrize(
    ("node", "constants", "rank"),
    [
        *(
            (helper.make_node("Shape", ["x"], ["y"], **dict(zip(("start", "end"), bounds))), [], 1)
            for bounds in ((), (1,), (0, 1), (-2,), (-3, -1))
        ),
        (helper.make_node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2), [], 3),
        (helper.make_node("Split", ["x", "n"], ["y", "z"], axis=2), [integers(4, 2)], 3),
        (helper.make_node("ReduceMax", ["x", "n"], ["y"], keepdims=0), [integers(1)], 2),
        (helper.make_node("ReduceSum", ["x", "n"], ["y"], noop_with_empty_axes=0), [integers(0, 2)], 3),
        (helper.make_node("Unsqueeze", ["x", "n"], ["y"]), [integers(0, 3)], 5),
        (helper.make_node("Squeeze", ["x", "n"], ["y"]), [integers(0)], 2),
        (helper.make_node("Reshape", ["x", "n"], ["y"], allowzero=0), [integers(0, -1)], 2),
        (helper.make_node("Softmax", ["x"], ["y"], axis=2), [], 3),
    ],
)
@pytest.mark.parametrize("opset", OPSETS[:-1])
def test_each_operator_in_its_older_form(node, constants, rank, opset):
    model = one(node, *constants, rank=rank)
    older = lowered(model, opset)
    onnx.checker.check_model(older, full_check=True)
    assert {each.name for each in older.graph.initializer} <= {name for each in older.graph.node for name in each.input}
    x = np.random.default_rng(0).standard_normal((1, 4, 6)).astype(np.float32)
    results = [
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for each in (model, older)
    ]
    for before, after in zip(*results, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("opset", "version"), [(11, 6), (13, 7), (18, 8)])
def test_the_file_s_format_is_that_of_its_opset_s_time(opset, version):
    """Or readers of that time would refuse it. The graph that it is made of stays as it was."""
    model = one(helper.make_node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2))
    before = model.SerializeToString()
    assert lowered(model, opset).ir_version == version
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("attribute", "dtype"),
    [("value_int", "int64"), ("value_ints", "int64"), ("value_float", "float32"), ("value_floats", "float32")],
)
def test_a_constant_is_a_tensor_of_its_type_in_every_opset(attribute, dtype):
    values = [3, -2] if attribute.endswith("s") else 3
    values = [1.5, 2.0] if attribute == "value_floats" else 1.5 if attribute == "value_float" else values
    for opset in OPSETS[:-1]:
        (node,) = lowered(one(helper.make_node("Constant", [], ["y"], **{attribute: values})), opset).graph.node
        (value,) = node.attribute
        assert value.name == "value"
        array = onnx.numpy_helper.to_array(value.t)
        assert (array.dtype.name, array.tolist()) == (dtype, values)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (helper.make_node("Mish", ["x"], ["y"]), "the operator Mish cannot be written in opset 11: --opset=18"),
        (helper.make_node("Squeeze", ["x", "computed"], ["y"]), "computed is no constant"),
    ],
)
def test_what_an_opset_cannot_say_is_refused(node, says):
    with pytest.raises(UserError, match=says):
        lowered(one(node), 11)


def test_a_graph_of_an_older_opset_stays_as_it_is():
    model = one(helper.make_node("Exp", ["x"], ["y"]), opset=10)
    assert lowered(model, 11) == model


def test_graphs_of_another_opset_are_exported_again_if_one_is_asked_for(tmp_path):
    folder = models_dir() / ONNX
    assert [stages.are_there(folder, None, opset) for opset in (None, 11, 13)] == [True, True, False]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_contents(tmp_path, replace(read_contents(folder, ONNX, ""), opset=13))
    assert [stages.are_there(tmp_path, None, opset) for opset in (None, 11, 13)] == [True, False, True]


def test_magicmind_is_not_given_a_newer_opset_than_it_is_known_to_read(tmp_path):
    for opset in OPSETS:
        path = tmp_path / f"postnet_{opset}.onnx"
        onnx.save(lowered(newest()["postnet"].graph, opset), path)
        if opset <= 13:
            make(tmp_path / "engines", "magicmind", graphs={"postnet": path})
            continue
        with pytest.raises(UserError, match=r"failed to parse .*run.sh .*--opset=11\): opset 18 is not supported"):
            make(tmp_path / "engines", "magicmind", graphs={"postnet": path})
