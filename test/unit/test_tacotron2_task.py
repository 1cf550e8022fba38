"""What Tacotron2 gives the training loop: clips, batches, the size of an epoch, and what it says of the alignment."""

import logging
import sys
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from common import distributed
from common.bad_clips import BadClips
from common.config_reading import from_dict
from common.program import UserError
from conftest import RATE, make_corpus
from runs import in_processes, make_run, names_in
from tacotron2 import train
from tacotron2.alignment import alignment_quality
from tacotron2.config import Config, build_model
from tacotron2.data import find_utterances
from tacotron2.loss import Tacotron2Loss

LENGTHS = [4000 + 500 * i for i in range(13)]


@pytest.fixture
def corpus(tmp_path):
    """13 clips, each longer than the one before; the first is held back."""
    folder = make_corpus(tmp_path / "corpus", seconds=0.2)
    for i, length in enumerate(LENGTHS):
        soundfile.write(folder / f"wavs/clip{i:02}.wav", 0.1 * np.sin(np.arange(length)), RATE)
    return folder


def test_an_epoch_is_of_the_training_clips_and_a_clip_as_long_as_their_mean(toy, corpus, tmp_path):
    task = train.make_task(make_run(toy, tmp_path / "out"), str(corpus))
    assert task.clips_per_epoch == 12
    assert task.samples_per_clip == sum(LENGTHS[1:]) // 12
    (first,) = names_in(task, 1)
    assert len(first) == 4 and "clip00.wav" not in [name for batch in names_in(task) for name in batch]


def test_the_order_is_drawn_from_the_seed_of_the_training(toy, corpus, tmp_path):
    orders = [names_in(train.make_task(make_run(toy, tmp_path / "out", seed=seed), str(corpus))) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_clips_that_are_skipped_are_in_no_count(toy, corpus, tmp_path, caplog):
    """Neither in the log's nor in the length of a clip."""
    caplog.set_level(logging.INFO)
    soundfile.write(corpus / "wavs/clip12.wav", np.zeros(LENGTHS[12]), RATE)
    task = train.make_task(make_run(toy, tmp_path / "out", on_bad_clip="skip"), str(corpus))
    assert (task.clips_per_epoch, task.samples_per_clip) == (11, sum(LENGTHS[1:12]) // 11)
    seconds = sum(LENGTHS[:12]) / RATE
    said = f"data: 12 clips, {seconds:.0f} s, the longest {LENGTHS[11] / RATE:.1f} s; {12 * 7} symbols, at most 7"
    assert said in caplog.text


@pytest.mark.parametrize("dictionary", ["", "words.dict"])
def test_all_processes_must_have_the_same_corpus(toy, corpus, tmp_path, monkeypatch, dictionary):
    """The clips with their texts, the held-back ones too, and the dictionary that reads them."""
    compared = []
    monkeypatch.setattr(train, "agree_on_corpus", lambda *given: compared.append(given))
    path = tmp_path / "words.dict"
    path.write_text("TONE  T OW1\n")
    toy["data_config"] = {"dictionary": str(path)} if dictionary else {}
    train.make_task(make_run(toy, tmp_path / "out"), str(corpus))
    ((clips, texts, others),) = compared
    assert sorted(clip.name for clip in clips) == [f"clip{i:02}.wav" for i in range(13)]
    assert texts == ["A tone."] * 13
    assert others == ({"the dictionary": path} if dictionary else {})


@pytest.mark.parametrize(
    ("steps", "diagonality", "warned"),
    [(9, 0.0, False), (10, 0.0, True), (10, 0.69, True), (10, 0.7, False), (11, 0.71, False), (9, 0.71, False)],
)
def test_an_alignment_is_missed_from_a_step_on_and_below_a_measure(caplog, steps, diagonality, warned):
    caplog.set_level(logging.INFO)
    settings = SimpleNamespace(align_by=10)
    progress = SimpleNamespace(iteration=steps + 100, steps=steps)
    run = SimpleNamespace(progress=progress, config=SimpleNamespace(train_config=settings))
    train.report_alignment(run, diagonality)
    first, *others = (record.getMessage() for record in caplog.records)
    assert first == f"iteration {steps + 100}: alignment diagonality:{diagonality:.3f}"
    assert len(others) == warned
    if warned:
        assert others[0].startswith(
            f"iteration {steps + 100}: still no diagonal alignment ({diagonality:.2f} of 1, 0.7"
        )


@pytest.mark.parametrize("count", [1, 2, 3, 14])
def test_each_process_looks_at_a_share_of_the_clips_and_knows_of_all(toy, corpus, tmp_path, monkeypatch, caplog, count):
    caplog.set_level(logging.INFO)
    soundfile.write(corpus / "wavs/clip03.wav", np.zeros(LENGTHS[3]), RATE)
    config = from_dict(Config, toy)
    clips = [clip for some in find_utterances(config.data_config, str(corpus)) for clip in some]
    looked_at, look = [], train.count_samples_and_symbols
    monkeypatch.setattr(
        train, "count_samples_and_symbols", lambda some, *rest: looked_at.extend(some) or look(some, *rest)
    )

    def census(rank):
        bad = BadClips("skip", tmp_path)
        return train.report_census(clips, config, bad), [path.name for path in bad.paths]

    lengths = {f"clip{i:02}.wav": length for i, length in enumerate(LENGTHS)} | {"clip03.wav": 0}
    assert (
        in_processes(monkeypatch, count, census)
        == [([lengths[clip.path.name] for clip in clips], ["clip03.wav"])] * count
    )
    assert sorted(clip.path for clip in looked_at) == sorted(clip.path for clip in clips)
    seconds, symbols = (sum(LENGTHS) - LENGTHS[3]) / RATE, 12 * 7
    (said,) = {record.getMessage() for record in caplog.records if record.getMessage().startswith("data: ")}
    assert said.startswith(
        f"data: 12 clips, {seconds:.0f} s, the longest {max(LENGTHS) / RATE:.1f} s; {symbols} symbols"
    )


@pytest.mark.parametrize("frames_per_step", [1, 2])
def test_a_validation_is_the_mean_over_the_held_back_clips_of_all_processes(
    toy, corpus, tmp_path, monkeypatch, frames_per_step
):
    (tmp_path / "list.txt").write_text("".join(f"{corpus}/wavs/clip{i:02}.wav|A tone.\n" for i in range(5)))
    toy["data_config"] = {"training_files": str(tmp_path / "list.txt"), "validation_files": str(tmp_path / "list.txt")}
    toy["tacotron2_config"] |= {"p_prenet_dropout": 0.0, "n_frames_per_step": frames_per_step}
    run = make_run(toy, tmp_path / "out", batch_size=1)
    task, reported, sums = train.make_task(run, ""), [], []
    run.model.eval()
    monkeypatch.setattr(train, "report_alignment", lambda run, diagonality: reported.append(diagonality))
    with torch.no_grad():
        alone = task.validate()
        losses, diagonalities = [], []
        for batch in islice(task.batches(0, 0), 5):
            loss, output = train.run_teacher_forced(run.model, batch, run, Tacotron2Loss(0.0, frames_per_step))
            losses.append(loss.item())
            diagonalities.append(alignment_quality(output[3][0]).diagonality)
        assert alone == pytest.approx(np.mean(losses)) and reported == [pytest.approx(np.mean(diagonalities))]
        monkeypatch.setattr(distributed, "sum_over_ranks", lambda tensor: sums.append(tensor.clone()) or tensor)
        for rank in range(2):
            monkeypatch.setattr(distributed, "ranks", lambda rank=rank: distributed.Ranks(rank, 2, rank))
            task.validate()
    assert (sum(sums) / 5).tolist() == pytest.approx([alone, reported[0]])


def test_diagonality_is_measured_without_padding():
    """Of the steps and symbols of each clip; the last step may be short of frames."""
    alignments = torch.rand(2, 5, 7)
    batch = {"mel_lengths": torch.tensor([9, 4]), "text_lengths": torch.tensor([7, 3])}
    expected = alignment_quality(alignments[0]).diagonality + alignment_quality(alignments[1, :2, :3]).diagonality
    assert train.sum_of_diagonality(alignments, batch, 2) == pytest.approx(expected)


def test_pictures_are_of_the_first_held_back_clip(toy, corpus, tmp_path, monkeypatch):
    run, shown, plotted = make_run(toy, tmp_path / "out"), {}, []
    task = train.make_task(run, str(corpus))
    run.model.eval()
    monkeypatch.setattr(train, "plot_sample", lambda mel, output: plotted.append((mel, output)) or {"gate": "a figure"})
    writer = SimpleNamespace(add_figure=lambda name, figure, iteration: shown.update({name: (figure, iteration)}))
    with torch.no_grad():
        task.show(writer, 7)
        task.show(writer, 8)
    assert shown == {"clip/gate": ("a figure", 8)}
    (mel, output), (_, again) = plotted
    assert mel.shape == (6, LENGTHS[0] // 256 + 1) == output[0][0].shape
    assert all(torch.equal(a, b) for a, b in zip(output, again, strict=True))  # drawn anew, the dropout is the same


def test_a_sample_is_drawn_as_it_was_recorded_and_predicted(monkeypatch):
    drawn = {}
    for name in ("plot_alignment", "plot_spectrograms", "plot_gate"):
        monkeypatch.setattr(train.pictures, name, lambda what, name=name: drawn.update({name: what}) or name)
    mel = torch.rand(6, 4)
    output = torch.rand(1, 6, 4), torch.rand(1, 6, 4), torch.randn(1, 4), torch.rand(1, 4, 3)
    assert train.plot_sample(mel, output) == {
        "alignment": "plot_alignment", "mel spectrograms": "plot_spectrograms", "gate": "plot_gate",
    }  # fmt: skip
    assert torch.equal(drawn["plot_alignment"], output[3][0])
    assert torch.equal(drawn["plot_gate"], output[2][0].sigmoid())
    recorded, predicted = drawn["plot_spectrograms"].values()
    assert list(drawn["plot_spectrograms"]) == ["recorded", "predicted"]
    assert torch.equal(recorded, mel) and torch.equal(predicted, output[1][0])


def test_the_settings_of_a_training_reach_what_they_are_of(toy, corpus, tmp_path, monkeypatch):
    """How bad clips are met, where mels are kept, of which form they are, the loss's guide, the batches."""
    made = {}

    def note(name, real):
        def make(*given):
            made.setdefault(name, []).append(given)
            return real(*given)

        monkeypatch.setattr(train, name, make)

    for name in ("BadClips", "MelCache", "Utterances", "Tacotron2Loss", "bucketed", "training_batches"):
        note(name, getattr(train, name))
    toy["tacotron2_config"]["n_frames_per_step"] = 2
    run = make_run(toy, tmp_path / "out", on_bad_clip="skip", guided_attention=0.5, batch_size=3, seed=9)
    task = train.make_task(run, str(corpus))
    data = run.config.data_config
    assert made["BadClips"] == [("skip", tmp_path / "out")]
    ((folder, config, mel),) = made["MelCache"]
    assert (folder, config, len(mel.filters)) == (tmp_path / "out/mels", data, 6)
    (training, *rest), (held_back, *same) = made["Utterances"]
    assert rest == same and rest[0] is data and rest[2] == "skip" and rest[1].folder == folder
    assert [clip.path.name for clip in held_back] == ["clip00.wav"] and len(training) == 12
    assert made["Tacotron2Loss"] == [(0.5, 2)]
    assert made["bucketed"] == [(LENGTHS[1:], 3, 9)]
    ((some, _, settings, device, join),) = made["training_batches"]
    assert (
        some.clips == training
        and settings is run.config.train_config
        and device is run.device
        and join is train.collate
    )
    assert len(next(iter(task.batches(0, 0)))["names"]) == 3


@pytest.mark.parametrize("local_rank", [0, 1])
def test_one_process_of_a_machine_clears_the_cache_of_leftovers(toy, corpus, tmp_path, monkeypatch, local_rank):
    cleared = []
    monkeypatch.setattr(train, "remove_leftovers", cleared.append)
    run = make_run(toy, tmp_path / "out")
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(0, 1, local_rank))
    train.make_task(run, str(corpus))
    assert cleared == [tmp_path / "out/mels"] * (local_rank == 0)


def test_a_configuration_whose_symbols_are_not_known_is_refused(toy, corpus, tmp_path):
    toy["tacotron2_config"]["n_symbols"] = 60
    told = "the configuration has 60 symbols, and does not list them: tacotron2_config.n_symbols must be the number of"
    with pytest.raises(UserError, match=f"^{told} data_config.symbols$"):
        train.make_task(make_run(toy, tmp_path / "out"), str(corpus))


def test_the_program_trains_tacotron2(monkeypatch):
    given = []
    monkeypatch.setattr(train, "train_program", lambda *everything: given.append(everything))
    monkeypatch.setattr(sys, "argv", ["train", "--data_path=here", "--batch_size=3"])
    train.main()
    ((*what, args),) = given
    assert what == ["tacotron2", Config, build_model, train.make_task]
    assert (args.data_path, args.batch_size) == ("here", 3)


def test_what_is_random_in_validations_and_pictures_is_drawn_by_the_seed(toy, corpus, tmp_path, monkeypatch):
    run, given, own = make_run(toy, tmp_path / "out", seed=9), [], train.own_random_numbers
    task = train.make_task(run, str(corpus))
    run.model.eval()
    monkeypatch.setattr(train, "own_random_numbers", lambda *seed: given.append(seed) or own(*seed))
    monkeypatch.setattr(train, "plot_sample", lambda mel, output: {})
    with torch.no_grad():
        first = task.validate()
        torch.rand(5)
        assert task.validate() == first
        task.show(None, 1)
    assert given == [(9, run.device)] * 3
