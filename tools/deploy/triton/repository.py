"""The files of a model repository: Triton's documentation calls the format of ``config.pbtxt`` model configuration."""

import logging
from collections.abc import Mapping
from pathlib import Path

from common.files import make_output_folder, written_whole
from tools.deploy.artifacts import Contents
from tools.deploy.export_model.metadata import settings
from tools.deploy.signatures import Port, Signature

log = logging.getLogger(__name__)

GRAPHS = ("encoder", "decoder", "postnet", "waveglow")
LONGEST_WAIT = 5000
"Microseconds that a clip waits for others to share its batch."
PROGRAMS = Path(__file__).parent
SPEECH = Signature(
    {"sequences": Port(("text",), "int64"), "seed": Port((1,), "int64"), "sigma": Port((1,), "float32")},
    {"audio": Port(("samples",), "float32")},
)
"What clients see of the model that calls the others; ``seed`` and ``sigma`` are optional."


def write_repository(folder: Path, graphs: Path, contents: Contents, backend: str, max_batch: int) -> None:
    """The models in a folder, each as Triton wants it: its config.pbtxt and a version 1."""
    for name in GRAPHS:
        version = make_output_folder(folder / name / "1")
        write(version / "model.onnx", contents.path(graphs, name).read_bytes())
        (version / "model.py").unlink(missing_ok=True)
        if backend == "python":
            write(version / "model.py", (PROGRAMS / "graph_model.py").read_bytes())
        config = graph_config(name, contents.signature(name), backend, max_batch)
        write(folder / name / "config.pbtxt", config.encode())
    write(make_output_folder(folder / "speech/1") / "model.py", (PROGRAMS / "speech_model.py").read_bytes())
    write(folder / "speech/config.pbtxt", speech_config(contents, max_batch).encode())
    log.info("wrote %s: %s and speech", folder, ", ".join(GRAPHS))


def graph_config(name: str, signature: Signature, backend: str, max_batch: int) -> str:
    """The configuration of a graph whose requests share batches."""
    return "\n".join([
        f'name: "{name}"',
        f'backend: "{backend}"',
        f"max_batch_size: {max_batch}",
        *ports("input", signature.inputs, batched=True),
        *ports("output", signature.outputs, batched=True),
        f"dynamic_batching {{ max_queue_delay_microseconds: {LONGEST_WAIT} }}",
        *(["instance_group [ { kind: KIND_CPU } ]"] if backend == "python" else []),
        "",
    ])  # fmt: skip


def speech_config(contents: Contents, max_batch: int) -> str:
    """The configuration of the model that calls the graphs, one clip in each of its instances."""
    return "\n".join([
        'name: "speech"',
        'backend: "python"',
        "max_batch_size: 0",
        *ports("input", SPEECH.inputs, batched=False, optional=("seed", "sigma")),
        *ports("output", SPEECH.outputs, batched=False),
        f"instance_group [ {{ kind: KIND_CPU count: {max_batch} }} ]",
        *(parameter(name, value) for name, value in parameters(contents).items()),
        "",
    ])  # fmt: skip


def parameters(contents: Contents) -> dict[str, str]:
    """What the model of ``speech`` has to know, as text."""
    inputs = contents.signature("decoder").inputs, contents.signature("waveglow").inputs
    return settings(contents) | {
        "prenet_dim": str(inputs[0]["prenet_masks"].axes[-1]),
        "n_group": str(inputs[1]["z"].axes[1]),
    }


def ports(kind: str, named: Mapping[str, Port], batched: bool, optional: tuple[str, ...] = ()) -> list[str]:
    """Inputs or outputs, without the batch's axis, which Triton knows of; clients see a port [batch] as [batch, 1]."""
    lines = []
    for name, port in named.items():
        axes = [axis if isinstance(axis, int) else -1 for axis in port.axes[batched:]]
        reshape = "" if axes else " reshape { shape: [ ] }"
        dims = ", ".join(map(str, axes or [1]))
        more = " optional: true" if name in optional else ""
        lines.append(f'{kind} {{ name: "{name}" data_type: {triton_type(port)} dims: [ {dims} ]{reshape}{more} }}')
    return lines


def triton_type(port: Port) -> str:
    """float32 -> TYPE_FP32."""
    return "TYPE_" + port.dtype.replace("float", "fp").upper()


def parameter(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'parameters {{ key: "{name}" value {{ string_value: "{escaped}" }} }}'


def write(path: Path, data: bytes) -> None:
    with written_whole(path) as file:
        file.write(data)
