"""Held-back clips: what is validated is never learned, and every process's share of it counts by its clips."""

from itertools import islice

import pytest
import soundfile
import torch

import tacotron2.train
import waveglow.train
from common import distributed
from conftest import RATE, make_corpus, toy_config, toy_tacotron2_config
from runs import PACKAGES, make_run

NO_DROPOUT = {"p_prenet_dropout": 0.0, "p_attention_dropout": 0.0, "p_decoder_dropout": 0.0}
"Its masks depend on which clips share a batch."
TACOTRON2 = toy_tacotron2_config()
CONFIGS = {
    "waveglow": toy_config(),
    "tacotron2": TACOTRON2 | {"tacotron2_config": TACOTRON2["tacotron2_config"] | NO_DROPOUT},
}
HELD_BACK = {f"clip{i:02}.wav" for i in (0, 1)}
TRAINED = {f"clip{i:02}.wav" for i in range(2, 20)}


@pytest.fixture(autouse=True)
def no_gradients():
    """As around a validation in the loop."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """20 clips, of which two are held back; of each WaveGlow hears two segments."""
    return make_corpus(tmp_path_factory.mktemp("tones") / "corpus", clips=20, seconds=0.2)


def make_task(name, corpus, output, training_files="", validation_files=None, **changes):
    """(run, task); without ``corpus`` the file lists decide."""
    lists = {"training_files": str(training_files)}
    if validation_files:
        lists["validation_files"] = str(validation_files)
    values = CONFIGS[name] | {"data_config": CONFIGS[name].get("data_config", {}) | lists}
    run = make_run(values, output, batch_size=2, **changes)
    run.model.eval()
    return run, PACKAGES[name].train.make_task(run, str(corpus or ""))


def write_list(path, name, corpus, numbers):
    """A file list as each model's is."""
    text = "|A tone." if name == "tacotron2" else ""
    path.write_text("".join(f"{corpus}/wavs/clip{i:02}.wav{text}\n" for i in numbers))
    return path


def learned(task):
    """The clips of the first epoch, in their order."""
    return [name for batch in islice(task.batches(0, 0), task.clips_per_epoch // 2) for name in batch["names"]]


def validated(name, task, monkeypatch):
    """The clips that a validation takes, in their order."""
    found, package = [], {"waveglow": waveglow.train, "tacotron2": tacotron2.train}[name]
    load = package.load

    def spy(*args, **options):
        for batch in load(*args, **options):
            found.extend(batch["names"])
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(package, "load", spy)
        task.validate()
    return found


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("listed", [False, True])
def test_the_first_tenth_is_validated_and_the_rest_is_learned(name, corpus, tmp_path, monkeypatch, listed):
    """Of a corpus, or of a file that lists clips."""
    files = write_list(tmp_path / "files.txt", name, corpus, range(20)) if listed else ""
    _, task = make_task(name, None if listed else corpus, tmp_path, files)
    assert sorted(learned(task)) == sorted(TRAINED)
    assert task.clips_per_epoch == len(TRAINED)
    assert set(validated(name, task, monkeypatch)) == HELD_BACK


def test_a_list_of_held_back_clips_leaves_all_others_to_the_training(corpus, tmp_path, monkeypatch):
    lists = [
        write_list(tmp_path / f"{numbers[0]}.txt", "tacotron2", corpus, numbers) for numbers in (range(2, 20), [0, 1])
    ]
    _, task = make_task("tacotron2", None, tmp_path, *lists)
    assert sorted(learned(task)) == sorted(TRAINED)
    assert sorted(validated("tacotron2", task, monkeypatch)) == sorted(HELD_BACK)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_validation_loss_hears_the_held_back_clips_alone(name, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=5, seconds=0.2)
    _, task = make_task(name, corpus, tmp_path / "out")
    losses = [task.validate()]
    for number in (3, 0):
        path = corpus / f"wavs/clip{number:02}.wav"
        audio, rate = soundfile.read(path)
        soundfile.write(path, audio[::-1] * 3, rate, subtype="PCM_16")
        losses.append(task.validate())
    assert losses[1] == losses[0]
    assert losses[2] != losses[1]


@pytest.mark.parametrize("name", CONFIGS)
def test_processes_share_a_validation_by_its_clips(name, corpus, tmp_path, monkeypatch):
    """Three processes have shares of unequal size: what they add up to is what one alone finds."""
    _, task = make_task(name, corpus, tmp_path)
    alone = task.validate()
    names = validated(name, task, monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "3")
    # What a process contributes to the sum that all of them get.
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda tensor: tensor)
    shares, heard = [], []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(task.validate())
        heard += validated(name, task, monkeypatch)
    assert len({round(share, 3) for share in shares}) > 1
    assert sum(shares) == pytest.approx(alone, rel=5e-6)
    assert sorted(heard) == sorted(names)


def test_a_segment_counts_the_same_in_a_batch_of_any_size(tmp_path):
    """Three segments, in batches of two and one."""
    corpus = make_corpus(tmp_path / "corpus", clips=3, seconds=3.3 * 2048 / RATE)
    run, task = make_task("waveglow", corpus, tmp_path)
    in_pairs = task.validate()
    run.config.train_config.batch_size = 1
    assert task.validate() == pytest.approx(in_pairs, rel=1e-5)


def test_the_sigma_of_the_configuration_is_that_of_the_loss(corpus, tmp_path):
    """loss = a / sigma² - b."""
    losses = [make_task("waveglow", corpus, tmp_path, sigma=sigma)[1].validate() for sigma in (0.5, 1.0, 2.0)]
    assert losses[0] - losses[1] == pytest.approx(4 * (losses[1] - losses[2]), rel=1e-5)
    assert losses[1] > losses[2]
