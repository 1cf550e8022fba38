"""The names that a pickle may hold: what each honest one becomes, and which instructions there are none of."""

import io
import pickle

import pytest
import torch
from pickles import text

from common.checkpoints import restricted_pickle
from common.checkpoints.budget import Budget, RefusedError
from common.checkpoints.pickle_names import Global, Shell, checked_key


def unpickled(data: bytes):
    return restricted_pickle.Unpickler(io.BytesIO(data + b"."), Budget(1000)).load()


def name(module: str, function: str) -> bytes:
    return f"c{module}\n{function}\n".encode()


MODULES = [
    "torch.nn.modules.conv", "torch.optim.adam", "torch.jit._script", "torch.amp.grad_scaler",
    "torch.cuda.amp.grad_scaler", "torch_npu.optim.npu_fused_adam", "apex.amp.scaler", "glow.x", "waveglow.model",
    "tacotron2.model", "model.x",
    "models.x", "modules.x", "layers.x", "common.x", "hparams.x", "utils.x",
]  # fmt: skip
"One of each family: torch and what extends it, and the repositories that the checkpoints come from."


@pytest.mark.parametrize("module", [*MODULES, "glow", "glow_old", "model", "layers", "__main__"])
def test_objects_of_these_families_become_shells(module):
    shell = unpickled(name(module, "Thing") + b")\x81")
    assert type(shell) is Shell and shell.name == f"{module}.Thing" and repr(shell) == f"<{module}.Thing>"
    for odd in ("__init__", "a-b", "", "1a"):
        with pytest.raises(RefusedError, match="it asks for"):
            unpickled(name(module, odd))


@pytest.mark.parametrize("module", ["torch", "torchvision.models", "torch.serialization", "os", "apexx.a", "my.glow"])
def test_others_are_refused_by_their_whole_name(module):
    with pytest.raises(RefusedError, match=f"^it asks for '{module}.Thing'$".replace(".", r"\.")):
        unpickled(name(module, "Thing"))
    with pytest.raises(RefusedError) as error:
        unpickled(name(module, "x" * 1000))
    full = f"{module}.{'x' * 1000}"
    assert str(error.value) == f"it asks for '{full[:100]}'"


@pytest.mark.parametrize(
    "full",
    [
        "argparse.Namespace", "numpy.ndarray", "torch.Tensor", "torch._tensor.Tensor",
        "torch.torch_version.TorchVersion", "torch.FloatStorage", "torch.cuda.HalfStorage",
        "torch.float16", "torch.bfloat16", "torch.int64", "torch.bool",
        "builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str", "builtins.bool",
        "__builtin__.dict", "__builtin__.list", "__builtin__.int", "__builtin__.long", "__builtin__.float",
        "__builtin__.unicode", "__builtin__.bool",
    ],
)  # fmt: skip
def test_names_that_are_mentioned_are_not_called(full):
    found = unpickled(name(*full.rsplit(".", 1)))
    assert isinstance(found, Global) and (found.name, found.build) == (full, None)
    with pytest.raises(RefusedError, match=f"^it calls '{full}'$".replace(".", r"\.")):
        unpickled(name(*full.rsplit(".", 1)) + b")R")


@pytest.mark.parametrize(
    "full",
    [
        "torch.device", "torch.nn.backends.thnn._get_thnn_function_backend", "torch_npu.npu._format.Format",
        "numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath", "datetime.datetime", "datetime.timedelta", "types.SimpleNamespace",
    ],
)  # fmt: skip
def test_what_stands_beside_the_weights_becomes_a_shell_whatever_it_is_made_of(full):
    shell = unpickled(name(*full.rsplit(".", 1)) + b"(K\x01K\x02tR")
    assert type(shell) is Shell and shell.name == full and shell.state == {}


def test_a_parameter_is_its_tensor():
    for way in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        value = unpickled(name("torch._utils", way) + b"(" + text("data") + b"\x88}tR")
        assert value == "data"
    assert unpickled(name("torch.nn.parameter", "Parameter") + text("data") + b"\x85R") == "data"


def test_plain_values_that_are_built_by_a_call():
    assert unpickled(name("builtins", "slice") + b"K\x01K\x02\x86R") == slice(1, 2)
    assert unpickled(name("builtins", "set") + b"](K\x01K\x02e\x85R") == {1, 2}
    assert unpickled(name("collections", "OrderedDict") + b")R") == {}


OPCODES = {
    "INST": pickle.INST, "OBJ": pickle.OBJ, "EXT1": pickle.EXT1, "EXT2": pickle.EXT2, "EXT4": pickle.EXT4,
    "FROZENSET": pickle.FROZENSET, "BYTEARRAY8": pickle.BYTEARRAY8, "NEXT_BUFFER": pickle.NEXT_BUFFER,
    "READONLY_BUFFER": pickle.READONLY_BUFFER,
}  # fmt: skip


@pytest.mark.parametrize("opcode", OPCODES)
def test_instructions_that_torch_never_writes_are_refused(opcode):
    with pytest.raises(RefusedError, match="an instruction that torch never writes"):
        unpickled(b"(" + OPCODES[opcode] + bytes(8))


def test_a_key_is_simple_or_a_flat_tuple_of_simple_ones():
    for key in (None, "a", b"a", 0.5, True, torch.zeros(1), Global("a", None), (), (None, "a", 1.5, 7)):
        assert checked_key(key) is key
    for key in ([], {}, set(), Shell("a"), (1, (2,)), ([],), 2**70, -(2**70)):
        with pytest.raises(RefusedError, match="it has a key of the kind"):
            checked_key(key)
    for data in (b"}(]Nu", b"}]Ns", b"(]Nd", b"\x8f(]\x90"):
        with pytest.raises(RefusedError, match="it has a key of the kind 'list'"):
            unpickled(data)
