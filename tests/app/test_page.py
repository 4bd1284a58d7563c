"""The page in a real browser: Chromium without a window, driven by Playwright."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet2_ext.cli import main as cli

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [] if CHROMIUM else ["the program chromium"]
try:
    from playwright.sync_api import Page, expect, sync_playwright
except ModuleNotFoundError:
    MISSING.append("the package playwright")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"without {' and '.join(MISSING)}, which .ci/run installs")
PATIENCE = 120_000  # ms, on a busy machine


@pytest.fixture(scope="module")
def address(bundles):
    """Of the page that `espnet2-ext app` serves; it is ended by Ctrl-C and leaves nothing behind."""
    command = [sys.executable, "-m", "espnet2_ext", "app", "--no_browser", "--port", "0", "--bundle", bundles["qsep"]]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as program:
        line = program.stdout.readline()
        folder = Path(re.search(r"lie in (\S+)", line)[1])
        assert folder.is_dir() and folder.stat().st_mode & 0o077 == 0
        yield line.split()[0]
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 130 and not folder.exists()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address, request):
    """The page, which must ask nothing of elsewhere and report no error of its script."""
    found = browser.new_page(**getattr(request, "param", {"viewport": {"width": 1280, "height": 900}}))
    found.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    faults = []
    own = (address.rpartition("/")[0], "data:", "blob:")
    found.on("request", lambda r: None if r.url.startswith(own) else faults.append(r.url))
    found.on("pageerror", lambda e: faults.append(str(e)))
    found.on("console", lambda m: faults.append(m.text) if m.type == "error" and "400 (" not in m.text else None)
    found.goto(address)
    yield found
    found.context.close()
    assert faults == []


def drop(page: "Page", zone: str, *files: Path) -> None:
    """As with the mouse: a `drop` with the files."""
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<input type=file id=carry multiple hidden>')")
    page.set_input_files("#carry", list(files))
    page.evaluate(
        """zone => { const data = new DataTransfer();
        for (const file of document.getElementById('carry').files) data.items.add(file);
        document.getElementById('carry').remove();
        const how = {dataTransfer: data, bubbles: true, cancelable: true};
        document.querySelector(zone).dispatchEvent(new DragEvent('drop', how)); }""",
        zone,
    )


def drawn(page: "Page") -> None:
    """Waits until the recording is shown."""
    expect(page.locator("#mix .track")).to_have_count(1)
    expect(page.locator("#mix .busy")).to_be_hidden()


def drag(page: "Page", start: float, end: float, seconds: float) -> None:
    """Over the recording's picture, from a share of it to another."""
    box = page.locator("#mix .picture").bounding_box()
    x, y = (lambda t: box["x"] + box["width"] * t / seconds), box["y"] + box["height"] / 2
    page.mouse.move(x(start), y)
    page.mouse.down()
    page.mouse.move(x((start + end) / 2), y, steps=3)
    page.mouse.move(x(end), y, steps=3)
    page.mouse.up()


def saved(page: "Page", track: int) -> tuple[str, bytes]:
    """Name and content of what the first result saves."""
    with page.expect_download() as found:
        page.locator(".result").first.locator(".save").nth(track).click()
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def separated(folder: Path, bundle: Path, *args) -> list[bytes]:
    """Target and rest by the command line."""
    outs = [folder / "target.wav", folder / "rest.wav"]
    cli.main([*map(str, ("separate", *args, "--bundle", bundle, "-o", outs[0], "--residual", outs[1]))])
    return [out.read_bytes() for out in outs]


def test_a_marked_span(page, recordings, bundles, tmp_path, monkeypatch):
    drop(page, "#drop-mix", recordings / "mix.wav")
    drawn(page)
    drag(page, 1.0, 2.0, 3.0)
    start, end = (float(page.input_value(f"#{name}")) for name in ("from", "to"))
    assert abs(start - 1) < 0.01 and abs(end - 2) < 0.01
    page.click("#separate")
    expect(page.locator(".result .track")).to_have_count(2)
    monkeypatch.chdir(recordings)
    expected = separated(tmp_path, bundles["qsep"], "mix.wav", "--query", f"mix.wav@{start:g}-{end:g}")
    assert [saved(page, n) for n in (0, 1)] == list(zip(("mix.target.wav", "mix.rest.wav"), expected))
    words = page.locator(".result pre").text_content()
    assert f"espnet2-ext separate mix.wav --query mix.wav@{start:g}-{end:g} --bundle" in words
    page.click("#separate")  # sent twice
    expect(page.locator("#message-ask")).to_have_text("This was asked for already: its result is below.")
    page.click("#add-span")
    page.reload()  # nothing is lost
    expect(page.locator(".chip b")).to_have_text(f"mix.wav {start:g}–{end:g} s")
    expect(page.locator(".result .track")).to_have_count(2)
    assert page.locator(".result").count() == 1


def test_an_example_and_one_to_keep_out(page, recordings, bundles, tmp_path, monkeypatch):
    page.set_input_files("#file-mix", recordings / "mix.wav")
    drawn(page)
    expect(page.locator("#separate")).to_be_disabled()
    drop(page, "#drop-example", recordings / "example.flac")
    expect(page.locator(".chip b")).to_have_text("example.flac")
    page.fill("#from", "0")
    page.fill("#to", "0.5")
    page.press("#to", "Enter")
    page.locator(".chip").nth(1).locator("button").first.click()
    expect(page.locator(".chip.not b")).to_have_text("not mix.wav 0–0.5 s")
    page.click("#separate")
    expect(page.locator(".result h2")).to_have_text("example.flac, not mix.wav 0–0.5 s")
    expect(page.locator(".result .track")).to_have_count(2)
    monkeypatch.chdir(recordings)
    args = ("mix.wav", "--query", "example.flac", "--not", "mix.wav@0-0.5")
    assert [saved(page, n)[1] for n in (0, 1)] == separated(tmp_path, bundles["qsep"], *args)


def test_dropped_before_the_program_has_answered(page, recordings):
    page.route("**/state", lambda route: None)  # held
    page.reload()
    drop(page, "#drop-mix", recordings / "mix.wav")
    expect(page.locator("#drop-mix")).to_have_class(re.compile("busy"))
    page.unroute("**/state")  # lets go of it
    drawn(page)


def test_what_is_no_sound_is_one_line_and_nothing_is_lost(page, recordings, tmp_path):
    (tmp_path / "notes.txt").write_text("not a sound")
    drop(page, "#drop-mix", tmp_path / "notes.txt")
    expect(page.locator("#message-mix")).to_contain_text("notes.txt: cannot be decoded")
    drop(page, "#drop-mix", recordings / "mix.wav")
    expect(page.locator("#mix .title strong")).to_have_text("mix.wav")
    drag(page, 0.5, 1.0, 3.0)
    page.click("#add-span")
    drop(page, "#drop-example", tmp_path / "notes.txt")
    expect(page.locator("#message-ask")).to_contain_text("notes.txt: cannot be decoded")
    assert page.locator(".chip").count() == 1 and page.locator("#mix .track").count() == 1


def test_by_keys_alone_and_heard(page, recordings):
    page.set_input_files("#file-mix", recordings / "mix.wav")
    drawn(page)
    picture = page.locator("#mix .picture")
    picture.focus()
    for key in [*["ArrowRight"] * 10, *["Shift+ArrowRight"] * 10, "Enter"]:  # a fiftieth of the recording each
        page.keyboard.press(key)
    expect(page.locator(".chip b")).to_have_text("mix.wav 0.6–1.2 s")
    page.keyboard.press("+")
    expect(page.locator("#pan")).to_be_visible()
    page.keyboard.press(" ")
    expect(page.locator("#mix .play")).to_have_attribute("aria-label", "Pause mix.wav")
    until = time.monotonic() + 20
    while not 0.7 < float(page.locator("#clock").text_content().split("/")[0].split(":")[1]) < 3:
        assert time.monotonic() < until
    page.keyboard.press(" ")
    expect(page.locator("#mix .play")).to_have_attribute("aria-label", "Play mix.wav")
    unnamed = """[...document.querySelectorAll('button, input, select, a, [tabindex="0"]')].filter(e =>
        e.checkVisibility() && !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)
        ).map(e => e.outerHTML)"""
    assert page.evaluate(unnamed) == []


NARROW = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}


@pytest.mark.parametrize("page", [NARROW], indirect=True)
def test_a_narrow_screen_in_the_dark(page, recordings):
    page.set_input_files("#file-mix", recordings / "mix.wav")
    drawn(page)
    drag(page, 1.0, 2.0, 3.0)
    page.click("#add-span")
    drop(page, "#drop-example", recordings / "example.flac")
    expect(page.locator(".chip")).to_have_count(2)
    page.click("#separate")
    expect(page.locator(".result .track")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 360  # nothing sticks out
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", back))) < 120
