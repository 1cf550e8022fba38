"""What the tests of damaged and hostile files share: a plugin of theirs, for its fixture."""

import pytest
import torch
from hypothesis import strategies as st

from conftest import make_corpus, toy_config
from runs import start

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**63, 2**64, 10**400, -(10**9), 10**11])
    | st.floats()
    | st.text(max_size=5)
    | st.builds(torch.zeros, st.integers(0, 3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
"Anything that a pickle can hold in the place of what belongs there."


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a corpus and of a run of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    make_corpus(folder / "corpus")
    start(toy_config(), folder / "corpus", folder / "out", max_steps=2)
    return folder


def at(state: dict, keys: tuple, value) -> None:
    for key in keys[:-1]:
        state = state[key]
    state[keys[-1]] = value
