"""Imports go downwards only, as docs/architecture.md draws it, and never in a circle; models know no device."""

import ast
import re
import sys
from graphlib import TopologicalSorter

from conftest import ROOT

FLOORS = ("common", "common.layers", "common.checkpoints", "common.training", "common.evaluation", "models", "tools")
MODELS = ("waveglow", "tacotron2")
PACKAGES = ("common", *MODELS, "tools")


def imports() -> dict[str, set[str]]:
    """Module -> the modules of the repository that it imports, for types alone included."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    found = {}
    for module, path in paths.items():
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom | ast.Import)
        ]
        names = {
            name
            for node in nodes
            for alias in node.names
            for name in ([alias.name] if isinstance(node, ast.Import) else [node.module, f"{node.module}.{alias.name}"])
        }
        found[module] = names & paths.keys()
    return found


def floor(module: str) -> int:
    package = module.rpartition(".")[0]
    if module in ("common.inference", "common.mel_files"):  # bring checkpoints, layers and devices together
        return FLOORS.index("common.evaluation")
    name = package.split(".")[0]
    return FLOORS.index("models" if name in MODELS else "tools" if name == "tools" else package)


def test_no_module_imports_from_a_floor_above():
    graph = imports()
    assert len(graph) > 100
    upwards = [(module, other) for module, others in graph.items() for other in others if floor(other) > floor(module)]
    assert upwards == []


def test_there_is_no_circle():
    list(TopologicalSorter(imports()).static_order())  # raises CycleError


def test_the_models_do_not_know_each_other():
    for ours, theirs in (MODELS, MODELS[::-1]):
        assert not [m for m, others in imports().items() if m.startswith(ours) for o in others if o.startswith(theirs)]


def test_every_program_imports_common_before_torch():
    """Which would load torch_npu otherwise, and fail with it. Run as modules, the others have their package first."""
    packages = [ROOT / package / "__init__.py" for package in (*MODELS, "tools")]
    programs = [path for path in (ROOT / "tools").glob("*.py") if "if __name__" in path.read_text()]
    assert len(programs) > 5
    for path in [*packages, *programs]:
        nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom | ast.Import)]
        modules = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
        foreign = {name.split(".")[0] for name in modules} - sys.stdlib_module_names
        first = next(name for name in modules if name.split(".")[0] in foreign)
        assert first.split(".")[0] == "common", path


def test_models_do_not_know_their_device():
    named = re.compile(r"torch\.cuda|torch_npu|torch\.npu|\.cuda\(|\.npu\(|HalfTensor")
    # __init__.py keeps torch from loading torch_npu itself, pickle_names.py lists names as they stand in foreign
    # checkpoints, peers.py one of NVIDIA's code.
    allowed = {
        "common/__init__.py",
        "common/cuda_graph.py",
        "common/device.py",
        "common/adam.py",
        "common/random_numbers.py",
        "common/layers/npu.py",
        "common/checkpoints/pickle_names.py",
        "tools/speed/peers.py",
    }
    files = [p for folder in ("common", "waveglow", "tacotron2", "tools") for p in (ROOT / folder).rglob("*.py")]
    assert len(files) > 10
    assert {str(p.relative_to(ROOT)) for p in files if named.search(p.read_text())} <= allowed
