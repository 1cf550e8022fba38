"""The Chinese pages name what the English ones do."""

import re

import pytest

from conftest import ROOT

OPTION = r"--[a-z]\w+"
PROGRAM = r"(?:bash|python) [\w/]+\.(?:sh|py)"


def named(pattern, *pages):
    return {name for page in pages for name in re.findall(pattern, (ROOT / page).read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    ("pattern", "english", "chinese"),
    [
        (PROGRAM, "README.md", ["README_zh.md"]),
        (OPTION, "README.md", ["README_zh.md"]),
        (OPTION, "docs/training.md", ["docs/training_zh.md"]),
        (OPTION, "docs/data.md", ["docs/training_zh.md"]),
        (PROGRAM, "docs/data.md", ["docs/training_zh.md", "README_zh.md"]),
    ],
)
def test_no_option_or_program_is_missing_in_chinese(pattern, english, chinese):
    names = named(pattern, english)
    assert len(names) > 1
    assert names - named(pattern, *chinese) == set()
