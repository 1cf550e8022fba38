"""Processes of one training: they wait for each other by name, and refuse to train together if they are not alike."""

import os
import re
import subprocess
import sys
import threading
from dataclasses import asdict, fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_faults import FAULT, train  # noqa: F401 - the fixture
from torch.distributed import HashStore

import waveglow.config
from common import distributed, meeting
from common.program import UserError
from common.training.agreement import MAY_DIFFER, checksum, facts_of_corpus, facts_of_start
from conftest import ROOT, make_corpus, run_script

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"A machine that others use, too, is no mistake of the tests."

KINDS = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]


@BUSY
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.text(max_size=3)), min_size=1))
def test_what_differs_is_named_and_nothing_else(everyones):
    differ = {name for facts in everyones for name in facts if any(f.get(name) != facts[name] for f in everyones)}
    found = meeting.differing(everyones)
    assert {line.split(" is ")[0] for line in found} == differ
    assert len(found) == len(differ)


def test_who_has_what_is_told():
    with pytest.raises(UserError, match=r"^the processes disagree: size is 4 on rank 0, 2, 2 on rank 1: mend it$"):
        meeting.check_same([{"size": 4}, {"size": 2}, {"size": 4}], "mend it")


def test_those_who_meet_learn_of_each_other():
    store, met = HashStore(), {}

    def come(me):
        met[me] = meeting.meet(store, "rank", me, 3, {"number": me}, 60, print)

    threads = [threading.Thread(target=come, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert met == {me: [{"number": 0}, {"number": 1}, {"number": 2}] for me in range(3)}


def test_those_who_do_not_come_are_named_at_first_and_in_the_end(monkeypatch):
    monkeypatch.setattr(meeting, "SAY_AFTER", 0.1)
    store, said = HashStore(), []
    store.add("here/2", 1)
    with pytest.raises(UserError, match="rank 0 waited 1 s for rank 1, 3 of 4, which did not come"):
        meeting.meet(store, "rank", 0, 4, {}, 1, said.append)
    assert len(said) > 1 and said[0].startswith("rank 0 waits for rank 1, 3 of 4, for 0 s so far, at most 1 s")


def test_so_is_an_address_where_nobody_answers(monkeypatch):
    monkeypatch.setattr(meeting, "SAY_AFTER", 0.1)
    said = []
    with pytest.raises(UserError, match=r"waited 1 s for the first process, at 127.0.0.1:9 .* Connection refused"):
        meeting.connect("127.0.0.1", 9, False, 1, said.append)
    assert "Connection refused" in said[0]


@BUSY
@given(st.sampled_from(KINDS), st.data())
def test_any_bit_of_any_number_shows(kind, data):
    tensor = torch.arange(30).reshape(5, 6).to(kind).t()  # not contiguous
    other = tensor.contiguous()
    number = data.draw(st.integers(0, other.nbytes - 1))
    other.view(torch.uint8).view(-1)[number] ^= 1 << data.draw(st.integers(0, 7))
    assert checksum(other) != checksum(tensor)


def test_every_field_of_the_configuration_counts_but_those_of_a_machine(config):
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
@given(st.integers(1, 20_000), st.sampled_from([1, 2]), st.sampled_from(["A.", "B."]))
def test_clips_of_another_level_and_other_texts_show(tmp_path_factory, samples, factor, text):
    """However long the clips; their sizes are the same."""
    folder, audio = tmp_path_factory.mktemp("corpora"), np.arange(1, samples + 1, dtype="<i2")
    (folder / "ours.wav").write_bytes(bytes(44) + audio.tobytes())
    (folder / "theirs.wav").write_bytes(bytes(44) + (factor * audio).tobytes())
    ours, theirs = (facts_of_corpus([folder / f"{name}.wav"], [t]) for name, t in (("ours", "A."), ("theirs", text)))
    differ = {name.removeprefix("the corpus' ") for name in ours if ours[name] != theirs[name]}
    assert differ == {"names of clips"} | ({"samples"} if factor == 2 else set()) | (
        {"transcripts"} if text == "B." else set()
    )


def test_so_do_resume_and_the_code_of_this_model(tmp_path):
    base = waveglow.config.Config()
    auto, no = (facts_of_start("waveglow", base, resume, "acc") for resume in ("auto", "no"))
    one, other = (facts_of_start("waveglow", base, str(tmp_path / file), "acc") for file in ("a", "b"))
    assert auto != no and no != one and one == other
    code = [name for name in auto if name.startswith("the code in ")]
    assert "the code in common/training/loop.py" in code and "the code in waveglow/model.py" in code
    assert not any("tacotron2" in name or "pycache" in name for name in code)


@BUSY
@given(
    st.sampled_from(["WORLD_SIZE", "RANK", "LOCAL_RANK"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.integers().map(str),
)
def test_variables_of_a_launch_are_understood_or_named(name, value):
    with pytest.MonkeyPatch.context() as patch:
        for variable, number in {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "1", name: value}.items():
            patch.setenv(variable, number)
        try:
            found = distributed.ranks()
        except UserError as error:
            assert re.match("the variable (WORLD_SIZE|RANK|LOCAL_RANK) is ", str(error))
        else:
            assert 0 <= found.local_rank <= found.rank < found.world_size


LEFT = {
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9",
    "TORCHELASTIC_ERROR_FILE": "/nowhere/error.json", "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
"Variables of a launch that has ended."


def test_a_program_of_one_process_does_not_take_leftover_variables_for_its_own(tmp_path):
    command = [sys.executable, "tools/convert_checkpoint.py", tmp_path / "none", tmp_path / "new"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | LEFT, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ")


@pytest.mark.slow
def test_nor_does_a_script(checkout, config):
    corpus = make_corpus(checkout / "a corpus")
    options = [f"--config={config[0]}", f"--data_path={corpus}", f"--output_directory={checkout / 'out'}"]
    done = run_script(checkout, "train_performance_1p.sh", *options, "--device=cpu", "--max_steps=1", **LEFT)
    assert done.returncode == 0, done.stderr
    assert (checkout / "out/waveglow_1").is_file()


def test_a_training_that_waits_in_vain_says_so_on_the_terminal(config, corpus, tmp_path):
    """Though its log is elsewhere, and it is not the first rank."""
    options = [f"--config={config[0]}", f"--data_path={corpus}", "--device=cpu", f"--log_directory={tmp_path / 'logs'}"]
    command = [sys.executable, "-m", "waveglow.train", *options, f"--output_directory={tmp_path / 'out'}"]
    left = LEFT | {"MASTER_PORT": "none"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | left, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the variable MASTER_PORT is 'none', must be a number from 1 to 65535")


@pytest.mark.slow
def test_weights_that_part_are_named_and_no_checkpoint_is_written(train, tmp_path):  # noqa: F811
    done = train("out", "diverging:1:1", "--max_steps=3")
    assert FAULT in done.logs[1]
    assert done.returncode == 1
    assert "failed: the processes disagree: WN." in done.stderr and "after iteration 3" in done.stderr
    assert not list((tmp_path / "out").glob("waveglow_*"))
