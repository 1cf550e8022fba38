"""Huawei's own NpuFusedAdam, from the published wheel, over the emulated card: the stand-in's checks and trainings."""

import pytest
from emulator_runs import checks_in, run, run_checks

from conftest import EMULATOR, NPU, copy_repository, make_corpus, toy_config, toy_tacotron2_config, write_config
from huawei import WHEELS, unpacked
from runs import distance
from scripted import Place

OWN = EMULATOR / "huawei_checks.py"
OPTIMIZERS = {"optimizer": ["adam_keeps_using_the_first_gradients", "adam_clips"]}
PRODUCTS = {
    "product": ["the_references_curve", "an_overflow_on_the_device_is_skipped"],
    "tacotron2": ["half_precision_follows_float32", "a_run_of_the_cpu_goes_on_and_adam_counts_each_step_once"],
}
"Checks of the stand-in, and slow ones of the product with it, that hold for the real one."
OLDEST, NEWEST = WHEELS
VERSIONS = [pytest.param(OLDEST, marks=pytest.mark.slow), NEWEST]


@pytest.fixture(scope="module", params=VERSIONS)
def outcomes(request, npu_extension, tmp_path_factory):
    slow = request.config.getoption("--slow")
    those = OPTIMIZERS | PRODUCTS if slow else OPTIMIZERS
    others = [f"{EMULATOR / file}_checks.py::test_{name}" for file, names in those.items() for name in names]
    report = tmp_path_factory.mktemp("huawei") / "report.xml"
    return run_checks([OWN, *others], report, slow, NPU_EMULATOR_WHEEL=str(unpacked(request.param)))


@pytest.mark.parametrize(
    "name",
    [
        *checks_in(OWN),
        *(f"test_{name}" for names in OPTIMIZERS.values() for name in names),
        *(pytest.param(f"test_{name}", marks=pytest.mark.slow) for names in PRODUCTS.values() for name in names),
    ],
)
def test_in_one_process(name, outcomes):
    assert not outcomes[name], "\n".join(outcomes[name])


@pytest.mark.slow
@pytest.mark.parametrize("version", WHEELS)
@pytest.mark.parametrize("network", ["waveglow", "tacotron2"])
def test_in_two_processes(network, version, npu_extension):
    """The same checks, each in both; where one fails the other would wait for it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    checks = ["-m", "pytest", OWN, "-x", "-q", "-p", "no:cacheprovider", "-k", network]
    done = run(*launcher, *checks, NPU_EMULATOR_WHEEL=str(unpacked(version)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("[100%]") == 2


@pytest.mark.slow
@pytest.mark.parametrize("network", ["WaveGlow", "Tacotron2"])
def test_two_processes_train_as_with_the_stand_in(network, npu_extension, tmp_path):
    """Whose trainings equal those of the CPU."""
    checkout = copy_repository(tmp_path / "a check out")
    make_corpus(checkout / "a corpus", seconds=0.2)
    place = Place(checkout, network)
    write_config(checkout / "a config.json", toy_config() if network == "WaveGlow" else toy_tacotron2_config())
    wheel = NPU | {"NPU_EMULATOR_WHEEL": str(unpacked(NEWEST)), "NPU_EMULATOR_DEVICES": "2"}
    options = ["--device=npu", "--nproc=2", "--batch_size=2", "--max_steps=3", "--amp=O0"]
    losses = {}
    for name, environment in {"huawei": wheel, "stand-in": wheel | {"NPU_EMULATOR_WHEEL": ""}}.items():
        run = place.run("train_performance_8p.sh", name, *options, config="a config", **environment)
        assert run.code == 0, run.stderr
        assert "optimizer: NpuFusedAdam of torch_npu.optim" in run.logs[1]
        losses[name] = run.losses
    assert len(losses["huawei"]) == 3 and distance(*losses.values()) < 1e-5
