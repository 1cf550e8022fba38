"""Damaged and hostile checkpoints: nothing wrong is taken, nothing small takes the machine down."""

import io
import os
import pickle
import socket
import struct
import time
import zipfile
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import inference
from common.checkpoints import budget, native, pickle_names, restricted_pickle
from common.checkpoints.budget import Budget, RefusedError
from common.checkpoints.interchange import load_adam, read
from common.checkpoints.progress import Progress, read_progress
from common.config_reading import from_dict, load_config
from common.mel_files import read_mel
from common.program import UserError, shown
from common.training.run import checked_adam
from conftest import ROOT, make_corpus, toy_config
from runs import make_run, start, weights
from waveglow.config import Config, build_model

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**63, 2**64, 10**400, -(10**9), 10**11])
    | st.floats()
    | st.text(max_size=5)
    | st.builds(torch.zeros, st.integers(0, 3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
"Anything that a pickle can hold in the place of what belongs there."


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a corpus and of a run of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    make_corpus(folder / "corpus")
    start(toy_config(), folder / "corpus", folder / "out", max_steps=2)
    return folder


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


def test_auto_passes_over_a_checkpoint_with_a_flipped_bit(config, corpus, tmp_path, caplog):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=4, iters_per_checkpoint=2)
    content = bytearray((out / "waveglow_4").read_bytes())
    weight = native.load(out / "waveglow_4")["model"]["WN.0.start.weight_v"].numpy().tobytes()
    content[content.index(weight)] ^= 1
    (out / "waveglow_4").write_bytes(content)
    run = make_run(config[1], out)
    run.start("auto")
    assert run.progress.iteration == 2
    assert "passed over: " in caplog.text and "waveglow_4 is damaged" in caplog.text


@pytest.mark.parametrize("set_back", [3600, 10**9])
def test_a_clock_set_back_changes_nothing(config, corpus, tmp_path, monkeypatch, set_back):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=4)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - set_back)
    later, _ = start(config[1], corpus, out, resume="no", max_steps=2, learning_rate=1e-4)
    os.utime(out / "waveglow_2", (0, 0))
    again = make_run(config[1], out, max_steps=3, learning_rate=1e-4)
    again.start("auto")
    assert again.progress.losses == later.progress.losses
    assert [saved.path.name for saved in again.saved()] == ["waveglow_2"]


def at(state: dict, keys: tuple, value) -> None:
    for key in keys[:-1]:
        state = state[key]
    state[keys[-1]] = value


PLACES = [
    ("config",), ("config", "waveglow_config"), ("config", "waveglow_config", "n_flows"),
    ("config", "train_config", "seed"), ("config", "train_config", "anneal_epochs"), ("config", "data_config"),
    ("iteration",), ("progress",), *(("progress", name) for name in Progress.__dataclass_fields__),
    ("precision",), ("precision", "scale"), ("rng_states",), ("rng_states", 0), ("rng_states", 0, "cpu"),
    ("model",), ("model", "WN.0.start.bias"), ("optimizer",), ("optimizer", "state"), ("optimizer", "param_groups"),
    ("optimizer", "state", 0), ("optimizer", "state", 3, "exp_avg"), ("optimizer", "state", 1, "step"),
]  # fmt: skip


@settings(FEW, max_examples=20)
@given(place=st.sampled_from(PLACES), value=ODD)
def test_whatever_stands_in_a_checkpoint_is_taken_or_refused_in_one_line(trained, place, value):
    """By whoever reads one: to resume, to finetune, to speak; and a run that was refused is as it was."""
    state = native.load(trained / "out/waveglow_2")
    at(state, place, value)
    path = trained / "odd"
    torch.save(state, path)
    run = make_run(toy_config(), trained / "odd out", max_steps=3)
    before = weights(run).clone()
    readers = {
        "resume": lambda: run.start(str(path)),
        "finetune": lambda: make_run(toy_config(), trained / "odd out", checkpoint_path=str(path)).start("no"),
        "with Adam": lambda: load_adam(path),
        "speak": lambda: inference.load(path, "waveglow", Config, build_model),
    }
    for name, reader in readers.items():
        try:
            reader()
        except UserError as error:
            assert str(error).count("\n") <= 9 and len(str(error)) < 2000
            if name == "resume":
                assert torch.equal(weights(run), before)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("exp_avg", torch.zeros(1), r"exp_avg of its parameter 1 is \[1\], not "),
        ("exp_avg_sq", None, "exp_avg_sq of its parameter 1 is missing"),
        ("exp_avg_sq", -torch.ones(6), "exp_avg_sq of its parameter 1 has squares below 0"),
        ("step", torch.tensor(float("nan")), "the steps of its parameter 1"),
    ],
)
def test_the_optimizer_is_checked_against_the_model(trained, name, value, said):
    """Adam would write beyond the end of the smaller one: signal 11."""
    state = native.load(trained / "out/waveglow_2")
    state["optimizer"]["state"][1][name] = value
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match=said):
        make_run(toy_config(), trained / "out").start(str(trained / "odd"))


@FEW
@given(missing=st.sets(st.integers(0, 43), min_size=1, max_size=43), extra=st.integers(44, 10**6) | st.just("0"))
def test_an_optimizer_of_other_parameters_is_refused(trained, missing, extra):
    for names in (missing, [extra]):
        state = native.load(trained / "out/waveglow_2")
        kept = state["optimizer"]["state"]
        assert kept.keys() == set(range(44))
        changed = {number: kept[number] for number in kept.keys() - missing} if names is missing else kept | {extra: {}}
        with pytest.raises(UserError, match="not that of 44 parameters"):
            checked_adam("x", {"state": changed}, make_run(toy_config(), trained / "out").optimizer)


@pytest.mark.parametrize("place", [("iteration",), ("progress", "iteration")])
@pytest.mark.parametrize("value", [0, 1, 3, 10**9])
def test_two_words_on_how_far_it_is_are_refused(trained, place, value):
    state = native.load(trained / "out/waveglow_2")
    at(state, place, value)
    torch.save(state, trained / "odd")
    with pytest.raises(
        UserError, match=f"its iteration is .*{value}" if len(place) == 1 else f"{value} in its progress"
    ):
        make_run(toy_config(), trained / "out").start(str(trained / "odd"))


def test_a_checkpoint_of_the_other_model_is_said_to_be_one(trained):
    state = native.load(trained / "out/waveglow_2")
    state["config"]["tacotron2_config"] = state["config"].pop("waveglow_config")
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match="a checkpoint of Tacotron2, and one of WaveGlow is needed"):
        make_run(toy_config(), trained / "out").start(str(trained / "odd"))


def test_weights_that_are_no_numbers_are_refused(trained):
    state = native.load(trained / "out/waveglow_2")
    state["model"]["WN.0.start.bias"][0] = float("nan")
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match=r"not finite: in WN\.0\.start\.bias and 0 other"):
        inference.load(trained / "odd", "waveglow", Config, build_model)


def test_a_field_of_a_newer_version_is_said_and_ignored(trained, caplog):
    state = native.load(trained / "out/waveglow_2")
    state["progress"]["mood"], state["config"]["waveglow_config"]["n_moods"] = 3, 4
    torch.save(state, trained / "odd")
    run = make_run(toy_config(), trained / "out")
    run.start(str(trained / "odd"))
    assert run.progress.iteration == 2
    assert "progress.'mood' is not known here" in caplog.text
    assert "waveglow_config: 'n_moods' is not known here" in caplog.text


def test_sizes_are_compared_before_they_cost_memory(trained):
    """The configuration says 60 GB, the file holds some KB."""
    state = native.load(trained / "out/waveglow_2")
    state["config"]["waveglow_config"]["WN_config"] |= {"n_channels": 16384, "n_layers": 8}
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match="does not fit the model"):
        inference.load(trained / "odd", "waveglow", Config, build_model)


CONFIG_FIELDS = [
    (section, name) for section in ("train_config", "data_config", "waveglow_config")
    for name in getattr(Config(), section).__dataclass_fields__
]  # fmt: skip


@FEW
@given(field=st.sampled_from(CONFIG_FIELDS), value=ODD | st.sampled_from([10**6, 10**9, 2**64, 1e300]))
def test_a_configuration_is_taken_or_refused_by_name(field, value):
    section, name = field
    try:
        from_dict(Config, {section: {name: value}})
    except UserError as error:
        assert name in str(error) and len(str(error)) < 500
    else:
        if isinstance(value, int):
            assert value <= 2**62


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"train_config": {"seed": ' + "1" * 500_000 + "}}", "is not JSON"),
        ('{"train_config": {"epochs": 1' + "0" * 400 + "}}", "epochs is 1000.*must be at most"),
        (" " * 2**21, "more than 1048576 bytes"),
    ],
)
def test_a_configuration_file_is_read_within_limits(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=said):
        load_config(tmp_path / "a.json", Config)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize("reader", [native.load, read, lambda path: load_config(path, Config)])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, kind, reader):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = {"device": "/dev/zero", "folder": str(tmp_path)}.get(kind, kind)
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path)
    with pytest.raises(UserError, match=rf"is a {kind}|config .*: Is a directory"):
        reader(path)


def test_links_that_lead_to_each_other(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    loop = str(tmp_path / "a")
    for options, resume in (({"checkpoint_path": loop}, "no"), ({}, loop)):
        with pytest.raises(UserError, match=f"cannot read {loop}: Too many levels of symbolic links"):
            make_run(toy_config(), tmp_path / "out", **options).start(resume)


def short_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = (
    b"(" + short_text("storage") + b"ctorch\nFloatStorage\n" + short_text("0") + short_text("cpu") + b"M\xe8\x03tQ"
)
ONE_TENSOR = REBUILD + b"(" + STORAGE + b"K\x00M\xe8\x03\x85K\x01\x85tR"
DOUBLED = b"\x94".join([b")", *[b"2\x86"] * 60])
"A pair of a pair of a pair ...: two to the power of 60 parts for whoever walks through them."
BOMBS = {
    "many tensors on one storage": b"(" + ONE_TENSOR * 2000 + b"t.",
    "a tuple as a key": b"}" + DOUBLED + b"Ns.",
    "a tuple in a set": b"\x8f(" + DOUBLED + b"\x90.",
    "bytes that are not there": b"\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a text that is not there": b"\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "a frame that is not there": b"\x95" + struct.pack("<Q", 2**40) + b"}.",
    "one list copied again and again": b"("
    + b"K\x01" * 5000 + b"tq\x00\x85q\x01" + b"ctorch\nSize\nh\x01R" * 40_000 + b".",
    "an integer that meets all others": b"}(" + b"".join(
        pickle.dumps(k * (2**61 - 1), 2)[2:-1] + b"N" for k in range(1, 50)
    ) + b"u.",
    "many dimensions": REBUILD + b"(" + STORAGE + b"K\x00(" + b"K\x01" * 5000 + b"t(" + b"K\x01" * 5000 + b"ttR.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_take_the_machine_down(name, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", BOMBS[name])
        archive.writestr("archive/data/0", bytes(4000))
    if name == "a frame that is not there":  # a frame is only a hint
        assert restricted_pickle.load(io.BytesIO(path.read_bytes())) == {}
        return
    for reader in (read, lambda path: read_mel(path, 80)):
        with pytest.raises(UserError, match=r"is refused|truncated or no checkpoint|not readable as a mel"):
            reader(path)


def test_a_packed_archive_is_not_unpacked_on_resuming(trained):
    with zipfile.ZipFile(trained / "out/waveglow_2") as old, zipfile.ZipFile(trained / "odd", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="compressed"):
        native.load(trained / "odd")


def test_circles_end(tmp_path):
    circle: dict = {}
    circle |= {str(i): circle for i in range(500)}
    torch.save(circle, tmp_path / "a")
    with pytest.raises(UserError, match="holds no weights"):
        read(tmp_path / "a")


def test_names_of_one_tensor_do_not_outgrow_the_file(tmp_path):
    tensor = torch.zeros(10**5)
    torch.save({"model": {f"WN.{i}.start.bias": tensor for i in range(200)}}, tmp_path / "a")
    with pytest.raises(UserError, match="so many names for one tensor"):
        read(tmp_path / "a")


def test_time_runs_out(monkeypatch):
    monkeypatch.setattr(budget, "SECONDS", -1.0)
    with pytest.raises(RefusedError, match="more time"):
        restricted_pickle.Unpickler(io.BytesIO(b"(" + b"N" * 2000 + b"t."), Budget(10)).load()


def test_memory_runs_out(monkeypatch):
    monkeypatch.setattr(budget, "MEMORY", 10**5)
    with pytest.raises(RefusedError, match="more memory"):
        restricted_pickle.Unpickler(io.BytesIO(b"(" + b"}" * 2000 + b"t."), Budget(10)).load()


def test_a_value_is_shown_in_short():
    nested: list = []
    for _ in range(60):
        nested = [nested, nested]
    circle: dict = {}
    circle["a"] = circle
    for value in (nested, circle, 10**5000, "x" * 10**6, pickle_names.Shell("a.B"), list(range(10**5))):
        assert len(shown(value)) < 300


def test_progress_comes_back_as_it_was():
    progress = Progress(5, 2, 1, 3, "a", "perf", 4, 1.5, [1.0, float("nan")], [(2, 0.5)])
    assert shown(vars(read_progress("x", vars(progress)))) == shown(vars(progress))


def test_the_shared_cases():
    folder = ROOT.parent / "shared/cases/checkpoints"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    for path in sorted(folder.iterdir()):
        if path.name not in ("optimizer_state_of_another_shape", "tacotron2_of_a_newer_version"):
            with pytest.raises(UserError):
                checkpoint = read(path)
                read_progress(path, checkpoint.progress)
                from_dict(Config, checkpoint.config)
