"""Where CANN is looked for."""

import re
from pathlib import Path

import pytest

from common.program import UserError
from tbe_files import NEW, OLD, make_cann
from tools.tbe import find_cann

pytest_plugins = ["tbe_files"]


@pytest.mark.parametrize("layout", [OLD, NEW])
@pytest.mark.parametrize(
    "opp", ["opp", "ascend-toolkit/5.0.3/arm64-linux/opp", "ascend-toolkit/5.0.3/x86_64-linux/opp", "nnae/5.0/opp"]
)
def test_cann_is_found(nowhere, monkeypatch, opp, layout):
    root = nowhere / "usr local/Ascend"
    impl = make_cann(root / opp, layout)
    # a sample of an operator, as CANN ships it, and a custom one
    make_cann(root / "ascend-toolkit/5.0.3/tools/template/sample/tbe", "impl")
    make_cann(impl.parents[4] / "vendors/custom", "op_impl/ai_core/tbe/impl")
    assert find_cann.find_impl(None) == impl
    for above in [root / opp, *(root / opp).parents][: len(Path(opp).parts) + 1]:
        assert find_cann.find_impl(str(above)) == impl
    monkeypatch.chdir(root)
    assert find_cann.find_impl(opp) == impl


def test_order_of_places(nowhere, monkeypatch):
    places = [nowhere / f"{i}/opp" for i in range(3)] + [nowhere / "usr local/Ascend/opp"]
    argument, variable, noted, default = [make_cann(opp) for opp in places]
    assert find_cann.find_impl(None) == default
    find_cann.INSTALL_INFO.parent.mkdir()
    find_cann.INSTALL_INFO.write_text(f"UserName=root\nInstall_Path={nowhere / '2'} \n")
    assert find_cann.find_impl(None) == noted
    monkeypatch.setenv("ASCEND_OPP_PATH", str(places[1]))
    assert find_cann.find_impl(None) == variable
    assert find_cann.find_impl(str(places[0])) == argument
    monkeypatch.setenv("ASCEND_OPP_PATH", str(nowhere / "gone"))
    with pytest.raises(UserError, match="gone"):  # not another CANN than the one in use
        find_cann.find_impl(None)


def test_stale_note_of_the_installer(nowhere):
    find_cann.INSTALL_INFO.parent.mkdir()
    find_cann.INSTALL_INFO.write_text("Install_Path=/gone\r\nInstall_Path=\nUserName=opp\n")
    impl = make_cann(find_cann.DEFAULT_ROOT / "cann-8.5/opp", NEW)
    assert find_cann.find_impl(None) == impl


def test_no_cann(nowhere):
    with pytest.raises(UserError, match=r"no operators of CANN in .*Ascend: name its folder with --opp_path"):
        find_cann.find_impl(None)


def test_links_name_one_installation(nowhere):
    toolkit = find_cann.DEFAULT_ROOT / "ascend-toolkit"
    impl = make_cann(toolkit / "5.0.3/x86_64-linux/opp")
    (toolkit / "latest").symlink_to("5.0.3")
    (toolkit / "5.0.3/opp").symlink_to("x86_64-linux/opp")
    (nowhere / "usr local/link").symlink_to("Ascend")
    assert find_cann.find_impl(None) == impl
    assert find_cann.find_impl(str(nowhere / "usr local/link/ascend-toolkit/latest/opp")) == impl
    # newer CANN: latest is a folder of links
    (toolkit / "latest").unlink()
    (toolkit / "latest").mkdir()
    (toolkit / "latest/opp").symlink_to("../5.0.3/x86_64-linux/opp")
    assert find_cann.find_impl(None) == impl


def test_several_installations_are_listed(nowhere):
    toolkit = find_cann.DEFAULT_ROOT / "ascend-toolkit"
    impls = [make_cann(toolkit / "5.0.2/arm64-linux/opp"), make_cann(toolkit / "8.1.RC1/opp", NEW)]
    (toolkit / "latest").symlink_to("8.1.RC1")
    with pytest.raises(UserError, match="2 installations") as error:
        find_cann.find_impl(None)
    offered = re.findall(r"--opp_path=(.+?)(?= or |$)", str(error.value))
    assert [find_cann.find_impl(path) for path in offered] == impls


def test_operators_that_lie_elsewhere_are_not_taken_for_this_cann_s(nowhere):
    """A link out of its folder; one within it is followed."""
    impl = make_cann(nowhere / "one/opp", NEW)
    other = nowhere / "two/opp" / NEW
    other.parent.mkdir(parents=True)
    other.symlink_to(impl)
    with pytest.raises(UserError, match=rf"two/opp/{NEW} is a link out of .*two/opp, to {impl}"):
        find_cann.find_impl(str(nowhere / "two/opp"))
    inside = nowhere / "three/opp" / OLD
    real = make_cann(nowhere / "three/opp", "real")
    inside.parent.mkdir(parents=True)
    inside.symlink_to(real)
    assert find_cann.find_impl(str(nowhere / "three/opp")) == real
