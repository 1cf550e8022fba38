"""What the product asks of torch_npu is there in Huawei's published wheels, and takes the arguments it is given.

Both are read and not run: a wheel needs CANN to be imported.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from inspect import Parameter
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import EMULATOR, ROOT
from huawei import WHEELS, unpacked

BASES = {
    ("common/device.py", "torch_module"): "npu",
    ("common/random_numbers.py", "torch_module"): "npu",
    ("common/adam.py", "importlib.import_module"): "optim",
    ("common/training/profiling.py", "module"): "profiler",
}
"Of expressions in the product, after which package of torch_npu stands: a function that returns it, or a variable."
NOT_IN_PYTHON = {"ProfilerActivity"}
"Of the C++ extension, and named where they are imported from it."


class Use(NamedTuple):
    """An attribute of a package that the product uses."""

    package: str
    name: str
    "With dots, such as utils.is_support_inf_nan."
    call: ast.Call | None


pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")


@pytest.fixture(scope="module", params=WHEELS)
def wheel(request) -> Path:
    return unpacked(request.param) / "torch_npu"


def uses() -> Iterator[Use]:
    for (path, base), package in BASES.items():
        tree = ast.parse((ROOT / path).read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                names, foot = [], node
                while isinstance(foot, ast.Attribute):
                    names, foot = [foot.attr, *names], foot.value
                found = ast.unparse(foot.func if isinstance(foot, ast.Call) else foot)
                if found == base:
                    yield Use(package, ".".join(names), calls.get(id(node)))


def definitions(folder: Path, name: str) -> list[ast.FunctionDef]:
    """Functions of this name, and of classes their ``__init__``, at the top of the package's modules."""
    found = []
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                methods = node.body if isinstance(node, ast.ClassDef) else [node]
                found += [each for each in methods if getattr(each, "name", "") in (name, "__init__")]
    return found


def signature(function: ast.FunctionDef) -> inspect.Signature:
    """Without annotations; every default is None."""
    args = function.args
    plain = [*args.posonlyargs, *args.args]
    needed = len(plain) - len(args.defaults)
    parameters = [
        Parameter(arg.arg, Parameter.POSITIONAL_OR_KEYWORD, default=None if i >= needed else Parameter.empty)
        for i, arg in enumerate(plain)
        if arg.arg != "self"
    ]
    parameters += [Parameter(args.vararg.arg, Parameter.VAR_POSITIONAL)] if args.vararg else []
    parameters += [
        Parameter(arg.arg, Parameter.KEYWORD_ONLY, default=Parameter.empty if default is None else None)
        for arg, default in zip(args.kwonlyargs, args.kw_defaults)
    ]
    parameters += [Parameter(args.kwarg.arg, Parameter.VAR_KEYWORD)] if args.kwarg else []
    return inspect.Signature(parameters)


def fits(call: ast.Call, function: ast.FunctionDef) -> bool:
    try:
        signature(function).bind(*call.args, **{keyword.arg: keyword.value for keyword in call.keywords})
    except TypeError:
        return False
    return True


def test_all_that_is_used_is_found():
    """The search below would find nothing wrong if it found nothing."""
    used = {(use.package, use.name) for use in uses()}
    assert used >= {
        ("npu", "set_device"), ("npu", "set_compile_mode"), ("npu", "utils.get_npu_overflow_flag"),
        ("npu", "get_device_name"), ("optim", "NpuFusedAdam"), ("profiler", "tensorboard_trace_handler"),
        ("profiler", "profile"), ("profiler", "ProfilerActivity"),
    }  # fmt: skip


@pytest.mark.parametrize("use", {(use.package, use.name): use for use in uses()}.values(), ids=lambda use: use.name)
def test_each_use_fits_huaweis_interface(wheel, use):
    *inside, name = use.name.split(".")
    module = wheel / use.package
    text = (module / f"{inside[0]}.py" if inside else module / "__init__.py").read_text()
    assert re.search(rf"\b{name}\b", text), f"torch_npu.{use.package} has no {use.name}"
    if use.call and name not in NOT_IN_PYTHON:
        renamed = re.search(rf"\b(\w+) as {name}\b", text)
        name = renamed[1] if renamed else name
        assert any(fits(use.call, found) for found in definitions(module, name)), ast.unparse(use.call)


def test_a_wrong_argument_is_noticed():
    function = ast.parse("class A:\n def f(self, jit_compile=False, *, b): pass").body[0].body[0]
    for arguments, expected in {"b=1": True, "True, b=1": True, "jitcompile=True, b=1": False, "": False}.items():
        assert fits(ast.parse(f"f({arguments})").body[0].value, function) == expected


def test_checkpoints_are_written_in_a_way_that_torch_npus_save_takes(wheel):
    """It takes the place of torch.save, as its load that of torch.load, which the product does not call."""
    files = [path for folder in ("common", "waveglow", "tacotron2", "tools") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    calls = {name: [node for node in nodes if ast.unparse(node.func) == name] for name in ("torch.load", "torch.save")}
    assert calls["torch.save"] and not calls["torch.load"]
    for save in definitions(wheel / "utils", "save"):  # in 2.1, no longer in 2.14
        assert [ast.unparse(call) for call in calls["torch.save"] if not fits(call, save)] == []


def test_torch_optim_is_told_about_foreach_in_the_place_that_the_product_asks(wheel):
    name = "_get_foreach_kernels_supported_devices"
    assert name in (ROOT / "common/adam.py").read_text()
    text = (wheel / "utils/_optim.py").read_text()
    assert "import torch.optim.optimizer as opt" in text and f"opt.{name} =" in text


def test_the_emulated_card_has_no_function_that_the_real_one_has_not(wheel):
    tree = ast.parse((EMULATOR / "torch_npu/npu/__init__.py").read_text())
    own = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [node.name for node in own if not node.name.startswith("_")]
    texts = [path.read_text() for path in (wheel / "npu").glob("*.py")]
    assert len(public) > 15
    assert [name for name in public if not any(re.search(rf"\b{name}\b", text) for text in texts)] == []
    (scaler,) = definitions(wheel / "npu/amp", "GradScaler")
    assert fits(ast.parse("GradScaler(init_scale=128.0, dynamic=False)").body[0].value, scaler)
