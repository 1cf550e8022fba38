"""Processes of one training refuse to train together if they are not alike."""

import os
import threading
from dataclasses import asdict, fields, is_dataclass, replace

import pytest
import torch
from faulty_runs import FAULT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_settings import BUSY

import waveglow.config
from common import distributed
from common.device import pick_device
from common.precision import Precision
from common.training import agreement
from common.training.agreement import MAY_DIFFER, checksum, facts_of_start

pytest_plugins = ["faulty_runs"]


KINDS = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]


@pytest.mark.parametrize("world_size", [2, 3])
def test_corpus_start_and_weights_are_compared_where_there_are_several(monkeypatch, tmp_path, world_size):
    """By names, sizes and texts of the clips; by every weight, the fixed ones at the start alone."""
    asked = []
    monkeypatch.setattr(agreement, "ranks", lambda: distributed.Ranks(0, world_size, 0))
    monkeypatch.setattr(agreement, "agree", lambda facts, *_: asked.append(facts))
    (tmp_path / "a.wav").write_bytes(b"12")
    (tmp_path / "b.wav").write_bytes(b"123")
    corpora = [(["a"], "x"), (["a"], "x"), (["a"], "y"), (["b"], "x"), (["a", "b"], "x"), (["none"], "x")]
    for names, text in corpora:
        agreement.agree_on_corpus([tmp_path / f"{name}.wav" for name in names], [text])
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    precision = Precision("O0", 1.0, pick_device("cpu"), model)
    agreement.agree_on_start(model, precision, 5)
    agreement.agree_on_weights(model, precision, 6)
    *facts, start, weights = asked
    corpora, files = facts[::2], facts[1::2]
    assert corpora[0] == corpora[1] and all(corpora[0] != other for other in corpora[2:])
    assert not any(files)  # read only where there are several machines
    assert start.keys() == {"the iteration to start from", "the start value of weight", "the start value of bias"}
    assert start["the iteration to start from"] == 5 and weights == {"weight": checksum(model.weight)}


@BUSY
@given(st.sampled_from(KINDS), st.data())
def test_any_bit_of_any_number_shows(kind, data):
    tensor = torch.arange(30).reshape(5, 6).to(kind).t()  # not contiguous
    other = tensor.contiguous()
    number = data.draw(st.integers(0, other.nbytes - 1))
    other.view(torch.uint8).view(-1)[number] ^= 1 << data.draw(st.integers(0, 7))
    assert checksum(other) != checksum(tensor)


def test_every_field_of_the_configuration_counts_but_those_of_a_machine():
    base = waveglow.config.Config()
    plain = facts_of_start("waveglow", base, "auto", "acc")
    for section in (field.name for field in fields(base) if is_dataclass(getattr(base, field.name))):
        for name, value in asdict(getattr(base, section)).items():
            if isinstance(value, dict):
                continue
            changed = replace(base, **{section: replace(getattr(base, section))})
            object.__setattr__(getattr(changed, section), name, "another value")
            facts = facts_of_start("waveglow", changed, "auto", "acc")
            differ = {field for field in plain if plain[field] != facts[field]}
            if name == "checkpoint_path":
                assert differ == {"finetuning"}
            else:
                assert differ == (set() if name in MAY_DIFFER else {f"{section}.{name}"})


@BUSY
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.lists(st.binary(max_size=9), min_size=1), st.data())
def test_any_bit_of_any_file_shows_between_machines(tmp_path_factory, machines, files, data):
    """Each machine has a copy of the files; one bit of one may have flipped on one of them."""
    folder = tmp_path_factory.mktemp("machines")
    copies = [{f"file {n}": folder / f"{machine}_{n}" for n in range(len(files))} for machine in range(len(machines))]
    for copy in copies:
        for path, content in zip(copy.values(), files, strict=True):
            path.write_bytes(content)
    changed, name = data.draw(st.sampled_from(copies)), data.draw(st.sampled_from([*copies[0], "none"]))
    is_changed = name in changed and changed[name].stat().st_size > 0
    if is_changed:
        content = bytearray(changed[name].read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        changed[name].write_bytes(content)
    processes = [(local, copy) for number, copy in zip(machines, copies) for local in range(number)]
    found, read = contents_of_all(processes)
    if len(machines) == 1:
        assert not any(found) and not read
        return
    assert sorted(read) == sorted(path for copy in copies for path in copy.values())  # once each
    for (_, copy), digests in zip(processes, found, strict=True):
        assert digests.keys() == copy.keys()
        assert [n for n in copy if digests[n] != agreement.digest_of_file(copies[0][n])] == (
            [name] * is_changed if (copy is changed) != (copies[0] is changed) else []
        )


def contents_of_all(processes):
    """What ``contents`` gives to each process (its local rank, its files), and the files that were read."""
    here, meeting_point = threading.local(), threading.Barrier(len(processes))
    values, read, found = {}, [], {}

    def gather(value):
        values[here.rank] = value
        meeting_point.wait(60)
        everyones = [values[rank] for rank in range(len(processes))]
        meeting_point.wait(60)
        return everyones

    def look(rank, local, files):
        here.rank, here.local = rank, local
        found[rank] = agreement.contents(files)

    with pytest.MonkeyPatch.context() as patch:
        digest = agreement.digest_of_file
        patch.setattr(agreement, "ranks", lambda: distributed.Ranks(here.rank, len(processes), here.local))
        patch.setattr(agreement, "gather_objects", gather)
        patch.setattr(agreement, "digest_of_file", lambda path: read.append(path) or digest(path))
        threads = [threading.Thread(target=look, args=(rank, *process)) for rank, process in enumerate(processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    return [found[rank] for rank in range(len(processes))], read


def test_a_digest_tells_the_same_letters_in_other_parts():
    parts = ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"c", b"ab"], [b"abc", b""])
    assert len({agreement.digest(each) for each in parts}) == len(parts)


def test_long_files_have_a_digest_each_and_what_is_no_file_has_none(tmp_path):
    (tmp_path / "long").write_bytes(bytes(agreement.CHUNK + 1))
    (tmp_path / "longer").write_bytes(bytes(agreement.CHUNK + 2))
    os.mkfifo(tmp_path / "pipe")
    digests = [agreement.digest_of_file(tmp_path / name) for name in ("long", "longer", "none", "pipe")]
    assert len(set(digests)) == 3 and digests[2:] == ["", ""]


@pytest.mark.slow
def test_weights_that_part_are_named_and_no_checkpoint_is_written(train, tmp_path):
    done = train("out", "diverging:1:1", "--max_steps=3")
    assert FAULT in done.logs[1]
    assert done.returncode == 1
    assert "failed: the processes disagree: WN." in done.stderr and "after iteration 3" in done.stderr
    assert not list((tmp_path / "out").glob("waveglow_*"))
