"""The service under Ray Serve: a replica of it, with a stand-in for Ray; its file, by Ray's schema where that is."""

import asyncio
import importlib
import re
import sys
import types

import pytest

from common.program import UserError
from conftest import RATE, ROOT
from serving import SETTINGS

testclient = pytest.importorskip("fastapi.testclient", reason="requirement-serve.txt is not installed")
errors = pytest.importorskip("tools.serve.errors")
main = pytest.importorskip("tools.serve.main")
speaker_module = pytest.importorskip("tools.serve.speaker")
voices = pytest.importorskip("tools.serve.voices")

FILE = ROOT / "tools/serve/ray.yaml"

pytest_plugins = ["serving"]


@pytest.fixture
def module(monkeypatch):
    """tools.serve.ray, where Ray leaves the class of a replica as it is."""
    serve = types.ModuleType("ray.serve")
    serve.ingress = lambda: lambda cls: cls
    serve.deployment = lambda: lambda cls: setattr(cls, "bind", classmethod(lambda cls: cls)) or cls
    ray = types.ModuleType("ray")
    ray.serve = serve
    for name, each in (("ray", ray), ("ray.serve", serve)):
        monkeypatch.setitem(sys.modules, name, each)
    monkeypatch.delitem(sys.modules, "tools.serve.ray", raising=False)
    module = importlib.import_module("tools.serve.ray")
    yield module
    del sys.modules["tools.serve.ray"]


@pytest.fixture
def start(module, monkeypatch):
    """A function from what loads a voice to the application of a replica; ``threads`` it was given."""

    def start(load):
        def voices_on(device, entries, threads):
            start.threads = threads
            return voices.Voices(entries, load, memory=1)

        monkeypatch.setattr(module, "find_voices", lambda: [voices.Entry("toy", SETTINGS, RATE)])
        monkeypatch.setattr(module, "voices_on", voices_on)
        return asyncio.run(module.app().__serve_build_asgi_app__())

    return start


def test_a_replica_is_the_service_with_its_voice_loaded(start, speaker, monkeypatch, tmp_path):
    (tmp_path / "key").write_text("secret\n")
    monkeypatch.setenv("SPEECH_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    loaded = []
    app = start(lambda entry: loaded.append(entry.name) or speaker)
    assert (loaded, start.threads) == (["toy"], 3)
    with testclient.TestClient(app) as client:
        assert client.get("/health").json() == {"status": "ok", "active": 0}
        wish = {"input": "Hi.", "response_format": "pcm"}
        assert client.post("/v1/audio/speech", json=wish).status_code == 401
        answer = client.post("/v1/audio/speech", json=wish, headers={"Authorization": "Bearer secret"})
    assert answer.status_code == 200
    assert len(answer.content) > 0


def test_a_replica_without_its_voice_does_not_start(start):
    def fail(entry):
        raise UserError("the checkpoint is damaged")

    with pytest.raises(errors.RefusalError, match="toy cannot be loaded"):
        start(fail)


def test_the_file_names_the_application_and_its_replicas(module):
    """By other names Ray would find nothing, or ignore what is said of the replicas."""
    names = dict(re.findall(r"^ +(?:- )?(import_path|name): (\S+)$", FILE.read_text(), re.MULTILINE))
    assert names == {"import_path": "tools.serve.ray:app", "name": module.app.__name__}


def test_ray_knows_what_the_file_says():
    schema = pytest.importorskip("ray.serve.schema", reason="requirement-ray.txt is not installed")
    config = pytest.importorskip("ray.serve.config")
    values = pytest.importorskip("yaml").safe_load(FILE.read_text())
    (application,) = values["applications"]
    (deployment,) = application["deployments"]
    for kind, section in (
        (schema.ServeDeploySchema, values),
        (schema.HTTPOptionsSchema, values["http_options"]),
        (schema.ServeApplicationSchema, application),
        (schema.DeploymentSchema, deployment),
        (schema.RayActorOptionsSchema, deployment["ray_actor_options"]),
        (config.AutoscalingConfig, deployment["autoscaling_config"]),
    ):
        assert not section.keys() - kind.model_fields.keys()  # Ray itself ignores what it does not know
        kind.model_validate(section)
    assert deployment["max_ongoing_requests"] == speaker_module.LARGEST_BATCH
    assert deployment["graceful_shutdown_timeout_s"] == main.LAST_REQUESTS
