"""Training Tacotron2: it learns, goes on exactly where it was, and shows and says how it gets on."""

import math
import re
from datetime import timedelta

import pytest
import torch
from tacotron2_toys import toy as toy_model
from tacotron2_toys import toy_batch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from common.checkpoints import native
from conftest import make_corpus, run_script, toy_tacotron2_config, write_config
from runs import CURVE, TOLERANCE, distance, make_run, model_of, same, start
from tacotron2 import train
from tacotron2.loss import Tacotron2Loss

NO_DROPOUT = {"p_prenet_dropout": 0.0, "p_attention_dropout": 0.0, "p_decoder_dropout": 0.0}
"In evaluation mode, where encoder and postnet have none either."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """13 clips of 18 frames, of which one is held back: an epoch has 3 steps."""
    return make_corpus(tmp_path_factory.mktemp("tones") / "corpus", seconds=0.2)


@pytest.fixture(scope="module")
def exact(corpus, tmp_path_factory):
    """The outcome of a short training in float32."""
    return start(toy_tacotron2_config(), corpus, tmp_path_factory.mktemp("O0"), **CURVE)


def test_training_lowers_the_validation_loss(exact):
    run, summary = exact
    before, after = (loss for _, loss in run.progress.validation_losses)
    assert summary.validation_loss == after < before / 2
    assert run.progress.losses[-1] < run.progress.losses[0] / 1.5
    assert summary.samples_per_second == pytest.approx(summary.clips_per_second * 4410)


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_half_precision_follows_float32(toy, corpus, tmp_path, exact, level):
    """In bfloat16."""
    half, _ = start(toy, corpus, tmp_path, amp=level, **CURVE)
    assert 0 < distance(half.progress.losses, exact[0].progress.losses) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("amp", ["O0", "O2"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_an_undisturbed_one(toy, corpus, tmp_path, amp, workers):
    """Bit for bit, from the middle of an epoch and across its end, all dropout on."""
    changes = {"amp": amp, "workers": workers}
    whole, _ = start(toy, corpus, tmp_path / "whole", max_steps=7, **changes)
    start(toy, corpus, tmp_path / "parts", max_steps=4, **changes)
    resumed, summary = start(toy, corpus, tmp_path / "parts", max_steps=7, **changes)
    assert summary.iteration == 7
    assert resumed.progress.losses == whole.progress.losses
    assert same(model_of(resumed), model_of(whole))
    assert resumed.progress.validation_losses[-1] == whole.progress.validation_losses[-1]


@pytest.mark.parametrize("lost", ["rng_states", "running_mean"])
def test_without_the_random_states_or_the_statistics_it_would_differ(toy, corpus, tmp_path, lost):
    """The test above can fail."""
    whole, _ = start(toy, corpus, tmp_path / "whole", max_steps=7)
    start(toy, corpus, tmp_path / "parts", max_steps=4)
    path = tmp_path / "parts/tacotron2_4"
    state = native.load(path)
    if lost == "rng_states":
        state["rng_states"] = [{"cpu": torch.Generator().manual_seed(5).get_state()}]
    else:
        state["model"]["encoder.convolutions.0.1.running_mean"] += 1e-3
    native.save(path, state)
    resumed, _ = start(toy, corpus, tmp_path / "parts", max_steps=7)
    assert not same(model_of(resumed), model_of(whole))


def test_validation_leaves_no_trace(toy, corpus, tmp_path):
    """It draws dropout of its own, the same each time, and moves no statistics."""
    rare, _ = start(toy, corpus, tmp_path / "rare", max_steps=4)
    often, _ = start(toy, corpus, tmp_path / "often", max_steps=4, iters_per_validation=1, with_tensorboard=True)
    assert len(often.progress.validation_losses) == 5
    assert often.progress.losses == rare.progress.losses
    assert same(model_of(often), model_of(rare))
    run = make_run(toy, tmp_path / "rare")
    task = train.make_task(run, str(corpus))
    run.start("auto")
    run.model.eval()
    with torch.no_grad():
        assert task.validate() == task.validate() == rare.progress.validation_losses[-1][1]


def test_a_step_that_is_not_finite_moves_nothing(toy, corpus, tmp_path):
    """Nor the statistics of batch norm, which a clip that is not finite reaches before the loss does."""

    def spoil(task, run):
        original = task.loss

        def loss(model, batch):
            if model.training:
                batch["mel"][:] = math.nan
            return original(model, batch)

        task.loss = loss

    before = model_of(make_run(toy, tmp_path / "out"))
    run, _ = start(toy, corpus, tmp_path / "out", max_steps=2, spoil=spoil)
    assert [math.isnan(loss) for loss in run.progress.losses] == [True, True]
    assert same(model_of(run), before)


def test_anneal_epochs_lower_the_learning_rate(toy, corpus, tmp_path):
    rates = []

    def watch(task, run):
        original = run.optimizer.step

        def step():
            rates.append(run.optimizer.param_groups[0]["lr"])
            original()

        run.optimizer.step = step

    start(toy, corpus, tmp_path / "out", epochs=4, anneal_epochs=[1, 3], spoil=watch)
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 6 + [1e-5] * 3)


def test_weight_decay_and_clipping_are_nvidias_by_default(toy, tmp_path):
    run = make_run(toy, tmp_path)
    assert run.optimizer.param_groups[0]["weight_decay"] == 1e-6
    assert run.config.train_config.grad_clip == 1.0


def test_missing_alignment_is_warned_of_in_time(toy, corpus, tmp_path, caplog, monkeypatch):
    options = {"align_by": 2, "iters_per_validation": 1, "max_steps": 3}
    start(toy, corpus, tmp_path / "bad", **options)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [re.match(r"iteration (\d): still no diagonal", warning)[1] for warning in warnings] == ["2", "3"]
    assert "guided_attention" in warnings[0]
    caplog.clear()
    monkeypatch.setattr(train, "sum_of_diagonality", lambda alignments, batch, n_frames_per_step: 0.8 * len(alignments))
    start(toy, corpus, tmp_path / "good", **options)
    assert "no diagonal" not in caplog.text


def test_guided_attention_is_part_of_the_loss(toy, corpus, tmp_path):
    plain, guided = (
        start(toy, corpus, tmp_path / str(weight), max_steps=1, guided_attention=weight)[0] for weight in (0.0, 10.0)
    )
    assert guided.progress.losses[0] > plain.progress.losses[0] + 0.1


def test_tensorboard_shows_alignment_mels_and_gate(toy, corpus, tmp_path):
    start(toy, corpus, tmp_path / "out", max_steps=2, iters_per_validation=2, with_tensorboard=True)
    board = EventAccumulator(str(tmp_path / "out/logs")).Reload()
    pictures = board.Tags()["images"]
    assert set(pictures) == {"clip/alignment", "clip/mel spectrograms", "clip/gate"}
    for name in pictures:
        assert [image.step for image in board.Images(name)] == [0, 2]
        assert board.Images(name)[0].width > 500
    assert [point.step for point in board.Scalars("loss/training")] == [1, 2]
    assert [point.step for point in board.Scalars("loss/validation")] == [0, 2]


# ---- several processes ----


def share_of_the_batch(rank: int | slice) -> list[torch.Tensor]:
    text, text_lengths, mel, mel_lengths = toy_batch()
    # All of one length, so that the mean over a share's frames counts each clip alike.
    text_lengths[:], mel_lengths[:] = 12, 25
    rows = slice(2 * rank, 2 * rank + 2) if isinstance(rank, int) else rank
    return [each[rows] for each in (text, text_lengths, mel, mel_lengths)]


def backward(network: torch.nn.Module, batch: list[torch.Tensor]) -> None:
    Tacotron2Loss(1.0)(network(*batch), batch[1], *batch[2:]).backward()


def gradients_of_a_share(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(minutes=4)
    )
    model = toy_model(**NO_DROPOUT)
    backward(DistributedDataParallel(model), share_of_the_batch(rank))
    torch.save({name: p.grad for name, p in model.named_parameters()}, f"{folder}/{rank}")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one_with_all_clips(tmp_path):
    """In evaluation mode: batch norm's statistics are of a process's own clips."""
    multiprocessing.start_processes(gradients_of_a_share, (str(tmp_path),), nprocs=2, start_method="forkserver")
    model = toy_model(**NO_DROPOUT)
    backward(model, share_of_the_batch(slice(4)))
    shares = [torch.load(tmp_path / str(rank)) for rank in range(2)]
    assert same(*shares)
    for name, parameter in model.named_parameters():
        assert (shares[0][name] - parameter.grad).abs().max() < 1e-5 * parameter.grad.abs().max() + 1e-7, name


@pytest.mark.slow
def test_two_processes_train_through_the_script(toy, checkout):
    """The log's validation loss is that of the weights in the checkpoint, and dropout is not the same on both."""
    corpus = make_corpus(checkout / "a corpus", clips=20, seconds=0.2)
    toy["tacotron2_config"]["p_prenet_dropout"] = 0.0
    config = write_config(checkout / "a config.json", toy)
    done = run_script(
        checkout, "train_full_8p.sh", "--network=Tacotron2", "--device=cpu", "--nproc=2", "--batch_size=2",
        f"--data_path={corpus}", f"--config={config}", "--output_directory=out", "--max_steps=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logs = [(checkout / f"test/output/{rank}/train_{rank}.log").read_text() for rank in (0, 1)]
    losses = [re.findall(r"^\d:\tloss:(\S+)", log, re.MULTILINE) for log in logs]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    result = (checkout / "test/output/0/Tacotron2_for_PyTorch_bs2_2p_acc.log").read_text()
    assert result.startswith("Network = Tacotron2_for_PyTorch\nRankSize = 2\nBatchSize = 2\n")
    assert "\nCaseName = Tacotron2_for_PyTorch_bs2_2p_acc\n" in result

    state = native.load(checkout / "out/tacotron2_4")
    drawn = [states["cpu"] for states in state["rng_states"]]
    assert not torch.equal(*drawn)
    run = make_run(toy, checkout / "out")
    task = train.make_task(run, str(corpus))
    run.precision.load_model_state(run.model, state["model"])
    run.model.eval()
    with torch.no_grad():
        expected = task.validate()
    assert state["progress"]["validation_losses"][-1][1] == pytest.approx(expected, rel=1e-5)


def test_finetuning_may_keep_adam(toy, tmp_path):
    """Its moments are the checkpoint's when finetuning begins."""
    corpus = make_corpus(tmp_path / "corpus", seconds=0.2)
    before, _ = start(toy, corpus, tmp_path / "a", max_steps=2)
    run = make_run(toy, tmp_path / "b", checkpoint_path=str(before.path()), keep_optimizer=True)
    run.start("auto")
    ours, theirs = (each.optimizer.state_dict()["state"] for each in (run, before))
    assert ours.keys() == theirs.keys() and len(ours) > 50
    for number, state in ours.items():
        assert all(torch.equal(state[name], theirs[number][name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_what_a_killed_run_left_in_the_cache_is_removed(corpus, tmp_path):
    (tmp_path / "out/mels").mkdir(parents=True)
    (tmp_path / "out/mels/.clip00_00000000.npy.1.part").write_bytes(b"half")
    train.make_task(make_run(toy_tacotron2_config(), tmp_path / "out"), str(corpus))
    assert not list((tmp_path / "out/mels").iterdir())
