"""Which checkpoints are deployed: those named, those fetched, a voice's; and nothing of the user's is replaced."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from deploy_toys import models_dir

import tacotron2.config
import waveglow.config
from common import voices
from common.program import UserError
from common.voices import Voice
from tools.deploy import checkpoints, models, stages
from tools.deploy.artifacts import ONNX, Source, read_contents, write_contents
from tools.deploy.checkpoints import DOWNLOADED, RANDOM, Wanted, downloaded, find_checkpoints
from tools.deploy.export_model import export, to_onnx

KINDS = ("tacotron2", "waveglow")


def given(folder, **options):
    return SimpleNamespace(
        **dict(tacotron2=None, waveglow=None, voice=None, random=False, opset=None, models_dir=folder) | options
    )


@pytest.fixture
def toys():
    return {kind: str(models_dir() / f"{kind}.safetensors") for kind in KINDS}


@pytest.fixture
def toy_voice(monkeypatch, toys):
    """The default voice is one of toys."""
    voice = Voice("toy", toys["tacotron2"], toys["waveglow"], voices.Settings(sigma=0.4))
    monkeypatch.setattr(checkpoints, "find_voice", lambda name: voice)


def fetch_by_hand(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in DOWNLOADED.values():
        (folder / name).write_bytes(b"checkpoint")


def test_a_voice_by_its_name(tmp_path):
    wanted = find_checkpoints(given(tmp_path, voice="heart"))
    assert wanted.named
    assert wanted.sigma == voices.find_voice("heart").settings.sigma
    assert wanted.paths == {kind: str(voices.FOLDER / f"heart/{kind}.safetensors") for kind in KINDS}
    wanted = find_checkpoints(given(tmp_path, tacotron2="heart/tacotron2", waveglow="heart/waveglow"))
    assert wanted.paths["waveglow"] == str(voices.FOLDER / "heart/waveglow.safetensors")
    with pytest.raises(UserError, match="there is no voice 'nobody'"):
        find_checkpoints(given(tmp_path, voice="nobody"))


V2 = ["english_cleaners_v2"]


def test_a_voice_reads_texts_its_own_way(tmp_path, toys, monkeypatch):
    """Its graphs say so; not those of another Tacotron2, nor where the user says how to read."""
    of_voice = find_checkpoints(given(tmp_path, voice="heart"))
    assert of_voice.cleaners == find_checkpoints(given(tmp_path)).cleaners == V2
    assert find_checkpoints(given(tmp_path, waveglow=toys["waveglow"], voice="heart")).cleaners == V2
    assert find_checkpoints(given(tmp_path, tacotron2=toys["tacotron2"], voice="heart")).cleaners == []
    assert find_checkpoints(given(tmp_path, **toys)).cleaners == []
    (tmp_path / "basic.json").write_text('{"data_config": {"text_cleaners": ["basic_cleaners"]}}')
    said = find_checkpoints(given(tmp_path, voice="heart", config=str(tmp_path / "basic.json")))
    assert said.cleaners == []

    written = []
    monkeypatch.setattr(to_onnx, "write", lambda found, *_: written.append(found["tacotron2"].config.data_config))
    for cleaners, named in (([], True), (V2, True), (V2, False)):
        to_onnx.export_graphs(tmp_path / "models", Wanted(toys, named=named, cleaners=cleaners))
    assert [config.text_cleaners for config in written] == [["english_cleaners"], V2, V2]
    # Graphs that are there are kept only if they say the same.
    for cleaners, kept in ([], True), (["english_cleaners"], True), (V2, False):
        assert stages.are_there(models_dir() / ONNX, Wanted(toys, True, cleaners=cleaners)) == kept


def test_without_a_checkpoint_it_is_the_default_voice(tmp_path):
    wanted = find_checkpoints(given(tmp_path))
    assert not wanted.named
    assert wanted.paths["tacotron2"] == str(voices.FOLDER / f"{voices.DEFAULT}/tacotron2.safetensors")


@pytest.mark.parametrize("place", [".", "checkpoints"])
def test_what_was_fetched_by_hand_is_found(tmp_path, place):
    fetch_by_hand(tmp_path / place)
    wanted = find_checkpoints(given(tmp_path))
    assert wanted.paths == {kind: str((tmp_path / place / name).resolve()) for kind, name in DOWNLOADED.items()}
    assert not wanted.named


def test_what_is_in_the_folder_of_checkpoints_goes_before_what_is_beside_it(tmp_path):
    fetch_by_hand(tmp_path)
    fetch_by_hand(tmp_path / "checkpoints")
    assert {path.parent for path in downloaded(tmp_path).values()} == {tmp_path / "checkpoints"}


def test_a_checkpoint_that_is_named_goes_before_what_is_there(tmp_path, toys):
    fetch_by_hand(tmp_path)
    of_heart = str(voices.FOLDER / "heart/tacotron2.safetensors")
    for options, other in (({}, str(downloaded(tmp_path)["tacotron2"])), ({"voice": "heart"}, of_heart)):
        wanted = find_checkpoints(given(tmp_path, waveglow=toys["waveglow"], **options))
        assert wanted.named
        assert wanted.paths == {"tacotron2": other, "waveglow": toys["waveglow"]}


def test_one_checkpoint_alone_is_not_made_a_pair_by_chance(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint of WaveGlow: name one"):
        find_checkpoints(given(tmp_path, tacotron2="a.pt"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--voice=heart", "--tacotron2=a.pt"], "--voice and --tacotron2 exclude each other"),
        (["--random", "--waveglow=a.pt"], "--random does not go with a checkpoint"),
    ],
)
def test_what_excludes_each_other(monkeypatch, capsys, options, says):
    monkeypatch.setattr(sys, "argv", ["export", *options])
    with pytest.raises(SystemExit) as end:
        export.read_arguments()
    assert end.value.code == 2
    assert says in capsys.readouterr().err


def test_random_weights_have_a_folder_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["export", "--random", f"--models_dir={tmp_path}"])
    args = export.read_arguments()
    assert args.models_dir == tmp_path / "random"
    assert set(find_checkpoints(args).paths.values()) == {RANDOM}


def test_graphs_are_not_replaced_by_those_of_a_checkpoint_that_nobody_named(tmp_path, toys, toy_voice):
    (tmp_path / ONNX).symlink_to(models_dir() / ONNX)
    fetch_by_hand(tmp_path)
    with pytest.raises(UserError, match=r"holds the graphs of .*: name what is to replace them"):
        to_onnx.check_replaceable(tmp_path / ONNX, find_checkpoints(given(tmp_path)))
    for path in downloaded(tmp_path).values():
        path.unlink()
    to_onnx.check_replaceable(tmp_path / ONNX, find_checkpoints(given(tmp_path)))  # of the same ones they may
    to_onnx.check_replaceable(tmp_path / ONNX, find_checkpoints(given(tmp_path, **toys)))
    to_onnx.check_replaceable(tmp_path / ONNX, Wanted(dict.fromkeys(KINDS, "others.pt"), named=True))


def test_graphs_of_a_voice_are_replaced_by_those_of_what_was_fetched(tmp_path, toys, monkeypatch):
    (tmp_path / ONNX).symlink_to(models_dir() / ONNX)
    fetch_by_hand(tmp_path)
    monkeypatch.setattr(checkpoints, "FOLDER", models_dir())
    to_onnx.check_replaceable(tmp_path / ONNX, find_checkpoints(given(tmp_path)))
    contents = read_contents(models_dir() / ONNX, ONNX, "")
    contents.sources["waveglow"] = Source(str(tmp_path / "trained"))  # with the voice's Tacotron2
    (tmp_path / ONNX).unlink()
    (tmp_path / ONNX).mkdir()
    write_contents(tmp_path / ONNX, contents)
    with pytest.raises(UserError, match="name what is to replace them"):
        to_onnx.check_replaceable(tmp_path / ONNX, find_checkpoints(given(tmp_path)))


@pytest.fixture
def exports(monkeypatch):
    """What would be exported."""
    made = []
    monkeypatch.setattr(stages, "export_graphs", lambda folder, wanted, opset: made.append(wanted))
    monkeypatch.setattr(stages, "fetch", lambda folder: made.append("fetch"))
    return made


def test_graphs_that_are_there_are_used(tmp_path, toys, exports):
    (tmp_path / ONNX).symlink_to(models_dir() / ONNX)
    stages.make_graphs(given(tmp_path))
    stages.make_graphs(given(tmp_path, **toys))
    assert exports == []
    stages.make_graphs(given(tmp_path, voice="heart"))
    assert [wanted.paths["waveglow"] for wanted in exports] == [str(voices.FOLDER / "heart/waveglow.safetensors")]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"half")])
def test_graphs_that_are_damaged_are_made_again(tmp_path, toys, exports, damage):
    shutil.copytree(models_dir() / ONNX, tmp_path / ONNX)
    damage(tmp_path / ONNX / "postnet.onnx")
    stages.make_graphs(given(tmp_path, **toys))
    assert [wanted.paths for wanted in exports] == [toys]


def test_what_is_said_of_a_checkpoint_goes_into_new_graphs(tmp_path, toys, exports):
    (tmp_path / ONNX).symlink_to(models_dir() / ONNX)
    stages.make_graphs(given(tmp_path, **toys, gate_threshold=0.25))
    assert [wanted.hints for wanted in exports] == [{"tacotron2_config": {"gate_threshold": 0.25}}]


def test_graphs_of_a_checkpoint_that_has_changed_are_made_again(tmp_path, toys, exports):
    contents = read_contents(models_dir() / ONNX, ONNX, "")
    wanted = Wanted({kind: source.path for kind, source in contents.sources.items()}, True)
    assert stages.are_there(models_dir() / ONNX, wanted)
    (tmp_path / "waveglow.safetensors").write_bytes(b"trained on")
    changed = Wanted(wanted.paths | {"waveglow": str(tmp_path / "waveglow.safetensors")}, True)
    assert not stages.are_there(models_dir() / ONNX, changed)
    assert not stages.are_there(models_dir() / ONNX, replace(wanted, sigma=0.4))  # written into the graphs
    for path, there in ((wanted.paths["waveglow"], False), (RANDOM, True)):  # a file that is another one now
        contents.sources["waveglow"] = Source(path, "0" * 64)
        write_contents(tmp_path, contents)
        for file in contents.files.values():
            (tmp_path / file.name).unlink(missing_ok=True)
            (tmp_path / file.name).symlink_to(models_dir() / ONNX / file.name)
        assert stages.are_there(tmp_path, Wanted(wanted.paths | {"waveglow": path}, True)) == there


def test_without_graphs_the_checkpoints_are_fetched_first(tmp_path, exports):
    stages.make_graphs(given(tmp_path))
    assert exports[0] == "fetch"
    assert exports[1].paths["tacotron2"] == str(voices.FOLDER / "heart/tacotron2.safetensors")


def test_nothing_is_fetched_that_would_not_be_exported(tmp_path, exports):
    """Graphs of the user's own checkpoints, of which a file is gone, are not replaced by NVIDIA's."""
    shutil.copytree(models_dir() / ONNX, tmp_path / ONNX)
    (tmp_path / ONNX / "postnet.onnx").unlink()
    with pytest.raises(UserError, match=r"holds the graphs of .*: name what is to replace them"):
        stages.make_graphs(given(tmp_path))
    assert exports == []


def test_fetching_goes_on_until_both_checkpoints_are_there(tmp_path, monkeypatch):
    """By the script, which need not hold the folder: who calls it does."""
    ran = []
    run = lambda command, env, check: ran.append((command, env["HOLDS_MODELS_DIR"])) or SimpleNamespace(returncode=0)  # noqa: E731
    monkeypatch.setattr(stages.subprocess, "run", run)
    for times, name in ((1, None), (2, DOWNLOADED["waveglow"]), (2, DOWNLOADED["tacotron2"])):
        if name:
            (tmp_path / name).write_bytes(b"checkpoint")
        stages.fetch(tmp_path)
        assert ran == [(["bash", stages.FETCH, f"--models_dir={tmp_path}"], str(tmp_path))] * times


def test_fetching_in_vain_is_no_error_unless_there_is_a_part(tmp_path, monkeypatch):
    monkeypatch.setenv("NGC_URL", "http://127.0.0.1:9")
    stages.fetch(tmp_path)
    (tmp_path / "checkpoints/nvidia_waveglow256pyt_fp16.part").write_bytes(b"half")
    with pytest.raises(UserError, match="the checkpoints are there in part"):
        stages.fetch(tmp_path)


def test_what_does_not_fit_is_told_of_its_own_file():
    narrow, wide = tacotron2.config.Config(), waveglow.config.Config()
    wide.data_config.sampling_rate = 24000
    model = lambda config, path: SimpleNamespace(config=config, source=SimpleNamespace(path=path))  # noqa: E731
    with pytest.raises(UserError, match=r"sampling_rate is 22050 in spoken.pt and 24000 in heard.pt"):
        models.check_fit(model(narrow, "spoken.pt"), model(wide, "heard.pt"))
