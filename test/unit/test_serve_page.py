"""The page of tools/serve in a real browser: type, hear, stop, read what is wrong; nothing comes from elsewhere."""

import io
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from running_programs import wait_for

from conftest import RATE
from serving import TEXT, assert_same, hold, whole

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")
browsers = pytest.importorskip("playwright.sync_api", reason="requirement-serve.txt is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
pytest_plugins = ["serving"]


@pytest.fixture(scope="module")
def browser():
    with browsers.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@contextmanager
def visit(browser, address, **how):
    """The page of a service; it must not ask for anything elsewhere, and no script may fail."""
    context = browser.new_context(**how)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.asked, page.failures = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#voice option, #error:not(:empty)", state="attached")
    yield page
    context.close()
    assert page.failures == []
    assert [url for url in page.asked if not url.startswith((address, "blob:", "data:"))] == []


@pytest.fixture
def page(browser, serve):
    with visit(browser, serve(), locale="en-US") as page:
        yield page


@pytest.fixture(params=["en-US", "zh-CN"])
def phone(browser, serve, request):
    how = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "locale": request.param}
    with visit(browser, serve(), **how) as page:
        yield page


def downloaded(page):
    with page.expect_download() as download:
        page.click("a[download]")
    audio, rate = soundfile.read(io.BytesIO(download.value.path().read_bytes()), dtype="int16")
    assert rate == RATE
    return audio


def colors(page, canvas):
    """How many colors a canvas shows."""
    data = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer"
    return page.eval_on_selector(f"#{canvas}", f"c => new Set(new Uint32Array({data})).size")


def test_what_is_typed_is_heard_and_shown(page, speaker):
    page.fill("#text", TEXT)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#clips li")
    expected = whole(speaker)
    assert np.abs(expected).max() > 300
    assert_same(downloaded(page), expected)
    assert page.locator("#pieces li").all_inner_texts() == ["Hello there.", "Go now!", "The end."]
    assert f"{len(expected) / RATE:.1f} s" in page.inner_text("#status")
    assert all(colors(page, canvas) > 1 for canvas in ("waveform", "mel", "alignment", "gate"))


def test_settings_are_those_of_the_voice_and_can_be_changed(page, speaker):
    page.click("summary")
    assert [page.input_value(f"#{name}") for name in ("voice", "sigma", "denoiser")] == ["toy", "0.3", "0.2"]
    page.fill("#seed", "7")
    page.fill("#text", TEXT)
    page.click("#speak")
    page.wait_for_selector("#clips li")
    assert_same(downloaded(page), whole(speaker, seed=7))


def test_stop_ends_the_work(page, speaker, monkeypatch):
    go_on = hold(speaker, monkeypatch, after=1)
    page.fill("#text", "Hello there. " * 100)
    page.click("#speak")
    page.wait_for_selector("#pieces li")
    (speech,) = speaker.active
    page.keyboard.press("Escape")
    wait_for(lambda: speech.cancelled)
    go_on.set()
    wait_for(lambda: not speaker.active)
    assert speech.decoded < len(speech.pieces)
    assert page.inner_text("#status").startswith("Stopped after")
    assert page.locator("#clips li").count() == 0


def test_a_sentence_that_went_wrong_is_marked(page, monkeypatch):
    monkeypatch.setattr("tacotron2.synthesizer.find_flaw", lambda utterance: "has no end")
    page.fill("#text", "Hello there. Go!")
    page.click("#speak")
    page.wait_for_selector("#clips li")
    assert page.locator("#pieces .flaw").count() == 2
    assert "it has no end" in page.locator("#pieces .flaw").first.inner_text()


def test_what_is_wrong_is_said(page):
    page.fill("#text", "***")
    page.click("#speak")
    page.wait_for_selector("#error:not(:empty)")
    assert "nothing of the text can be spoken" in page.inner_text("#error")
    page.fill("#text", "<img src=x> Go!")
    page.click("#speak")
    page.wait_for_selector("#clips li")
    assert page.inner_text("#error") == ""
    assert page.locator("#pieces img, #clips img").count() == 0


def test_chinese(page):
    page.click("#language")
    assert page.get_attribute("html", "lang") == "zh"
    assert page.inner_text("#speak") == "朗读"
    page.click("#language")
    assert page.inner_text("#speak") == "Speak"


def names_of(page):
    """Role and name of each thing on the page that can be used or looked at, as Chromium tells screen readers."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "spinbutton", "link", "image", "Audio", "DisclosureTriangle", "list"}
    told = lambda node, what: node.get(what, {}).get("value", "")  # noqa: E731
    return [(told(node, "role"), told(node, "name")) for node in nodes if told(node, "role") in roles]


def test_every_control_has_a_name(phone):
    """For screen readers, in both languages."""
    phone.fill("#text", "Go!")
    phone.tap("#speak")
    phone.wait_for_selector("#clips li")
    phone.tap("summary")
    phone.tap("#language")
    phone.tap("#language")
    names = [each for each in names_of(phone) if each[0] != "list"]
    assert len(names) >= 16
    assert [role for role, name in names if not name] == []
    spoken, stop = ("Speak", "Stop") if phone.get_attribute("html", "lang") == "en" else ("朗读", "停止")
    assert {("button", spoken), ("button", stop)} < set(names)


def test_on_a_phone_all_can_be_tapped_and_nothing_overflows(phone, speaker):
    """With words longer than a line, in the settings as in what was spoken and what went wrong."""
    text = "Go" + "o" * 80 + "!"
    phone.tap("summary")
    phone.fill("#seed", "7")
    phone.fill("#text", text)
    phone.tap("#speak")
    phone.wait_for_selector("#clips li")
    phone.wait_for_selector("#stop:disabled")  # all has been heard: no rule of the browser's kept it silent
    assert_same(downloaded(phone), whole(speaker, text, seed=7))
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    boxes = phone.locator("button, input, select, textarea, summary, a, audio, canvas").all()
    boxes = [box.bounding_box() for box in boxes]
    assert min(box["x"] for box in boxes) >= 0
    assert max(box["x"] + box["width"] for box in boxes) <= 390
    assert min(box["height"] for box in boxes) >= 44


def focus(page):
    return page.evaluate("() => document.activeElement.id || document.activeElement.tagName")


def test_the_keyboard_is_enough(page, speaker, monkeypatch):
    assert focus(page) == "text"
    page.keyboard.type("Hello there. Go!")
    reached = []
    for key in ("Tab", "Enter", *["Tab"] * 6):  # Enter opens the settings
        page.keyboard.press(key)
        reached.append(focus(page))
    assert reached == ["SUMMARY", "SUMMARY", "voice", "seed", "sigma", "denoiser", "key", "speak"]
    go_on = hold(speaker, monkeypatch, after=1)
    page.keyboard.press("Enter")
    page.wait_for_selector("#pieces li")
    page.keyboard.press("Tab")
    assert focus(page) == "stop"
    page.keyboard.press("Space")
    go_on.set()
    assert focus(page) == "speak"  # not at a button that can no more be used
    assert page.inner_text("#status").startswith("Stopped after")
    page.keyboard.press("Enter")
    page.wait_for_selector("#clips li")
    page.focus("#text")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.get_attribute("html", "lang") == "zh"


def test_a_setting_that_is_wrong_is_shown(page):
    """It would be hidden among the settings, and nothing would happen."""
    page.click("summary")
    page.fill("#seed", "-1")
    page.click("summary")
    page.fill("#text", "Go!")
    page.click("#speak")
    page.wait_for_selector("details[open]")
    assert focus(page) == "seed"
    assert page.locator("#clips li").count() == 0


@pytest.mark.parametrize(("language", "told"), [("en-US", "This service needs a key"), ("zh-CN", "此服务需要密钥")])
def test_the_key_is_asked_for(browser, serve, language, told):
    with visit(browser, serve(key=b"secret"), locale=language) as page:
        assert told in page.inner_text("#error")
        page.fill("#key", "secret")
        page.fill("#text", "Go!")
        page.click("#speak")
        page.wait_for_selector("#clips li")
        assert page.inner_text("#error") == ""
