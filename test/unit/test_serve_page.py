"""The page of tools/serve in a real browser: type, hear, stop, read what is wrong; nothing comes from elsewhere."""

import io
import shutil

import numpy as np
import pytest
import soundfile

from conftest import RATE
from serving import TEXT, assert_same, hold, wait_for, whole

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")
browsers = pytest.importorskip("playwright.sync_api", reason="requirement-serve.txt is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
pytest_plugins = ["serving"]


@pytest.fixture(scope="module")
def browser():
    with browsers.sync_playwright() as driver:
        yield driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )


@pytest.fixture
def page(browser, serve):
    """The page of a service; it must not ask for anything elsewhere, and no script may fail."""
    address = serve()
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.asked, page.failures = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#voice option", state="attached")
    yield page
    context.close()
    assert page.failures == []
    assert [url for url in page.asked if not url.startswith((address, "blob:", "data:"))] == []


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


def test_every_control_has_a_name(page):
    """For screen readers and for those who have a keyboard only."""
    page.fill("#text", "Go!")
    page.click("#speak")
    page.wait_for_selector("#clips li")
    page.click("summary")
    controls = page.locator("button, input, select, textarea, audio, canvas, a")
    names = controls.evaluate_all(
        """all => all.map(c => [c.id || c.tagName, c.getAttribute("aria-label") || c.innerText.trim()
            || (c.labels && c.labels.length && c.labels[0].innerText.trim())
            || (document.getElementById(c.getAttribute("aria-labelledby")) || {}).innerText])"""
    )
    assert [control for control, name in names if not name] == []
    page.focus("#text")
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id"))
    assert {"voice", "seed", "sigma", "denoiser", "key", "speak", "language"} <= reached
