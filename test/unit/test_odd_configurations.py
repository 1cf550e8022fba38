"""Configurations with any values: taken, or refused by the name of the field."""

import pytest
from hostile import FEW, ODD
from hypothesis import given
from hypothesis import strategies as st

from common.config_reading import from_dict, load_config
from common.program import UserError
from waveglow.config import Config

CONFIG_FIELDS = [
    (section, name) for section in ("train_config", "data_config", "waveglow_config")
    for name in getattr(Config(), section).__dataclass_fields__
]  # fmt: skip


@FEW
@given(field=st.sampled_from(CONFIG_FIELDS), value=ODD | st.sampled_from([10**6, 10**9, 2**64, 1e300]))
def test_a_configuration_is_taken_or_refused_by_name(field, value):
    section, name = field
    try:
        from_dict(Config, {section: {name: value}})
    except UserError as error:
        assert name in str(error) and len(str(error)) < 500
    else:
        if isinstance(value, int):
            assert value <= 2**62


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"train_config": {"seed": ' + "1" * 500_000 + "}}", "is not JSON"),
        ('{"train_config": {"epochs": 1' + "0" * 400 + "}}", "epochs is 1000.*must be at most"),
        (" " * 2**21, "more than 1048576 bytes"),
    ],
)
def test_a_configuration_file_is_read_within_limits(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=said):
        load_config(tmp_path / "a.json", Config)
