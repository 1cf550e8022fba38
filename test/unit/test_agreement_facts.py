"""What processes tell one another of their start, corpus and weights: by which names, and of which files."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tacotron2.config
import waveglow.config
from common import distributed
from common.device import pick_device
from common.precision import Precision
from common.program import UserError
from common.training import agreement
from common.training.agreement import facts_of_start


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A repository of a few files."""
    for name in (
        "common/a.py", "common/deep/words.txt", "common/__pycache__/a.pyc", "waveglow/b.py", "tacotron2/c.py", "d.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(agreement, "ROOT", tmp_path)
    return tmp_path


def code_of(facts):
    return {name.removeprefix("the code in "): v for name, v in facts.items() if name.startswith("the code in ")}


@pytest.mark.parametrize(("name", "own"), [("waveglow", "waveglow/b.py"), ("tacotron2", "tacotron2/c.py")])
def test_the_code_is_that_of_the_model_and_of_what_both_share(code, name, own):
    """Every file of it, whatever its kind, by its bytes."""
    package = {"waveglow": waveglow, "tacotron2": tacotron2}[name]
    before = code_of(facts_of_start(name, package.config.Config(), "auto", "acc"))
    assert before.keys() == {"common/a.py", "common/deep/words.txt", own}
    for path in before:
        (code / path).write_text("another")
        after = code_of(facts_of_start(name, package.config.Config(), "auto", "acc"))
        assert [each for each in before if before[each] != after[each]] == [path]
        (code / path).write_text(path)


def test_the_code_is_that_of_this_repository():
    code = code_of(facts_of_start("waveglow", waveglow.config.Config(), "auto", "acc"))
    assert "common/training/loop.py" in code and "waveglow/model.py" in code
    assert not any("tacotron2" in name or "pycache" in name for name in code)


@pytest.mark.parametrize(
    ("resume", "said"), [("auto", "auto"), ("no", "no"), ("a/waveglow_3", "a file"), ("", "a file")]
)
def test_options_that_are_in_no_configuration_are_told(code, resume, said):
    """A checkpoint's path is each machine's own."""
    config = waveglow.config.Config()
    facts = facts_of_start("waveglow", config, resume, "perf")
    assert (facts["network"], facts["case"], facts["--resume"], facts["finetuning"]) == (
        "waveglow",
        "perf",
        said,
        False,
    )
    config.train_config.checkpoint_path = "x"
    assert facts_of_start("waveglow", config, resume, "perf")["finetuning"] is True
    assert facts["waveglow_config.WN_config.n_layers"] == 8 and facts["train_config.seed"] == 1234
    assert not any(name.endswith((".output_directory", ".checkpoint_path", ".workers")) for name in facts)


@pytest.fixture
def told(monkeypatch):
    """What two processes compare, and with what advice."""
    told = []
    monkeypatch.setattr(agreement, "ranks", lambda: distributed.Ranks(0, 2, 0))
    monkeypatch.setattr(agreement, "agree", lambda facts, *advice: told.append((facts, *advice)))
    return told


def digest(*parts):
    """Of the parts, each after its length."""
    total = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hashlib.sha256(total).hexdigest()[:12]


def test_a_corpus_is_told_by_its_clips_and_texts_and_the_files_by_their_numbers(told, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "contents", dict)
    clips = [tmp_path / name for name in ("b.wav", "a.wav", "none.wav")]
    clips[0].write_bytes(b"12345")
    clips[1].write_bytes(b"")
    mels = {"the mels of a": Path("a.pt")}
    agreement.agree_on_corpus(clips, ["Ä.", ""], mels)
    agreement.agree_on_corpus(clips)
    (facts,), (files,), (plain,), (plain_files,) = told
    assert facts == {
        "the corpus' number of clips": 3,
        "the corpus' names of clips": digest(b"b.wav", b"a.wav", b"none.wav"),
        "the corpus' sizes of clips": digest(b"5", b"0", b"-1"),
        "the corpus' transcripts": digest("Ä.".encode(), b""),
    }
    assert plain == facts | {"the corpus' transcripts": digest()}
    assert files == {"clip 1, b.wav,": clips[0], "clip 2, a.wav,": clips[1], "clip 3, none.wav,": clips[2]} | mels
    assert plain_files == {name: path for name, path in files.items() if name not in mels}


def test_weights_are_told_by_their_master_copies_and_a_difference_by_its_iteration(told):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    precision = Precision("O2", 1.0, pick_device("cpu"), model)
    with torch.no_grad():
        precision.master_params[0].fill_(1 + 2.0**-20)  # finer than the model's own
    agreement.agree_on_start(model, precision, 5)
    agreement.agree_on_weights(model, precision, 6)
    (start,), (weights, advice) = told
    state = precision.model_state(model)
    assert start == {"the iteration to start from": 5} | {
        f"the start value of {name}": agreement.checksum(tensor) for name, tensor in state.items()
    }
    learned = ["0.bias", "1.weight", "1.bias"]
    assert weights == {name: agreement.checksum(state[name]) for name in learned}
    assert len(set(weights.values())) == 3
    assert advice == (
        "the weights are no longer the same after iteration 6, and no checkpoint of them is written;"
        " the same command goes on from the last one"
    )


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.int64]
)
def test_a_checksum_is_the_sum_of_the_bits_as_integers(dtype):
    numbers = torch.tensor([[1, 0], [3, 0]]).to(dtype)
    one, three = (torch.full((1,), value).to(dtype).view(torch.uint8).numpy().tobytes() for value in (1, 3))
    by_hand = int.from_bytes(one, "little") + int.from_bytes(three, "little")
    assert agreement.checksum(numbers.t()) == agreement.checksum(numbers) == by_hand
    assert agreement.checksum(torch.nn.Parameter(torch.zeros(0))) == 0


def test_a_file_is_digested_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "CHUNK", 4)
    (tmp_path / "a").write_bytes(b"abcdefghij")
    assert agreement.digest_of_file(tmp_path / "a") == digest(b"abcd", b"efgh", b"ij")
    assert agreement.digest_of_file(tmp_path) == agreement.digest_of_file(tmp_path / "none") == ""
    assert [agreement.size_of(tmp_path / name) for name in ("a", "none", ".")] == [10, -1, -1]


@pytest.mark.parametrize("reason", [OSError("gone"), UserError("no file")])
def test_a_file_that_fails_while_it_is_read_has_no_digest(tmp_path, monkeypatch, reason):
    def fail(path):
        raise reason

    monkeypatch.setattr(agreement, "open_input", fail)
    assert agreement.digest_of_file(tmp_path / "a") == ""


@pytest.mark.parametrize(
    ("rank", "machines", "own"),
    [
        (0, [0, 0, 2, 2], "ac"),
        (1, [0, 0, 2, 2], "bd"),
        (2, [0, 0, 2, 2], "ac"),
        (3, [0, 1, 1, 1], "c"),
        (0, [0, 1], "abcd"),
    ],
)
def test_the_processes_of_a_machine_share_the_files(monkeypatch, rank, machines, own):
    """Each reads every second or third one, in their order; and then knows what all of its machine have read."""
    local = rank - machines[rank]
    monkeypatch.setattr(agreement, "ranks", lambda: distributed.Ranks(rank, len(machines), local))
    monkeypatch.setattr(agreement, "digest_of_file", lambda path: f"digest of {path}")
    gathered = []

    def gather(value):
        gathered.append(value)
        if value == machines[rank]:
            return machines
        return [value if other == rank else {f"of {other}": "x"} for other in range(len(machines))]

    monkeypatch.setattr(agreement, "gather_objects", gather)
    found = agreement.contents({name: Path(name) for name in "abcd"})
    ours = {name: f"digest of {name}" for name in own}
    assert gathered == [machines[rank], ours]
    here = [other for other, machine in enumerate(machines) if machine == machines[rank] and other != rank]
    assert found == ours | {f"of {other}": "x" for other in here}


def test_one_process_compares_nothing(monkeypatch):
    monkeypatch.setattr(agreement, "agree", lambda *_: pytest.fail("there is nobody to agree with"))
    model = SimpleNamespace()
    agreement.agree_on_corpus([Path("none")])
    agreement.agree_on_start(model, model, 0)
    agreement.agree_on_weights(model, model, 0)
