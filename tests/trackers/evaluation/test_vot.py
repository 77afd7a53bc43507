"""The conversation with the VOT toolkit: as a play, and with the real protocol if it is there."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpoints import WeightsRecord
from media import InputError
from trackers.__main__ import main
from trackers.base import Track
from trackers.datasets import Dataset
from trackers.evaluation.run import Contestant
from trackers.evaluation.vot import answer, serve

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.mark.parametrize(("score", "properties"), [(0.25, {"confidence": 0.25}), (math.nan, {})])
def test_answer(score: float, properties: dict[str, float]) -> None:
    found = answer(Track(np.array([10, 20, 40, 60], np.float32), score))
    assert found == ([10, 20, 30, 40], properties)


class Steps:
    """Moves by (2, 1) in each frame; remembers where it started."""

    weights = WeightsRecord("none", "none")

    def __init__(self) -> None:
        self.starts: list[list[float]] = []

    def initialize(self, frame: np.ndarray, box: Any) -> None:
        assert frame.shape == (90, 120, 3)
        self.starts.append(list(box))
        self.box = np.array(box, np.float32)

    def track(self, frame: np.ndarray) -> Track:
        self.box = self.box + np.array([2, 1, 2, 1], np.float32)
        return Track(self.box, 0.5)


class Stage:
    """What `vot-trax` looks like from a tracker; the client's part is read from a script."""

    Region = SimpleNamespace(RECTANGLE="rectangle")
    Image = SimpleNamespace(PATH="path")
    ImageChannel = SimpleNamespace(COLOR="color")
    TraxStatus = SimpleNamespace(INITIALIZE="initialize", FRAME="frame", QUIT="quit")
    Rectangle = SimpleNamespace(create=lambda *box: box)

    class TraxException(Exception):
        pass

    def __init__(self, requests: list[Any]) -> None:
        self.requests = iter(requests)
        self.said: list[Any] = []

    def Server(self, regions: list[str], images: list[str], tracker_name: str) -> Stage:
        assert (regions, images, tracker_name) == (["rectangle"], ["path"], "steps")
        return self

    def wait(self) -> Any:
        request = next(self.requests)
        if isinstance(request, Exception):
            raise request
        return request

    def status(self, objects: list[Any]) -> None:
        self.said.append(objects)

    def quit(self, reason: str | None = None) -> None:
        self.said.append(("quit", reason))


def request(kind: str, path: Path | None = None, box: tuple[float, ...] = ()) -> Any:
    image = {"color": SimpleNamespace(path=lambda: str(path))}
    region = SimpleNamespace(bounds=lambda: box)
    return SimpleNamespace(type=kind, image=image, objects=[(region, {})])


def play(monkeypatch: pytest.MonkeyPatch, requests: list[Any]) -> tuple[Stage, Steps]:
    stage, tracker = Stage(requests), Steps()
    monkeypatch.setitem(sys.modules, "trax", stage)  # type: ignore[arg-type]
    monkeypatch.setattr(Contestant, "build", lambda self: tracker)
    serve(Contestant("steps"))
    return stage, tracker


def test_conversation(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = dataset["a"].frames
    script = [
        request("initialize", frames[0], (20, 30, 30, 24)),
        request("frame", frames[1]),
        request("initialize", frames[2], (5.5, 6, 7, 8)),
        request("frame", frames[3]),
        request("quit"),
    ]
    stage, tracker = play(monkeypatch, script)
    assert tracker.starts == [[20, 30, 50, 54], [5.5, 6, 12.5, 14]]
    assert [objects[0][0] for objects in stage.said[:-1:2]] == [
        s.objects[0][0] for s in script[::2][:2]
    ]
    assert stage.said[1] == [((22, 31, 30, 24), {"confidence": 0.5})]
    assert stage.said[3] == [((7.5, 7, 7, 8), {"confidence": 0.5})]
    assert stage.said[4:] == [("quit", None)]


def test_trouble_is_told_to_both(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = request("initialize", dataset["a"].frames[0], (20, 30, 30, 24))
    with pytest.raises(InputError, match=r"x\.jpg is missing or damaged"):
        play(monkeypatch, [first, request("frame", tmp_path / "x.jpg")])
    stage = sys.modules["trax"]
    assert stage.said[-1][0] == "quit" and "x.jpg is missing" in stage.said[-1][1]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="The connection to the VOT toolkit broke: gone"):
        play(monkeypatch, [first, Stage.TraxException("gone")])


def test_what_stands_in_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trax", None)  # as if not installed
    assert main(["vot"]) == 2
    assert "Error: The VOT toolkit speaks" in (told := capsys.readouterr().err)
    assert "`pip install vot-trax`" in told and len(told.splitlines()) == 1
    monkeypatch.setitem(sys.modules, "trax", Stage([]))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert main(["vot"]) == 2 and "started by the VOT toolkit" in capsys.readouterr().err


@pytest.fixture
def client() -> Iterator[Any]:
    """The toolkit's end of the real protocol, with our command at the other."""
    trax = pytest.importorskip("trax", reason="needs PyPI vot-trax")
    from trax.client import Client

    served = subprocess.Popen(
        [sys.executable, "-m", "trackers", "vot", "--tracker", "opencv:KCF"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert served.stdin is not None and served.stdout is not None
    pipes = (served.stdin.fileno(), served.stdout.fileno())
    found = Client(pipes, log=lambda fragment: None)  # version 4.0.2 fails without a log
    yield SimpleNamespace(trax=trax, client=found, process=served)
    found.quit()
    assert served.wait(120) == 0


@pytest.mark.parametrize("kind", ["rectangle", "mask"])
def test_real_protocol(client: Any, kind: str, dataset: Dataset) -> None:
    trax, sequence = client.trax, dataset["a"]
    images = [{"color": trax.FileImage.create(str(path))} for path in sequence.frames]
    if kind == "rectangle":
        region = trax.Rectangle.create(20, 30, 30, 24)
    else:
        mask = np.zeros((24, 30), np.uint8)
        mask[3] = mask[:, 7] = 1  # a cross that touches all four sides
        region = trax.Mask.create(mask, x=20, y=30)
    ((state, _),), _ = client.client.initialize(images[0], [(region, {})], {})
    assert state.bounds() == (20, 30, 30, 24)
    for i in range(1, 6):
        ((state, _),), _ = client.client.frame(images[i], {}, [])
    np.testing.assert_allclose(state.bounds(), sequence.boxes_xywh[5], atol=3)
