"""Where this machine's CANN keeps its operators."""

from __future__ import annotations

import os
import re
from pathlib import Path

from common.program import UserError

INSTALL_INFO = Path("/etc/Ascend/ascend_cann_install.info")
"Written by CANN's installer; the line ``Install_Path=`` names the folder of all its versions."
DEFAULT_ROOT = Path("/usr/local/Ascend")
"Where CANN is installed unless its installer was told otherwise."
LAYOUTS = ("built-in/op_impl/ai_core/tbe/impl", "op_impl/built-in/ai_core/tbe/impl")
"The operators' folder inside of ``opp``: in new and in old CANN."
OPP_FOLDERS = ("opp", "*/opp", "*/*/opp", "*/*/*-linux/opp")
"""From a version's folder, ``ascend-toolkit`` or the folder of all up to
``ascend-toolkit/5.0.3/arm64-linux/opp``. Not searched deeper: CANN ships samples of operators."""


def find_impl(opp_path: str | None) -> Path:
    """CANN's folder ``impl``, free of links.

    It is that of ``opp_path`` (an ``opp`` folder, or one above it), else of $ASCEND_OPP_PATH, else
    what the installer noted, else what is in the usual place. Raises UserError if there is none, or
    more than one.
    """
    named = opp_path or os.environ.get("ASCEND_OPP_PATH")
    roots = [Path(named)] if named else [*_noted_roots(), DEFAULT_ROOT]
    for root in roots:
        found = _impl_folders(root)
        if len(found) > 1:
            choice = " or ".join(f"--opp_path={impl.parents[4]}" for impl in found)
            raise UserError(f"{root} has {len(found)} installations of CANN, choose one: {choice}")
        if found:
            return found[0]
    places = " and ".join(map(str, dict.fromkeys(roots)))
    raise UserError(f"no operators of CANN in {places}: name its folder with --opp_path=.../opp")


def _noted_roots() -> list[Path]:
    """The folders that the installer noted."""
    if not INSTALL_INFO.is_file():
        return []
    lines = INSTALL_INFO.read_text(encoding="utf-8", errors="replace")
    return [Path(path) for path in re.findall(r"^Install_Path[ \t]*=[ \t]*(.*\S)", lines, re.MULTILINE)]


def _impl_folders(root: Path) -> list[Path]:
    """The folders ``impl`` in and below ``root``, each once: ``latest`` is a link to a version."""
    folders = [root] if _impl_of(root) else [opp for pattern in OPP_FOLDERS for opp in root.glob(pattern)]
    return sorted({impl for impl in map(_impl_of, folders) if impl})


def _impl_of(opp: Path) -> Path | None:
    """The folder ``impl`` of an ``opp`` folder."""
    for layout in LAYOUTS:
        if (opp / layout).is_dir():
            impl = (opp / layout).resolve()
            if opp.resolve() not in impl.parents:
                raise UserError(f"{opp / layout} is a link out of {opp}, to {impl}")
            return impl
    return None
