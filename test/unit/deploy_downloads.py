"""The script that gets NVIDIA's checkpoints, and small ones in their place."""

import subprocess

from conftest import ROOT, script_environment

SCRIPT = ROOT / "tools/deploy/export_model/get_datasets_and_models.sh"
TACOTRON2 = "nvidia_tacotron2pyt_fp16_20190427"
WAVEGLOW = "nvidia_waveglow256pyt_fp16"
CHECKPOINTS = {
    TACOTRON2: ROOT / "test/data/reference/tacotron2_dle.pt",
    WAVEGLOW: ROOT / "test/data/reference/waveglow_dle.pt",
}


def get(folder, *options, url="http://127.0.0.1:9", cwd=None, **environment):
    return subprocess.run(
        ["bash", SCRIPT, *options], cwd=cwd, capture_output=True, text=True, timeout=240,
        env=script_environment() | {"MODEL_PATH": str(folder), "NGC_URL": url} | environment,
    )  # fmt: skip
