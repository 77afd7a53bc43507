"""How quickly the page answers, and how it bears twenty people at once.

    python -m benchmarks.page --users 20 --seconds 120

Clicks and frames are timed in a real browser at 1280x720 and 1920x1080: on a large object, on one
so small that it is looked at closely (its exact mask comes a little after the first), and on a
frame that one comes back to. The users are clients of the page's own interface, each with a clip of
their own, whose answers are checked to be theirs. Memory is what the system says the server and its
worker hold (RSS).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from media.video import VideoWriter

ROOT = Path(__file__).resolve().parents[1]


def film(path: Path, size: tuple[int, int], seed: int = 0, frames: int = 50) -> tuple[int, int]:
    """A ball over blotches, with a small one below; returns the ball's place x, y on frame 0.

    The place is another for every seed; the small ball stays at 10 % of the width, 90 % of the
    height.
    """
    height, width = size
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 130, (height // 40, width // 40, 3), np.uint8)
    ground = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
    x = int(width * (0.2 + 0.6 * rng.random()))
    y = int(height * (0.3 + 0.4 * rng.random()))
    with VideoWriter(path, size=size, fps=Fraction(25)) as writer:
        for k in range(frames):
            frame = ground.copy()
            cv2.circle(frame, (x + k, y), height // 7, (235, 120, 30), -1)
            cv2.circle(frame, (width // 10, height * 9 // 10), height // 30, (30, 120, 235), -1)
            writer.write(frame)
    return x, y


def memory(pids: list[int]) -> float:
    """Resident megabytes of processes and their children."""
    total = 0.0
    for pid in pids:
        tasks = Path(f"/proc/{pid}/task")
        children = [c for t in tasks.iterdir() for c in (t / "children").read_text().split()]
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0]) / 1024 if "VmRSS:" in status else 0
        total += memory([int(child) for child in children])
    return total


def start(work: Path) -> tuple[subprocess.Popen, str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "demo", "--port", str(port)],
        cwd=ROOT, env={**os.environ, "MIXCUT_WORK": str(work)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    while "http://" not in (line := server.stdout.readline()):
        assert line, "the server did not start"
    return server, f"http://127.0.0.1:{port}"


def quantiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    slow = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{1000 * statistics.median(ordered):.0f} / {1000 * slow:.0f}"


def in_browser(url: str, clip: Path, size: tuple[int, int], place: tuple[int, int]) -> list[str]:
    """Medians of 9 clicks and 9 steps: ms until the mask, or the next frame, is on the screen."""
    from playwright.sync_api import sync_playwright

    height, width = size
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or playwright.chromium.executable_path
        chromium = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        page = chromium.new_page(viewport={"width": 1600, "height": 900})
        page.goto(url)
        page.locator("#upload input[type=file]").set_input_files(clip)
        page.locator("#picture .stage").wait_for()
        began = time.perf_counter()
        page.locator("#picture .badge").wait_for(state="hidden", timeout=60_000)
        embedded = time.perf_counter() - began
        stage = page.locator("#picture .stage").bounding_box()
        assert stage is not None
        clicks, steps = [], []

        def look_away() -> float:
            """Seconds until the segmenter knows the frame that has just been asked for."""
            began = time.perf_counter()
            page.wait_for_timeout(120)  # the page tells the server after a moment of rest
            page.locator("#picture .badge").wait_for(state="hidden", timeout=60_000)
            return time.perf_counter() - began

        for k in range(9):
            x = stage["x"] + (place[0] + 3 * k) / width * stage["width"]
            y = stage["y"] + place[1] / height * stage["height"]
            began = time.perf_counter()
            page.mouse.click(x, y)
            page.wait_for_function(
                f"document.querySelectorAll('#picture i.dot.on').length === {k + 1}"
                " && [...document.querySelectorAll('#picture img.mask')].some(m => m.complete)"
            )
            clicks.append(time.perf_counter() - began)
        page.wait_for_timeout(700)  # then it looks closely at the last click
        look_away()
        for k in range(9):
            began = time.perf_counter()
            page.locator("#picture .stage").press("ArrowRight")
            page.wait_for_function(
                f"(i => i.src.endsWith('frame/{k + 1}.jpg') && i.complete)"
                "(document.querySelector('#picture img.frame'))"
            )
            steps.append(time.perf_counter() - began)
        look_away()
        page.locator("#picture .stage").press("Home")
        back = look_away()
        page.locator("#add").click()
        page.wait_for_function("document.querySelectorAll('#picture .things li').length === 2")
        began = time.perf_counter()
        page.mouse.click(stage["x"] + 0.1 * stage["width"], stage["y"] + 0.9 * stage["height"])
        page.wait_for_function(
            "document.querySelectorAll('#picture i.dot.on').length === 1"
            " && document.querySelectorAll('#picture img.mask').length === 2"
        )
        small = time.perf_counter() - began
        page.locator("#picture .badge").wait_for(state="hidden", timeout=60_000)
        exact = time.perf_counter() - began
        chromium.close()
    seconds = (f"{1000 * value:.0f}" for value in (embedded, back, small, exact))
    embedded_ms, *others = seconds
    return [f"{width}x{height}", embedded_ms, quantiles(clicks), quantiles(steps), *others]


def wait_idly(url: str, folder: Path, users: int) -> None:
    """Upload a clip for each user and leave it at that."""
    from gradio_client import Client, handle_file

    clip = folder / "idle.mp4"
    film(clip, (360, 640))
    client = Client(url, verbose=False)
    for _ in range(users):
        client.predict(handle_file(str(clip)), api_name="/open")


def crowd(url: str, folder: Path, users: int, seconds: float) -> dict[str, Any]:
    """Upload, click, step and click again, all at once; every answer is checked."""
    from gradio_client import Client, handle_file

    times: dict[str, list[float]] = {"open": [], "click": []}
    errors: list[str] = []
    end = time.monotonic() + seconds

    def user(number: int) -> None:
        size = (360, 640)
        clip = folder / f"user{number}.mp4"
        x, y = film(clip, size, seed=number)
        try:
            client = Client(url, verbose=False)
            while time.monotonic() < end:
                began = time.perf_counter()
                project = client.predict(handle_file(str(clip)), api_name="/open")["project"]
                times["open"].append(time.perf_counter() - began)
                for frame in (0, 20):
                    began = time.perf_counter()
                    details = {"frame": frame, "x": x + frame, "y": y, "label": 1}
                    answer = client.predict(project, "point", details, api_name="/act")
                    times["click"].append(time.perf_counter() - began)
                    x0, y0, x1, y1 = answer["objects"][0]["box"]
                    off = max(abs((x0 + x1) / 2 - x - frame), abs((y0 + y1) / 2 - y))
                    if answer["project"] != project or off > 12:
                        errors.append(f"user {number}: a box that is {off:.0f} pixels off")
        except Exception as error:
            errors.append(f"user {number}: {error}")

    threads = [threading.Thread(target=user, args=(k,)) for k in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"times": times, "errors": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, url = start(folder / "work")
        try:
            idle = memory([server.pid])
            print(
                "| frame | embedding, ms | click to mask, ms (median / 95 %) | step, ms "
                "| back to a frame, ms | click on a small object, ms | its exact mask, ms |"
            )
            print("|---|---|---|---|---|---|---|")
            for size in ((720, 1280), (1080, 1920)):
                clip = folder / f"{size[0]}.mp4"
                place = film(clip, size)
                print(f"| {' | '.join(in_browser(url, clip, size, place))} |", flush=True)
            loaded = memory([server.pid])
            wait_idly(url, folder, args.users)
            waiting = memory([server.pid])
            found = crowd(url, folder, args.users, args.seconds)
            crowded = memory([server.pid])
        finally:
            server.terminate()
            server.wait()
    times = found["times"]
    print(
        f"\n{args.users} users for {args.seconds:.0f} s: {len(times['open'])} uploads "
        f"({quantiles(times['open'])} ms), {len(times['click'])} clicks on new frames "
        f"({quantiles(times['click'])} ms), {len(found['errors'])} errors or mix-ups."
    )
    print(
        f"Server: {idle:.0f} MB idle, {loaded:.0f} MB with its models, "
        f"{(waiting - loaded) / args.users:.1f} MB per user who has uploaded and waits, "
        f"{crowded:.0f} MB after the crowd, {(crowded - waiting) / args.users:.1f} MB per user "
        "of it."
    )
    for error in found["errors"][:10]:
        print(error)
    sys.exit(bool(found["errors"]))


if __name__ == "__main__":
    main()
