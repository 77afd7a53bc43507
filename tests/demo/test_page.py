"""The page in a real browser: Debian's chromium (or whichever there is), driven by Playwright."""

from __future__ import annotations

import functools
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import gradio as gr
import numpy as np
import pytest

from demo import app, looking, sessions, window
from demo.app import build_page, launch
from demo.guards import files_only
from demo.project import TrackPoint, Tracks
from demo.sample import add_tone
from demo.sessions import Session
from demo.workspace import Options, Workspace
from media import InputError
from media.video import VideoWriter
from tests.demo.ports import free_port

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
expect = sync_api.expect
PATIENCE = 120_000  # milliseconds; of a machine that is slow, and busy with other things
expect.set_options(timeout=PATIENCE)

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 320, 240
SHORT, LONG = 10, 80  # frames; the segmenter takes about 1.4 s for one
SIDE = 72


# ---------------------------------------------------------------------------------------- clips


def texture(seed: int, height: int, width: int, grain: int) -> np.ndarray:
    """Smooth blotches, uint8 (h, w, 3)."""
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (height // grain, width // grain, 3))
    return cv2.resize(noise.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def ball_at(index: int) -> tuple[int, int]:
    """Centre x, y of the ball."""
    return 70 + 3 * index % 180, 120


def blocks(path: Path) -> Path:
    """Two blocks, one upon the other, that may be one thing or two."""
    picture = (60 + texture(1, HEIGHT, WIDTH, 24) * 0.25).astype(np.uint8)
    grain = texture(2, HEIGHT, WIDTH, 8) * 0.12 - 15
    for top, color in ((60, (220, 120, 30)), (130, (40, 80, 220))):
        part = np.s_[top : top + 70, 120:200]
        picture[part] = (np.array(color) + grain[part]).clip(0, 255)
    with VideoWriter(path, size=(HEIGHT, WIDTH), fps=Fraction(10)) as writer:
        for _ in range(3):
            writer.write(picture)
    return path


def film(path: Path, count: int) -> Path:
    """An orange, speckled ball that rolls over a calm, textured ground, with a sound track."""
    ground = (60 + texture(1, HEIGHT, WIDTH, 24) * 0.25).astype(np.uint8)
    skin = np.array([230, 120, 30]) + texture(2, SIDE, SIDE, 8) * 0.15 - 20
    skin = skin.clip(0, 255).astype(np.uint8)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    disc = np.hypot(rows, columns) < SIDE / 2
    silent = path.with_name(f"silent_{path.name}")
    with VideoWriter(silent, size=(HEIGHT, WIDTH), fps=Fraction(10)) as writer:
        for index in range(count):
            x, y = ball_at(index)
            frame = ground.copy()
            frame[y - SIDE // 2 : y + SIDE // 2, x - SIDE // 2 : x + SIDE // 2][disc] = skin[disc]
            writer.write(frame)
    add_tone(silent, path)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    bad = folder / "broken & bent.mp4"
    bad.write_bytes(b"\0\0\0\x18ftypmp42" + os.urandom(5000))
    return {
        "short": film(folder / "ball.mp4", SHORT),
        "long": film(folder / "long.mp4", LONG),
        "blocks": blocks(folder / "blocks.mp4"),
        "bad": bad,
    }


# ------------------------------------------------------------------------------ server and browser


def start_server(port: int, log: Path, work: Path) -> subprocess.Popen:
    """The page as a user starts it, in a process of its own."""
    env = {
        **os.environ,
        "MIXCUT_WORK": str(work),
        "MIXCUT_MAX_UPLOAD_MB": "2",
        "TMPDIR": str(log.parent),  # Gradio serves whatever is below the usual one
    }
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "demo", "--port", str(port)],
            cwd=ROOT, env=env, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    limit = time.monotonic() + 180
    while f"http://127.0.0.1:{port}" not in log.read_text():
        assert server.poll() is None and time.monotonic() < limit, log.read_text()
        time.sleep(0.1)
    return server


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder."""
    return tmp_path_factory.getbasetemp() / "work"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    server = start_server(port, log, work)
    try:
        yield f"http://127.0.0.1:{port}/"
        server.send_signal(signal.SIGTERM)
        code = server.wait(120)
    finally:
        server.kill()
    assert code == 0, log.read_text()
    assert "Traceback" not in log.read_text() and "Warning" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; without one the test is skipped, except on CI, which has to have it."""
    with sync_api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None and Path(playwright.chromium.executable_path).exists():
            found = playwright.chromium.executable_path
        if found is None:
            missing = f"needs a browser: none of {', '.join(names)} is installed"
            assert os.environ.get("CI") != "true", missing
            pytest.skip(missing)
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        flags += ["--disable-smooth-scrolling"]  # what is clicked stays where it was measured
        chromium = playwright.chromium.launch(executable_path=found, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Open the page like a person of their own; at the end nothing may have gone wrong unseen."""
    contexts: list[Any] = []
    outside: list[str] = []
    errors: list[str] = []

    def guard(route: Any) -> None:
        if route.request.url.startswith((url, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    def go(context: Any = None) -> Any:
        if context is None:
            context = browser.new_context(
                viewport={"width": 1280, "height": 720}, accept_downloads=True
            )
            context.set_default_timeout(PATIENCE)
            context.route("**/*", guard)
            contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.locator("#picture .empty:visible, #picture .stage:visible").first.wait_for()
        return page

    yield go
    for context in contexts:
        context.close()
    assert not outside, "the page asked other machines for something"
    assert not errors


def upload(page: Any, clip: Path) -> None:
    page.locator("#upload input[type=file]").set_input_files(clip)
    expect(page.locator("#picture .stage")).to_be_visible()
    page.evaluate("document.fonts.ready.then(() => {})")  # which may still move things


def show_frame(page: Any, index: int) -> None:
    page.locator("#frame input").fill(str(index))
    page.keyboard.press("Tab")
    expect(page.locator("#picture .stage")).to_have_attribute(
        "aria-label", re.compile(rf"^Frame {index} of")
    )


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the video is on the screen."""
    page.locator("#picture .stage").scroll_into_view_if_needed()
    box = page.locator("#picture .stage").bounding_box()
    return box["x"] + (x + 0.5) * box["width"] / WIDTH, box["y"] + (y + 0.5) * box[
        "height"
    ] / HEIGHT


def click(page: Any, x: float, y: float, button: str = "left") -> None:
    page.mouse.click(*on_screen(page, x, y), button=button)


def percent(mark: Any, name: str) -> float:
    return float(mark.evaluate(f"e => parseFloat(e.style.{name})"))


def choose(page: Any, task: str) -> None:
    """What happens to the active object."""
    fate = page.locator("#picture li.active .fate").get_by_role("radio", name=task)
    fate.click()
    expect(fate).to_have_attribute("aria-checked", "true")


def put(page: Any, setting: str, value: str) -> None:
    """Type a number into a setting, as late as a person would."""
    number = page.locator(f"#{setting} input[type=number]")
    # In the moment in which its group is opened, Gradio puts the former value back once more.
    for _ in range(5):
        number.fill(value)
        page.keyboard.press("Tab")
        page.wait_for_timeout(500)
        if number.input_value() == value:
            return
    raise AssertionError(f"{setting} is {number.input_value()}, not {value}.")


def settled(page: Any) -> None:
    """The server has shown the frame that the editor is at, and looked at it."""
    expect(page.locator("#picture .stage")).to_be_visible()
    expect(page.locator("#picture .badge")).to_be_hidden()


def mask_pixels(page: Any, selector: str = "#picture img.mask") -> list[list[int]]:
    """Opacity, row by row, of the mask that is drawn over the picture."""
    return page.locator(selector).first.evaluate(
        """async m => { const c = document.createElement("canvas");
            await m.decode(); c.width = m.naturalWidth; c.height = m.naturalHeight;
            const d = c.getContext("2d"); d.drawImage(m, 0, 0);
            const a = d.getImageData(0, 0, c.width, c.height).data;
            return [...Array(c.height).keys()].map(
                y => [...Array(c.width).keys()].map(x => a[4 * (y * c.width + x) + 3])) }"""
    )


def begin(page: Any, press: Callable[[], None] | None = None) -> None:
    """Press Run, and see that it cannot be pressed again, but Cancel can."""
    # Noted by the page itself: a short run may be over before somebody outside looks.
    page.evaluate(
        """() => { window.busy = false;
            const [run, cancel] = ["#run", "#cancel"].map(s => document.querySelector(s));
            new MutationObserver(() => { window.busy ||= run.disabled && !cancel.disabled })
                .observe(document.body, { attributes: true, childList: true, subtree: true }) }"""
    )
    press() if press else page.locator("#run").click()
    page.wait_for_function("window.busy")


def run(page: Any) -> None:
    begin(page)
    expect(page.locator("#run")).to_be_enabled(timeout=600_000)
    expect(page.locator("#status")).to_contain_text("Done")


def stand_still(page: Any) -> None:
    page.locator("#pause").click()
    expect(page.locator("#pause")).to_have_text("Go on")
    expect(page.locator("#status")).to_contain_text("paused")


def go_on(page: Any) -> None:
    expect(page.locator("#pause")).to_have_text("Go on")
    page.locator("#pause").click()
    expect(page.locator("#status")).not_to_contain_text("paused")


def result(page: Any, name: str) -> str:
    """Show one of the results; returns the selector of its player."""
    page.locator(f"#screen .which button[data-name='{name}']").click()
    return f"video#{name.replace('.', '_')}"


def progress(page: Any) -> Any:
    return page.locator("#status [role=progressbar]")


def video_facts(page: Any, selector: str) -> dict[str, Any]:
    """What the player knows of its video, after it has really played a little."""
    page.wait_for_function(
        "s => { const v = document.querySelector(s); return v && v.readyState >= 2 }", arg=selector
    )
    return page.locator(selector).evaluate(
        """async v => { v.muted = true; await v.play();
            while (!v.currentTime)
                await new Promise(done => v.addEventListener("timeupdate", done, { once: true }));
            v.pause();
            return { width: v.videoWidth, height: v.videoHeight, duration: v.duration,
                     played: v.currentTime, error: v.error && v.error.message } }"""
    )


def download(page: Any, selector: str) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.locator(selector).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def decode(data: bytes) -> tuple[list[np.ndarray], int]:
    """All frames, and how many packets of sound there are."""
    with av.open(io.BytesIO(data)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        sound = sum(p.size > 0 for s in container.streams.audio for p in container.demux(s))
    return frames, sound


# ---------------------------------------------------------------------------------------- tests


def test_from_the_click_to_the_results(visit: Callable[..., Any], clips: dict[str, Path]) -> None:
    page = visit()
    expect(page.locator("#picture .empty li")).to_have_count(3)
    expect(page.locator("#limits")).to_contain_text("megapixels")
    upload(page, clips["short"])
    expect(page.locator("#info")).to_contain_text(f"{WIDTH}x{HEIGHT}, {SHORT} frames, 10 fps")
    expect(page.locator("#info")).to_contain_text("with sound")

    # The part that is worked on has ends that can be dragged.
    line = page.locator("#picture .timeline")
    left, top, width = (line.bounding_box()[side] for side in ("x", "y", "width"))
    for fraction, part in ((0.55, "0 to 5"), (1.0, "0 to 9")):
        page.mouse.move(left + width - 3 if fraction < 1 else left + width * 0.6, top + 4)
        page.mouse.down()
        page.mouse.move(left + width * fraction - 1, top + 4, steps=3)
        page.mouse.up()
        expect(line).to_have_attribute("aria-valuetext", f"Frame 0; work on {part}")

    # Nothing to run yet: a sentence, not a failure.
    page.locator("#run").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("Click the object")

    show_frame(page, 4)
    x, y = ball_at(4)
    click(page, 5, 5, button="right")
    expect(page.get_by_test_id("toast-body").last).to_contain_text("Click on the object first")
    expect(page.locator("#picture i.pending")).to_have_count(0)
    click(page, x, y)
    mask = page.locator("#picture img.mask")
    expect(mask).to_be_visible()
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    dot = page.locator("#picture i.dot.on")
    assert abs(percent(dot, "left") - 100 * x / WIDTH) < 0.5  # one pixel is 0.3 %
    assert abs(percent(dot, "top") - 100 * y / HEIGHT) < 0.5
    box = page.locator("#picture i.box:not(.pending)")
    wanted = (x - SIDE / 2, y - SIDE / 2, SIDE, SIDE)
    for name, value, scale in zip(
        ("left", "top", "width", "height"), wanted, (WIDTH, HEIGHT) * 2, strict=True
    ):
        assert abs(percent(box, name) - 100 * value / scale) < 3, f"{name} of the box"
    tint = mask_pixels(page)
    assert 0 < tint[y][x] < 255 and tint[2][2] == 0

    # Corners are exact; right-click and the other tool mark background; undo and clear.
    click(page, WIDTH - 1, HEIGHT - 1, button="right")
    off = page.locator("#picture i.dot.off")
    expect(off).to_have_count(1)
    assert percent(off, "left") == pytest.approx(100 * (WIDTH - 1) / WIDTH, abs=1e-3)
    assert percent(off, "top") == pytest.approx(100 * (HEIGHT - 1) / HEIGHT, abs=1e-3)
    page.locator("#picture button[data-tool=minus]").click()
    click(page, 0, 0)
    expect(off).to_have_count(2)
    page.locator("#undo").click()
    expect(off).to_have_count(1)
    page.locator("#redo").click()
    expect(off).to_have_count(2)
    page.locator("#clear").click()
    expect(page.locator("#picture i.dot")).to_have_count(0)
    expect(mask).to_be_hidden()
    page.locator("#picture button[data-tool=plus]").click()

    # A drag is a box; arrow keys change the frame.
    page.mouse.move(*on_screen(page, x - 40, y - 40))
    page.mouse.down()
    page.mouse.move(*on_screen(page, x + 40, y + 40), steps=4)
    page.mouse.up()
    expect(box).to_be_visible()
    assert abs(percent(box, "width") - 100 * 81 / WIDTH) < 1
    expect(mask).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#frame input")).to_have_value("5")
    expect(mask).to_be_hidden()
    expect(page.locator("#picture .note")).to_contain_text("frame 4")
    page.locator("#clear").click()
    expect(page.locator("#picture .note")).to_contain_text("Click the object")

    show_frame(page, 4)
    click(page, x, y)
    expect(mask).to_be_visible()
    choose(page, "Cut out")
    run(page)

    for name in ("tracked", "segmented"):
        facts = video_facts(page, result(page, f"{name}.mp4"))
        assert (facts["width"], facts["height"], facts["error"]) == (WIDTH, HEIGHT, None)
        assert abs(facts["duration"] - SHORT / 10) < 0.1 and facts["played"] > 0
        filename, data = download(page, f"#{name}_mp4_download")
        frames, sound = decode(data)
        assert filename == f"{name}.mp4" and len(frames) == SHORT and sound > 0
    expect(page.locator("#screen [data-name='removed.mp4']")).to_have_count(0)
    for view, both in (("wipe", True), ("side", True), ("alone", False)):
        page.locator(f"#screen button[data-view={view}]").click()
        expect(page.locator("#screen video.before")).to_be_visible(visible=both)
    assert np.ptp(frames[4][y, x].astype(int) - [230, 120, 30]) > 20, "the ball is not tinted"
    filename, data = download(page, "#masks_and_tracks_zip_download")
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        names = bundle.namelist()
        assert filename.endswith(".zip") and {"tracks.csv", "tracks.json", "run.json"} <= set(names)
        assert sum(name.startswith("masks/") for name in names) == SHORT
    page.locator("#screen video.after").evaluate(
        "v => new Promise(done => { v.onseeked = done; v.currentTime = 0.75 })"
    )
    expect(page.locator("#screen .time")).to_contain_text("frame 7,")
    page.locator("#screen [data-do=correct]").click()
    expect(page.locator("#frame input")).to_have_value("7")
    expect(page.locator("#picture .stage")).to_be_focused()
    expect(page.locator("#picture .note")).to_contain_text("corrects it from this frame on")
    expect(page.locator("#models")).to_contain_text("mobile_sam")

    show_frame(page, 4)
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    page.reload()  # what is done is still there
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    assert video_facts(page, result(page, "segmented.mp4"))["width"] == WIDTH


def test_a_bad_upload_gets_a_sentence_and_the_next_one_works(
    visit: Callable[..., Any], clips: dict[str, Path]
) -> None:
    page = visit()
    page.locator("#upload input[type=file]").set_input_files(clips["bad"])
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text("broken & bent.mp4")
    expect(toast).not_to_contain_text("source")
    expect(page.locator("#picture .empty")).to_be_visible()
    upload(page, clips["short"])  # only possible once the component is empty again


def test_a_run_outlives_the_tab_and_is_nobody_elses(
    visit: Callable[..., Any], clips: dict[str, Path], work: Path
) -> None:
    page = visit()
    upload(page, clips["long"])
    click(page, *ball_at(0))
    expect(page.locator("#picture img.mask")).to_be_visible()
    choose(page, "Cut out")
    stranger = visit()
    expect(stranger.locator("#picture .empty")).to_be_visible()
    expect(stranger.locator("#status")).to_have_text("")
    upload(stranger, clips["short"])
    click(stranger, *ball_at(0))
    expect(stranger.locator("#picture img.mask")).to_be_visible()
    page.locator("#run").click()
    expect(page.locator("#cancel")).to_be_enabled()
    stranger.locator("#run").click()
    expect(stranger.locator("#status")).to_contain_text("Waiting: 1 job is before yours")
    stand_still(page)  # and makes way
    expect(stranger.locator("#status")).to_contain_text("Done", timeout=600_000)
    expect(page.locator("#status")).to_contain_text("others may run meanwhile")

    go_on(page)
    expect(progress(page)).to_have_attribute("aria-label", "Cutting it out", timeout=600_000)
    expect(page.locator("#status")).to_contain_text(
        re.compile(rf"frame \d+ of {LONG}, about \d+ (s|min)")
    )
    live = page.locator("#picture .live")  # in the picture's place, and as large
    expect(live.locator("figcaption")).to_have_text(re.compile(r"^Run, frame \d+$"))
    page.wait_for_function(
        """width => { const [live, stage] = [".live", ".stage"].map(
                s => document.querySelector(`#picture ${s}`).getBoundingClientRect());
            return Math.abs(live.width - stage.width) <= 2
                && document.querySelector("#picture .live img").naturalWidth === width }""",
        arg=WIDTH,
    )
    page.keyboard.press("w")
    expect(live).to_be_hidden()
    watch = page.locator("#picture .watch")
    watch.get_by_role("radio", name="Watch the run").click()
    expect(live).to_be_visible()
    live.click()  # back to the picture, and nothing is marked
    expect(live).to_be_hidden()
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    page.keyboard.press("w")
    expect(live).to_be_visible()
    page.keyboard.press("ArrowRight")  # so does going to another frame
    expect(live).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    settled(page)

    stand_still(page)
    page.reload()
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    expect(page.locator("#info")).to_contain_text("long.mp4")
    expect(progress(page)).to_be_visible()
    expect(page.locator("#run")).to_be_disabled()
    context = page.context
    page.close()
    page = visit(context)  # a tab opened later, in the same browser
    expect(progress(page)).to_be_visible()

    go_on(page)
    page.locator("#cancel").click()
    expect(page.locator("#status")).to_contain_text("Stopped")
    (session,) = re.findall(r"project=(\w+)", page.url)
    masks = len(list((work / session / "results").rglob("*.png")))
    assert 0 < masks < LONG, "it ended in the middle of what it was doing"
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator("#picture .watch")).to_be_hidden()
    expect(page.locator("#results")).to_be_hidden()
    expect(stranger.locator("#screen video.after")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("Stopped")


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (390, 844)])
def test_a_click_lands_on_its_pixel(
    visit: Callable[..., Any], clips: dict[str, Path], size: tuple[int, int]
) -> None:
    page = visit()
    page.set_viewport_size({"width": size[0], "height": size[1]})
    upload(page, clips["short"])
    settled(page)
    x, y = ball_at(0)
    for count, (dx, dy) in enumerate(((0, 0), (-17, 11)), start=1):
        click(page, x + dx, y + dy)
        dots = page.locator("#picture i.dot.on")
        expect(dots).to_have_count(count)
        assert abs(percent(dots.last, "left") * WIDTH / 100 - x - dx) <= 1
        assert abs(percent(dots.last, "top") * HEIGHT / 100 - y - dy) <= 1
    if size[0] > 400:  # zoomed in, it still does
        page.mouse.move(*on_screen(page, x, y))
        page.keyboard.press("+")
        page.keyboard.press("+")
        film = page.locator("#picture .film").bounding_box()
        assert film["width"] > 2 * page.locator("#picture .stage").bounding_box()["width"]
        middle = page.locator("#picture .stage").bounding_box()
        page.mouse.click(middle["x"] + middle["width"] / 2, middle["y"] + middle["height"] / 2)
        expect(dots).to_have_count(3)
        assert abs(percent(dots.last, "left") * WIDTH / 100 - WIDTH / 2) <= 1


def test_a_negative_click_shrinks_the_mask_and_a_brush_changes_it(
    visit: Callable[..., Any], clips: dict[str, Path]
) -> None:
    page = visit()
    upload(page, clips["blocks"])
    settled(page)
    page.mouse.move(*on_screen(page, 110, 50))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 210, 210), steps=4)
    page.mouse.up()
    expect(page.locator("#picture img.mask")).to_be_visible()
    before = np.array(mask_pixels(page)) > 0
    assert before[95, 160] and before[165, 160]
    click(page, 160, 165, button="right")
    expect(page.locator("#picture i.dot.off")).to_have_count(1)
    settled(page)
    after = np.array(mask_pixels(page)) > 0
    assert after.sum() < 0.9 * before.sum() and after[95, 160] and not after[165, 160]
    page.locator("#picture button[data-tool=brush]").click()
    page.mouse.move(*on_screen(page, 250, 60))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 280, 60), steps=5)
    wait = "s => ![null, undefined, s].includes(document.querySelector('#picture img.mask')?.src)"
    before_it = page.locator("#picture img.mask").get_attribute("src")
    page.mouse.up()
    page.wait_for_function(wait, arg=before_it)
    painted = np.array(mask_pixels(page)) > 0
    assert painted[60, 265] and painted.sum() > after.sum()
    before_it = page.locator("#picture img.mask").get_attribute("src")
    page.locator("#picture .stage").press("Control+z")
    page.wait_for_function(wait, arg=before_it)
    assert (np.array(mask_pixels(page)) > 0).sum() == after.sum()


def test_two_objects_and_a_correction(visit: Callable[..., Any], clips: dict[str, Path]) -> None:
    page = visit()
    upload(page, clips["short"])
    settled(page)
    x, y = ball_at(2)
    show_frame(page, 2)
    click(page, x, y)
    rows = page.locator("#picture .things li")
    expect(rows).to_have_count(1)
    rows.first.locator(".name").fill("ball")
    page.keyboard.press("Tab")
    page.locator("#add").click()
    expect(rows).to_have_count(2)
    page.mouse.move(*on_screen(page, 10, 180))
    page.mouse.down()
    page.mouse.move(*on_screen(page, 70, 230), steps=4)
    page.mouse.up()
    expect(page.locator("#picture i.box:not(.pending)")).to_have_count(2)
    expect(page.locator("#picture i.box b").first).to_have_text("ball")
    rows.last.locator(".eye").click()
    expect(page.locator("#picture i.box")).to_have_count(1)
    run(page)
    with zipfile.ZipFile(io.BytesIO(download(page, "#masks_and_tracks_zip_download")[1])) as bundle:
        before = bundle.read("tracks.csv").decode().splitlines()[1:]
    assert {line.split(",")[2] for line in before} == {"1", "2"} and len(before) == 2 * SHORT

    # Correct the ball on a later frame: what lies before it, and the other object, stay.
    rows.first.click(position={"x": 3, "y": 3})
    show_frame(page, 6)
    expect(page.locator("#picture .note")).to_contain_text("corrects it from this frame on")
    x, y = ball_at(6)
    page.mouse.move(*on_screen(page, x - 20, y - 20))
    page.mouse.down()
    page.mouse.move(*on_screen(page, x + 20, y + 20), steps=4)
    page.mouse.up()
    expect(rows.first.locator(".state")).to_have_text("key frame")
    run(page)
    with zipfile.ZipFile(io.BytesIO(download(page, "#masks_and_tracks_zip_download")[1])) as bundle:
        after = bundle.read("tracks.csv").decode().splitlines()[1:]
    changed = {tuple(new.split(",")[0:3:2]) for old, new in zip(before, after, strict=True)
               if old != new}  # fmt: skip
    assert changed and changed <= {(str(i), "1") for i in range(6, SHORT)}
    # The timeline leads back to a frame.
    line = page.locator("#picture .timeline")
    width, height = (line.bounding_box()[side] for side in ("width", "height"))
    line.click(position={"x": width * 1.5 / SHORT, "y": height / 2})
    expect(page.locator("#frame input")).to_have_value("1")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_sideways(
    visit: Callable[..., Any], clips: dict[str, Path], width: int
) -> None:
    page = visit()
    page.set_viewport_size({"width": width, "height": 800})
    upload(page, clips["short"])
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    stage = page.locator("#picture .stage").bounding_box()
    assert abs(stage["width"] / stage["height"] - WIDTH / HEIGHT) < 0.01
    assert stage["x"] >= 0 and stage["x"] + stage["width"] <= width


@pytest.mark.slow
def test_paint_it_away(visit: Callable[..., Any], clips: dict[str, Path]) -> None:
    page = visit()
    upload(page, clips["short"])
    click(page, *ball_at(0))
    expect(page.locator("#picture img.mask")).to_be_visible()
    choose(page, "Paint away")
    run(page)
    assert video_facts(page, result(page, "removed.mp4"))["width"] == WIDTH
    frames, sound = decode(download(page, "#removed_mp4_download")[1])
    assert len(frames) == SHORT and sound > 0
    for index, frame in enumerate(frames):
        x, y = ball_at(index)
        red, _, blue = frame[y - 20 : y + 20, x - 20 : x + 20].reshape(-1, 3).mean(0)
        assert red - blue < 60, f"the ball can still be seen on frame {index}"


@pytest.mark.slow
def test_a_server_that_is_killed_goes_on_when_it_is_started_again(
    browser: Any, clips: dict[str, Path], tmp_path: Path
) -> None:
    def finish(kill_at: int | None) -> dict[str, bytes]:
        work, port = tmp_path / f"work{kill_at}", free_port()
        server = start_server(port, tmp_path / "log.txt", work)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(PATIENCE)
        try:
            page.goto(f"http://127.0.0.1:{port}/")
            page.locator("#picture .empty").wait_for()
            upload(page, clips["long"])
            settled(page)
            click(page, *ball_at(0))
            expect(page.locator("#picture img.mask")).to_be_visible()
            choose(page, "Cut out")
            page.locator("#run").click()
            if kill_at is not None:
                # Noted by the page itself: nobody outside sees every number that it shows.
                page.wait_for_function(
                    """least => { const text = document.querySelector("#status").textContent;
                        return text.includes("Cutting")
                            && /frame (\\d+) of/.exec(text)?.[1] >= least }""",
                    arg=kill_at,
                    timeout=600_000,
                )
                address = page.url
                server.kill()
                server.wait()
                server = start_server(port, tmp_path / "log.txt", work)
                page.goto(address)
            expect(page.locator("#status")).to_contain_text("Done", timeout=600_000)
            names = ("tracked.mp4", "segmented.mp4")
            return {n: download(page, f"#{n.replace('.', '_')}_download")[1] for n in names}
        finally:
            page.close()
            server.kill()
            server.wait()

    assert finish(kill_at=20) == finish(kill_at=None)


# ---------------------------------------------------------------------------------------- server


def status(request: urllib.request.Request | str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(request, timeout=120).status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_gives_away_nothing_else(url: str) -> None:
    assert status(url) == 200
    for path in ("/etc/passwd", ROOT / "README.md", ROOT / "demo" / "app.py"):
        assert status(f"{url}gradio_api/file={path}") == 403
    for elsewhere in ("http://example.com/", "HTTPS://example.com/", "http://127.0.0.1:1/"):
        assert status(f"{url}gradio_api/file={elsewhere}") == 403
    assert status(f"{url}monitoring") >= 400
    for path in ("media/x/source", f"media/{'0' * 32}/frame/0.jpg", "media/../demo/app.py"):
        assert status(f"{url}{path}") == 404


# Only just too large: the server hangs up when it has seen enough, and the rest could not be sent.
@pytest.mark.parametrize(("size", "code"), [(2 << 20, 200), ((2 << 20) + 1, 413)])
def test_a_file_over_the_limit_is_refused(url: str, size: int, code: int) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    request = urllib.request.Request(
        f"{url}gradio_api/upload",
        head + bytes(size) + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert status(request) == code


@pytest.mark.parametrize("path", ["http://example.com/a.mp4", "HTTPS://example.com/a.mp4"])
def test_a_url_in_place_of_a_file_is_not_fetched(path: str) -> None:
    with pytest.raises(gr.Error, match="your own computer"):  # before anything is awaited
        files_only(gr.File()).async_move_resource_to_block_cache(path).send(None)


def test_without_a_window_of_its_own_the_page_opens_in_the_browser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(app.webbrowser, "open", opened.append)
    monkeypatch.setitem(sys.modules, "webview", None)
    assert window.show("http://127.0.0.1:1/") == window.NO_WINDOW
    for code, own in ((0, True), (window.NO_WINDOW, False), (-6, False)):  # -6: Qt has no screen
        ended = subprocess.CompletedProcess((), code)
        monkeypatch.setattr(app.subprocess, "run", lambda *a, ended=ended, **k: ended)
        assert app.open_window("http://127.0.0.1:1/") is own
    assert opened == ["http://127.0.0.1:1/"] * 2


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    page = build_page(Workspace(Options(tmp_path / "work")))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="choose another --port"):
            launch(page, "127.0.0.1", taken.getsockname()[1])
    page.workspace.close()


# ------------------------------------------------------------------------- answers out of order


@pytest.fixture
def project(
    browser: Any, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Opens the page and a session, of a server in this process, so that a test can meddle."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
    opened: list[Any] = []

    def go(**options: Any) -> Any:
        page = build_page(Workspace(Options(tmp_path / "work")))
        session = page.workspace.open(clips["short"], "ball.mp4")
        port = free_port()
        launch(page, "127.0.0.1", port)
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
        context.set_default_timeout(PATIENCE)
        tab = context.new_page()
        opened.append((page, context))
        tab.goto(f"http://127.0.0.1:{port}/?project={session.id}")
        expect(tab.locator("#picture .stage")).to_be_visible()
        return tab, session

    yield go
    for page, context in opened:
        context.close()
        page.close()


def test_the_page_learns_that_a_frame_was_looked_at_for_somebody_else(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would say for ever that it is being looked at."""
    view = Session.view

    def meanwhile(session: Session) -> dict[str, Any]:
        seen = view(session)
        session.prepare()
        return seen

    monkeypatch.setattr(Session, "view", meanwhile)
    settled(project()[0])


def test_a_frame_that_cannot_be_looked_at_is_asked_for_once(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(session: Session) -> None:
        asked.append(session.id)
        raise InputError("There are no weights.")

    monkeypatch.setattr(Session, "prepare", refuse)
    page, _ = project()
    settled(page)
    page.wait_for_timeout(1000)
    assert len(asked) == 1


def test_an_answer_that_was_overtaken_is_not_shown(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, session = project()
    settled(page)
    old, view, asked = session.view(), Session.view, threading.Event()
    monkeypatch.setattr(Session, "prepare", lambda _: asked.set())
    monkeypatch.setattr(Session, "view", lambda s: old if asked.is_set() else view(s))
    show_frame(page, 3)
    expect(page.locator("#picture .badge")).to_have_text("Looking at the frame")
    limit = time.monotonic() + 120
    while not asked.is_set():
        assert time.monotonic() < limit, "nobody was asked to look"
        page.wait_for_timeout(50)
    page.wait_for_timeout(1000)
    expect(page.locator("#picture .stage")).to_have_attribute("aria-label", re.compile("^Frame 3 "))


def test_everything_is_found_and_a_click_picks(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    find, searched = looking.find_objects, threading.Event()

    def held(*what: Any, **how: Any) -> list[Any]:
        """The first search comes as far as 37 %, and ends when it is told that nobody waits."""
        if searched.is_set():
            return find(*what, **{**how, "seconds": None})
        how["progress"](37, 100)
        limit = time.monotonic() + 120
        while not how["cancelled"]():
            assert time.monotonic() < limit, "it goes on although the frame was left"
            time.sleep(0.01)
        searched.set()
        return []

    monkeypatch.setattr(looking, "find_objects", held)
    page, session = project()
    settled(page)
    page.locator("#picture button[data-tool=pick]").click()
    badge = page.locator("#picture .badge")
    expect(badge).to_have_text("Finding everything: 37 %")
    show_frame(page, 4)  # the search on the frame that is left ends, and another one begins
    expect(badge).to_be_hidden()
    assert session.view()["survey"]
    click(page, *ball_at(4))
    expect(page.locator("#picture .things .state")).to_have_text("key frame")
    x0, y0, x1, y1 = session.view()["things"][0]["box"]
    assert abs((x0 + x1) / 2 - ball_at(4)[0]) < 5 and abs((y0 + y1) / 2 - ball_at(4)[1]) < 5


def test_a_lost_object_is_found_again_by_a_button_and_by_a_key(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, session = project()
    settled(page)
    again, note = page.locator("#again"), page.locator("#picture .note")
    expect(again).to_be_hidden()
    click(page, *ball_at(0))
    expect(page.locator("#picture img.mask")).to_be_visible()
    show_frame(page, 6)
    expect(again).to_be_hidden()
    # As a run leaves it that lost the ball after frame 2.
    tracks = Tracks()
    x, y = ball_at(0)
    for index in range(SHORT):
        box = (x + 3 * index - 36.0, y - 36.0, x + 3 * index + 36.0, y + 36.0)
        tracks.put(index, 1, TrackPoint(box, 0.9) if index < 3 else TrackPoint(None, 0.1))
    monkeypatch.setattr(Session, "tracks", lambda _: tracks)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(note).to_contain_text("lost here")
    expect(again).to_be_visible()
    again.click()
    expect(page.locator("#picture .things .state")).to_have_text("key frame")
    expect(note).to_have_text(re.compile(r"^Object 1 was found here, \d+ % sure"))
    expect(again).to_be_hidden()
    x0, y0, x1, y1 = session.view()["things"][0]["box"]
    assert abs((x0 + x1) / 2 - ball_at(6)[0]) < 8 and abs((y0 + y1) / 2 - ball_at(6)[1]) < 8
    expect(page.locator("#picture img.mask")).to_be_visible()
    page.locator("#undo").click()
    expect(again).to_be_visible()
    monkeypatch.setattr(sessions, "SURE_ENOUGH", 1.1)
    page.locator("#picture .stage").press("r")
    expect(page.get_by_test_id("toast-body")).to_contain_text("not found anywhere on frame 6")
    expect(again).to_be_enabled()


def test_what_will_be_painted_over_is_shown_without_another_frame(
    project: Callable[..., Any],
) -> None:
    page, _ = project()
    settled(page)
    click(page, *ball_at(0))
    expect(page.locator("#picture img.mask")).to_be_visible()
    line = page.locator("#picture .lines path.hole")
    expect(line).to_have_count(0)
    choose(page, "Paint away")
    expect(line).to_have_attribute("d", re.compile("^M.*Z$"))
    frames: list[str] = []
    page.on("request", lambda r: frames.append(r.url) if "/frame/" in r.url else None)

    def width() -> float:
        return line.evaluate("e => e.getBBox().width")

    before = width()
    assert SIDE < before < 1.3 * SIDE
    page.locator("#mask_settings").get_by_role("button").first.click()
    put(page, "dilate", "20")
    page.wait_for_function(
        "w => document.querySelector('#picture path.hole').getBBox().width > w", arg=before + 20
    )
    assert width() == pytest.approx(SIDE + 40, abs=8)
    choose(page, "Cut out")
    expect(line).to_have_count(0)
    put(page, "feather", "6")
    expect(page.locator("#picture .lines path.fade")).to_have_count(1)
    assert not frames


def test_the_timeline_is_zoomed_to_the_part_that_is_worked_on(
    project: Callable[..., Any], clips: dict[str, Path]
) -> None:
    page, _ = project()
    upload(page, clips["long"])
    expect(page.locator("#info")).to_contain_text("long.mp4")
    settled(page)
    for frame, key in ((30, "i"), (49, "o")):
        show_frame(page, frame)
        page.keyboard.press(key)
    line, zoom = page.locator("#picture .timeline"), page.locator("#zoom")
    expect(line).to_have_attribute("aria-valuetext", "Frame 49; work on 30 to 49")

    def pick(share: float) -> int:
        """The frame that a click on the timeline leads to."""
        width = line.bounding_box()["width"]
        line.click(position={"x": width * share, "y": 30})
        page.wait_for_timeout(300)
        return int(page.locator("#frame input").input_value())

    assert pick(0.51) == 40 and pick(0.91) == 72
    page.keyboard.press("z")
    expect(zoom).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(300)
    show_frame(page, 40)
    assert pick(0.0001) in (29, 30, 31) and pick(0.999) in (48, 49, 50)
    page.locator("#picture .stage").press("Home")  # it goes along with the frame
    page.wait_for_timeout(300)
    assert pick(0.999) in (19, 20, 21)
    line.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, 2000)
    page.keyboard.up("Control")
    expect(zoom).to_have_attribute("aria-pressed", "false")
    assert pick(0.51) == 40


def test_what_is_being_typed_outlives_an_answer(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, _ = project()
    settled(page)
    click(page, *ball_at(0))
    name, number = page.locator("#picture .things .name"), page.locator("#frame input")
    expect(name).to_have_value("Object 1")
    answers, prepare = threading.Semaphore(0), Session.prepare
    monkeypatch.setattr(Session, "prepare", lambda s: answers.acquire(timeout=300) and prepare(s))
    for frame, field, text in ((3, name, "the ball"), (4, number, "6")):
        show_frame(page, frame)
        expect(page.locator("#picture .badge")).to_have_text("Looking at the frame")
        field.fill(text)
        answers.release()
        settled(page)
        expect(field).to_have_value(text)
        expect(field).to_be_focused()
    answers.release(100)
    page.keyboard.press("Tab")
    expect(page.locator("#picture .stage")).to_have_attribute("aria-label", re.compile("^Frame 6 "))
    expect(name).to_have_value("the ball")


# ------------------------------------------------------------------------- other ways to use it


def scale(page: Any) -> float:
    return page.locator("#picture .film").evaluate(
        "e => new DOMMatrix(getComputedStyle(e).transform).a"
    )


def test_another_video_is_begun_anew_and_the_way_back_leads_to_the_first(
    project: Callable[..., Any], clips: dict[str, Path]
) -> None:
    page, session = project()
    settled(page)
    page.locator("#frame input").fill("1.5")
    page.keyboard.press("Tab")
    stage = page.locator("#picture .stage")
    expect(stage).to_have_attribute("aria-label", re.compile("^Frame 2 "))
    settled(page)
    page.locator("#picture [data-zoom='1']").click()
    page.locator("#picture button[data-tool=brush]").click()
    assert scale(page) == 1.5
    page.locator("#upload input[type=file]").set_input_files(clips["blocks"])
    expect(page.locator("#info")).to_contain_text("blocks.mp4")
    expect(stage).to_have_attribute("data-tool", "plus")
    assert scale(page) == 1
    page.go_back()
    expect(page.locator("#info")).to_contain_text("ball.mp4")
    assert session.id in page.url


def test_a_project_that_was_saved_is_gone_on_with(
    project: Callable[..., Any], tmp_path: Path
) -> None:
    page, session = project()
    settled(page)
    click(page, *ball_at(0))
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    name, data = download(page, "#picture .project")
    (tmp_path / name).write_bytes(data)
    upload(page, tmp_path / name)
    expect(page).not_to_have_url(re.compile(session.id))
    expect(page.locator("#info")).to_contain_text("ball.mp4")
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    expect(page.locator("#picture img.mask")).to_be_visible()


def test_two_tabs_of_one_project(project: Callable[..., Any]) -> None:
    page, _ = project()
    other = page.context.new_page()
    settled(page)
    other.goto(page.url)
    settled(other)
    click(page, *ball_at(0))
    rows = "#picture .things li"
    expect(page.locator(rows)).to_have_count(1)
    expect(other.locator(rows)).to_have_count(0)
    other.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(other.locator(rows)).to_have_count(1)


def test_fingers_move_and_zoom_the_picture_and_a_tap_points(project: Callable[..., Any]) -> None:
    page, session = project(viewport={"width": 390, "height": 844}, has_touch=True)
    settled(page)
    finger = page.context.new_cdp_session(page)
    stage = page.locator("#picture .stage")
    stage.scroll_into_view_if_needed()

    def touch(*steps: list[tuple[float, float]]) -> None:
        """Fingers at places, in shares of the picture, one step after another."""
        box = stage.bounding_box()
        for kind, places in [("touchStart", steps[0]), *(("touchMove", step) for step in steps[1:]),
                             ("touchEnd", [])]:  # fmt: skip
            points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": i}
                      for i, (x, y) in enumerate(places)]  # fmt: skip
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch([(0.3, 0.5)], [(0.4, 0.5)], [(0.7, 0.51)])
    assert scale(page) == 1
    touch([(0.4, 0.5), (0.6, 0.5)], [(0.35, 0.5), (0.65, 0.5)], [(0.3, 0.5), (0.7, 0.5)])
    assert scale(page) == pytest.approx(2, abs=0.1)
    film = page.locator("#picture .film")
    before = film.bounding_box()["x"]
    touch([(0.5, 0.5)], [(0.55, 0.5)], [(0.6, 0.5)])
    moved = film.bounding_box()["x"] - before
    assert moved == pytest.approx(0.1 * stage.bounding_box()["width"], abs=8)
    page.locator("#fit").click()
    assert session.view()["things"] == [], "nothing of that marks anything"
    x, y = ball_at(0)
    touch([(x / WIDTH, y / HEIGHT)])
    expect(page.locator("#picture .things li")).to_have_count(1)


def test_all_of_pointing_is_possible_from_the_keyboard(project: Callable[..., Any]) -> None:
    page, session = project()
    settled(page)
    page.locator("#picture .stage").focus()
    x, y = WIDTH // 2, HEIGHT // 2  # where the cross begins
    step = round(WIDTH / 60)
    for _ in range(round((x - ball_at(0)[0]) / step)):
        page.keyboard.press("Alt+ArrowLeft")
    expect(page.locator("#picture .aim")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#picture i.dot.on")).to_have_count(1)
    for _ in range(20):
        page.keyboard.press("Alt+ArrowRight")
    page.keyboard.press("Delete")
    expect(page.locator("#picture i.dot.off")).to_have_count(1)
    (first, second) = session.view()["things"][0]["points"]
    assert abs(first[0] - ball_at(0)[0]) <= step and first[1] == y and second[2] == 0
    page.keyboard.press("Escape")
    expect(page.locator("#picture .aim")).to_be_hidden()
    # Choices are walked through with the arrow keys, and change no frame meanwhile.
    page.locator("#picture button[data-tool=plus]").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#picture button[data-tool=minus]")).to_be_focused()
    expect(page.locator("#picture .stage")).to_have_attribute("data-tool", "minus")
    expect(page.locator("#picture .stage")).to_have_attribute("aria-label", re.compile("^Frame 0 "))
    assert page.locator("#picture button[data-tool][tabindex='0']").count() == 1
    begin(page, lambda: page.keyboard.press("Control+Enter"))


def test_a_project_that_is_no_longer_kept_is_a_sentence(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, _ = project()
    settled(page)
    monkeypatch.setattr(Workspace, "find", lambda *_: None)  # as after the sweep
    click(page, *ball_at(0))
    expect(page.get_by_text("no longer kept")).to_be_visible()
    expect(page.locator("#picture .empty")).to_be_visible()


# --------------------------------------------------------------------------------------- colours


def test_colours_are_read_back_from_a_canvas_as_they_were_written(
    browser: Any, tmp_path: Path
) -> None:
    """Untagged or BT.601 video comes back as (255,24,0) and (0,112,65) from a 720p file."""
    halves = np.empty((720, 1280, 3), np.uint8)
    halves[:, :640], halves[:, 640:] = (255, 0, 0), (0, 128, 64)
    with VideoWriter(tmp_path / "colours.mp4", size=(720, 1280), fps=Fraction(25)) as writer:
        for _ in range(5):
            writer.write(halves)
    (tmp_path / "index.html").write_text("<video src=colours.mp4 muted preload=auto></video>")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("document.querySelector('video').readyState >= 2")
        seen = page.locator("video").evaluate(
            """v => { const c = document.createElement("canvas"); c.width = 1280; c.height = 720;
                const d = c.getContext("2d"); d.drawImage(v, 0, 0);
                return [[320, 360], [960, 360]].map(
                    ([x, y]) => [...d.getImageData(x, y, 1, 1).data.slice(0, 3)]) }"""
        )
    finally:
        page.close()
        server.shutdown()
    assert np.abs(np.array(seen) - [(255, 0, 0), (0, 128, 64)]).max() <= 3, seen
