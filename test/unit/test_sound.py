"""Whether a Tacotron2 and a WaveGlow fit together: their spectrograms must be of one kind."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

import tacotron2.config
import waveglow.config
from common.checkpoints.interchange import AUDIO
from common.program import UserError
from tools.deploy import models
from tools.sound import check_same_audio


def other_audio(name):
    """WaveGlow's configuration with another value of a setting of the audio."""
    config = waveglow.config.Config()
    value = getattr(config.data_config, name) + (-1 if name == "win_length" else 1)  # which is at most filter_length
    config.data_config = replace(config.data_config, **{name: value})
    return config


def test_equal_ones_fit():
    check_same_audio(tacotron2.config.Config(), "t", waveglow.config.Config(), "w")


@pytest.mark.parametrize("name", AUDIO)
def test_each_setting_of_the_audio_is_compared_and_told_of_its_file(name):
    ours, theirs = tacotron2.config.Config(), other_audio(name)
    was, now = getattr(ours.data_config, name), getattr(theirs.data_config, name)
    said = f"{name} is {was:g} in spoken.pt and {now:g} in heard.pt"
    with pytest.raises(UserError, match=said):
        check_same_audio(ours, "spoken.pt", theirs, "heard.pt")
    model = lambda config, path: SimpleNamespace(config=config, source=SimpleNamespace(path=path))  # noqa: E731
    with pytest.raises(UserError, match=said):
        models.check_fit(model(ours, "spoken.pt"), model(theirs, "heard.pt"))


def test_so_are_the_bands():
    theirs = waveglow.config.Config()
    theirs.waveglow_config = replace(theirs.waveglow_config, n_mel_channels=40)
    with pytest.raises(UserError, match=r"n_mel_channels is 80 in spoken.pt and 40 in heard.pt"):
        check_same_audio(tacotron2.config.Config(), "spoken.pt", theirs, "heard.pt")
