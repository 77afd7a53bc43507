"""What the server keeps for each person, with models that follow by colour."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from checkpoints import CheckpointError
from demo import editing, looking, pipeline, sessions
from demo import run as runs
from demo import workspace as spaces
from demo.exports import soften
from demo.failures import Cancelled
from demo.jobs import Job, Jobs, Progress, State
from demo.pictures import mask_url
from demo.project import ObjectPrompt, Settings, Task
from demo.rates import Estimate, Rates
from demo.sessions import Session
from demo.wording import TITLES, describe_estimate, describe_run
from demo.workspace import Options, Workspace, private_folder
from inpainting.compositing import hole_of
from media import InputError
from media.masks import MaskFolder, load_mask
from segmenters import Candidate, Embedding, Prompt
from segmenters.cleanup import mask_box
from segmenters.everything import FoundObject
from tests.demo.square import (
    COUNT,
    HEIGHT,
    WIDTH,
    ColourSegmenter,
    ColourTracker,
    run_here,
    square_box,
)
from trackers import Track

pytestmark = pytest.mark.usefixtures("colour_models")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    options = Options(tmp_path / "work", settings=Settings(device="cpu"))
    space = Workspace(options, Jobs(lambda: run_here))
    yield space
    space.close()


@pytest.fixture
def session(workspace: Workspace, clip: Path) -> Session:
    return workspace.open(clip, "my clip.mp4")


def picture(url: str) -> Image.Image:
    assert url.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def active(session: Session) -> dict[str, Any]:
    """The object that clicks are about, as the page shows it."""
    view = session.view()
    return next(thing for thing in view["things"] if thing["id"] == view["active"])


def finished(job: Job) -> Job:
    limit = time.monotonic() + 180
    while job.active:
        assert time.monotonic() < limit
        time.sleep(0.01)
    return job


def middle(frame: int) -> tuple[float, float]:
    x0, y0, x1, y1 = square_box(frame)
    return (x0 + x1) / 2, (y0 + y1) / 2


def test_the_folder_is_named_by_the_id_and_not_by_the_user(
    workspace: Workspace, session: Session, clip: Path
) -> None:
    assert session.folder.name == session.id and len(session.id) == 32
    assert {p.name for p in session.folder.iterdir()} == {"source.mp4", "session.json"}
    assert session.source.read_bytes() == clip.read_bytes()
    assert session.folder.stat().st_mode & 0o077 == 0
    assert workspace.find(session.id) is session
    assert workspace.find("") is None and workspace.find("0" * 32) is None


def test_a_click_finds_the_object_and_its_box(session: Session) -> None:
    session.seek(5)
    shown = session.view()
    assert (shown["index"], shown["width"], shown["height"]) == (5, WIDTH, HEIGHT)
    assert shown["things"] == [] and not shown["undo"]
    session.point(5, *middle(5), 1)
    shown = active(session)
    assert shown["points"] == [[*middle(5), 1]] and shown["keys"] == [5] and shown["key"]
    assert np.allclose(shown["box"], square_box(5), atol=2)
    layer = np.asarray(picture(shown["mask"]).convert("RGBA"))
    x, y = map(int, middle(5))
    assert layer.shape[:2] == (HEIGHT, WIDTH)
    assert 0 < layer[y, x, 3] < 255 and layer[5, 5, 3] == 0


def test_a_frame_is_encoded_once_however_often_it_is_clicked(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = seen_by(monkeypatch)
    session.prepare()
    session.point(0, *middle(0), 1)
    session.view()
    session.point(0, 5, 5, 0)
    session.view()
    session.view()
    assert encoded == [(HEIGHT, WIDTH)]
    session.seek(3)
    session.view()
    assert len(encoded) == 1, "scrubbing must not wait for the segmenter"
    session.prepare()
    assert encoded == [(HEIGHT, WIDTH)] * 2


def seen_by(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes of the pictures that the segmenter looks at from now on."""
    sizes: list[tuple[int, int]] = []
    encode = ColourSegmenter.encode

    def watched(self: ColourSegmenter, frame: np.ndarray) -> Embedding:
        sizes.append(frame.shape[:2])
        return encode(self, frame)

    monkeypatch.setattr(ColourSegmenter, "encode", watched)
    return sizes


def test_who_comes_back_to_a_frame_does_not_wait_for_it(
    workspace: Workspace, session: Session, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = seen_by(monkeypatch)
    for index in (0, 5, 0, 5):
        session.seek(index)
        session.prepare()
        assert session.view()["looking"] == ""
    assert len(encoded) == 2
    workspace.close()
    later = Workspace(workspace.options, Jobs(lambda: run_here))  # on disk, for the next server
    again = later.find(session.id)
    assert again is not None
    again.seek(0)
    again.prepare()
    assert len(encoded) == 2
    (kept, _) = (later.options.root / "embeddings").iterdir()
    os.utime(kept, (0, 0))
    later.sweep()
    assert len(list((later.options.root / "embeddings").iterdir())) == 1, "no longer than projects"
    later.close()


class Coarse(ColourSegmenter):
    """Sees no detail: the finer, the smaller the picture is."""

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        side = max(embedding.size) // 20
        answers = super().predict(embedding, prompts)
        grid = np.ones((side, side), np.uint8)
        return [
            [Candidate(cv2.dilate(c.mask.astype(np.uint8), grid) > 0, c.score, c.logits) for c in a]
            for a in answers
        ]


def test_the_mask_of_a_small_object_is_first_quick_then_exact_and_the_runs_own(
    session: Session, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "build_segmenter", lambda *a, **k: Coarse())
    session.prepare()
    encoded = seen_by(monkeypatch)
    session.point(0, *middle(0), 1)
    quick = session.mask_at(session.document.things[0], 0)
    assert session.view()["looking"] == "closer" and not encoded
    session.look_closer()
    exact = session.mask_at(session.document.things[0], 0)
    assert session.view()["looking"] == "" and len(encoded) == 1 and encoded[0] != (HEIGHT, WIDTH)
    assert quick is not None and exact is not None and exact.sum() < quick.sum()
    box = active(session)["box"]
    assert box == mask_box(exact).tolist()  # type: ignore[union-attr]
    session.decide(1, "segment")
    session.limit(0, 3)
    assert finished(session.start(workspace.jobs)).state == "done"
    tracks = session.tracks()
    assert tracks is not None and tracks.at(0)[1].box == pytest.approx(box)
    assert np.array_equal(load_mask(session.folder / "results/masks/00000.png"), exact)
    encoded.clear()
    session.choose(0, 0)  # and so is one that is chosen
    assert np.array_equal(session.mask_at(session.document.things[0], 0), exact) and not encoded


def test_settings_are_kept_and_say_what_a_click_shows(
    session: Session, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, **options: object) -> ColourSegmenter:
        if name == "sam_vit_h":
            raise CheckpointError("sam_vit_h is missing")
        return Coarse() if name == "sam_vit_b" else ColourSegmenter()

    monkeypatch.setattr(pipeline, "build_segmenter", build)
    session.adjust(segmenter="mobile_sam", steady=0.2, exports=["webm"], resolution=480)
    session.point(0, *middle(0), 1)
    before = active(session)["box"]
    session.adjust(segmenter="sam_vit_b")
    assert active(session)["box"] != before and session.settings.steady == 0.2
    wrong = ({"segmenter": "sam_vit_h"}, {"segmenter": "who"}, {"steady": 2}, {"do": "track"},
             {"exports": ["gold"]}, {"source": "x"}, {"resolution": 3},
             {"device": "abacus"})  # fmt: skip
    for changes in wrong:
        with pytest.raises((InputError, CheckpointError)):
            session.adjust(**changes)
    record = json.loads((session.folder / "session.json").read_text())
    assert record["settings"]["exports"] == ["webm"] and record["settings"]["resolution"] == 480
    assert record["settings"]["segmenter"] == "sam_vit_b"
    job = finished(session.start(workspace.jobs))  # follows only: there is nothing to cut out
    assert job.state == "done" and job.exports == () and job.result is not None
    assert job.result.notes == [
        "Not written, because nothing is cut out: cut-out with alpha (VP9), for web pages."
    ]
    workspace.close()
    later = Workspace(workspace.options, Jobs(lambda: run_here))
    again = later.find(session.id)
    assert again is not None and again.settings == session.settings
    later.close()


def test_undo_and_redo_go_through_every_step(session: Session) -> None:
    session.point(0, *middle(0), 1)
    session.point(0, 5, 5, 0)
    session.point(7, *middle(7), 1)  # a correction
    session.rename(1, "square")
    assert active(session)["keys"] == [0, 7] and session.view()["index"] == 7
    session.undo()
    assert active(session)["name"] == "Object 1"
    session.undo()
    assert session.view()["index"] == 7 and active(session)["keys"] == [0]
    session.undo()
    shown = active(session)
    assert session.view()["index"] == 0 and [p[2] for p in shown["points"]] == [1]
    session.undo()
    session.undo()  # there is nothing more
    assert session.view()["things"] == [] and not session.view()["undo"]
    for _ in range(4):
        session.redo()
    assert active(session)["name"] == "square" and active(session)["keys"] == [0, 7]
    assert not session.view()["redo"]
    session.clear()
    assert active(session)["keys"] == [] and session.view()["redo"] is False


def test_the_marks_are_shown_on_their_own_frame_only(session: Session) -> None:
    session.point(4, *middle(4), 1)
    session.seek(9)
    shown = active(session)
    assert shown["points"] == [] and shown["mask"] == "" and not shown["key"]
    assert "frame 4" in session.view()["note"]
    session.seek(10_000)
    assert session.view()["index"] == COUNT - 1


def test_a_box_is_kept_as_it_was_drawn_from_any_corner(session: Session) -> None:
    session.draw_box(0, 60, 70, 20, 10)
    assert active(session)["box"] == [20, 10, 60, 70]


def test_objects_are_added_named_coloured_hidden_and_deleted(session: Session) -> None:
    session.point(0, *middle(0), 1)
    session.add()
    with pytest.raises(InputError, match="Click on this object first"):
        session.add()
    session.draw_box(0, 100, 10, 140, 40)
    names = [(t["id"], t["name"]) for t in session.view()["things"]]
    assert names == [(1, "Object 1"), (2, "Object 2")] and session.view()["active"] == 2
    first, second = session.view()["things"]
    assert first["color"] != second["color"] and first["mask"] and second["box"]
    session.rename(1, "  the   square ")
    session.recolor(1, "#123456")
    session.decide(1, "remove")
    session.show(1, False)
    first = session.view()["things"][0]
    assert (first["name"], first["color"], first["do"]) == ("the square", "#123456", "remove")
    assert not first["shown"] and first["mask"] == ""
    session.select(2)
    session.delete(2)
    assert [t["id"] for t in session.view()["things"]] == [1] and session.view()["active"] == 1
    for wrong in (
        lambda: session.rename(1, "  "), lambda: session.recolor(1, "blue-ish"),
        lambda: session.decide(1, "fly"), lambda: session.select(9),
    ):  # fmt: skip
        with pytest.raises(InputError):
            wrong()


def test_a_mask_is_painted_and_erased(session: Session) -> None:
    session.point(2, *middle(2), 1)
    before = session.mask_at(session.document.things[0], 2)
    assert before is not None
    session.paint(2, [{"points": [[100, 80], [120, 80]], "radius": 4, "add": True}])
    more = session.mask_at(session.document.things[0], 2)
    assert more is not None and more[80, 110] and (more & before).sum() == before.sum()
    session.paint(2, [{"points": [[110, 80]], "radius": 30, "add": False}])
    less = session.mask_at(session.document.things[0], 2)
    assert less is not None and not less[80, 110] and (less == before).mean() > 0.99
    (prompt,) = session.document.prompts(session.folder / "marks")
    assert prompt.mask is not None and prompt.mask.is_file() and not prompt.points
    with pytest.raises(InputError, match="Nothing is left"):
        session.paint(2, [{"points": [[80, 48]], "radius": 300, "add": False}])
    session.undo()
    session.undo()
    assert np.array_equal(session.mask_at(session.document.things[0], 2), before)


def test_what_a_run_has_lost_is_found_again_on_a_frame(
    session: Session, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = ColourTracker.track

    def losing(self: ColourTracker, frame: np.ndarray) -> Track:
        seen = track(self, frame)
        return replace(seen, lost=True, score=0.1) if seen.box[0] >= square_box(9)[0] else seen

    with pytest.raises(InputError, match="Click Object 1 on another frame first"):
        session.find_again(3)
    monkeypatch.setattr(ColourTracker, "track", losing)
    session.point(2, *middle(2), 1)
    assert not session.view()["again"]
    assert finished(session.start(workspace.jobs)).state == "done"
    session.seek(12)
    assert session.view()["again"] and "look for it or click it" in session.view()["note"]
    before = session.document
    with pytest.raises(InputError, match="not found anywhere on frame 12"):
        session.find_again(12)
    assert session.document is before and session.view()["searches"] == 1
    shown: list[np.ndarray] = []
    monkeypatch.setattr(sessions, "NEAR", 3)

    def finding(self: ColourTracker, frame: np.ndarray) -> Track:
        if leave:
            session.seek(4)
        return track(self, frame)

    monkeypatch.setattr(ColourTracker, "track", finding)
    monkeypatch.setattr(ColourTracker, "correct", lambda self, frame, box: shown.append(box))
    leave = True
    session.find_again(12)
    assert session.document is before, "who has left the frame is not called back"
    leave = False
    session.find_again(12)
    assert np.allclose(shown[-1], square_box(8), atol=2), "as it was when it was last seen"
    view = session.view()
    assert "found here, 90 % sure" in view["note"] and not view["again"]
    assert np.allclose(active(session)["box"], square_box(12), atol=2) and active(session)["mask"]
    assert active(session)["keys"] == [2, 12]
    session.undo()
    assert session.document == before and session.view()["again"]


def test_one_of_several_masks_is_chosen(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def three(self: object, embedding: Embedding, prompts: Sequence[Prompt]) -> Any:
        logits = np.zeros((256, 256), np.float32)
        masks = []
        for side in (40, 10, 80):
            mask = np.zeros(embedding.size, bool)
            mask[:side, :side] = True
            masks.append(Candidate(mask=mask, score=1 - side / 100, logits=logits))
        return [sorted(masks, key=lambda c: -c.score) for _ in prompts]

    monkeypatch.setattr(ColourSegmenter, "predict", three)
    session.point(0, 5, 5, 1)
    assert session.view()["candidates"]["count"] == 3
    session.choose(0, 2)
    assert session.view()["candidates"]["chosen"] == 2
    assert active(session)["box"] == [0, 0, 80, 80] and active(session)["points"] == [[5, 5, 1]]
    with pytest.raises(InputError, match="3 masks"):
        session.choose(0, 3)


def test_everything_is_found_and_one_thing_picked(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = np.zeros((2, HEIGHT, WIDTH), bool)
    large[10:60, 10:90] = True
    small[20:30, 20:40] = True
    asked: list[float] = []

    def find(segmenter: object, embedding: object, **options: Any) -> list[FoundObject]:
        asked.append(options["seconds"])
        options["progress"](3, 4)
        assert session.looker.surveyed == 0.75
        session.seek(leave_for)
        assert options["cancelled"]() == bool(leave_for)
        box = np.zeros(4, np.float32)
        return [FoundObject(mask, box, 0.9, 0.9) for mask in (large, small)]

    monkeypatch.setattr(looking, "find_objects", find)
    with pytest.raises(InputError, match="look again"):
        session.pick(0, 0)
    leave_for = 2
    session.survey(0)
    assert session.view()["survey"] == "", "who has left the frame does not pick from it"
    leave_for = 0
    session.survey(0)
    session.survey(0)
    assert len(asked) == 2, "what is known is not searched again"
    labels = np.asarray(picture(session.view()["survey"]))
    assert labels[25, 30] == 2 and labels[50, 80] == 1 and labels[90, 150] == 0
    session.pick(0, 1)
    assert active(session)["box"] == [20, 20, 40, 30]
    with pytest.raises(InputError, match="2 objects"):
        session.pick(0, 2)
    session.seek(3)
    assert session.view()["survey"] == ""


def test_a_part_of_the_video(session: Session) -> None:
    session.limit(4, 10)
    assert (session.view()["start"], session.view()["stop"]) == (4, 10)
    session.limit(0, None)
    assert (session.view()["start"], session.view()["stop"]) == (0, COUNT)
    with pytest.raises(InputError, match="ends before it begins"):
        session.limit(9, 9)
    for step, frame, part in (
        (session.begin, 5, (5, COUNT)), (session.end, 9, (5, 10)), (session.begin, 12, (12, COUNT)),
        (session.end, 3, (0, 4)), (session.begin, 0, (0, 4)), (session.end, COUNT - 1, (0, COUNT)),
    ):  # fmt: skip
        step(frame)
        assert (session.view()["start"], session.view()["stop"]) == part
    session.settle()
    assert not session.view()["undo"], "a sample begins with its part"
    session.limit(2, None)
    session.undo()
    assert session.document.start == 0


def test_what_was_pointed_at_outside_of_the_part_is_followed_into_it(
    session: Session, workspace: Workspace
) -> None:
    session.point(12, *middle(12), 1)
    session.limit(4, 10)
    assert workspace.estimate(session) is not None
    job = finished(session.start(workspace.jobs))
    assert job.state == "done", job.error
    session.seek(4)
    assert active(session)["box"] == pytest.approx(square_box(4), abs=2)
    assert sorted(session.tracks().points) == [*range(4, 10)]


def test_a_click_that_fails_leaves_nothing_behind(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.point(0, *middle(0), 1)
    before = session.document

    def fail(self: object, frame: object) -> None:
        raise CheckpointError("mobile_sam is missing")

    monkeypatch.setattr(ColourSegmenter, "encode", fail)
    with pytest.raises(CheckpointError):
        session.point(3, *middle(3), 1)
    assert session.document == before and session.view()["index"] == 0


def test_mistakes_are_sentences(session: Session, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Click on the object first"):
        session.point(0, 5, 5, 0)
    with pytest.raises(InputError, match="outside the frame"):
        session.point(0, WIDTH, 5, 1)
    with pytest.raises(InputError, match="Click the object"):
        session.start(workspace.jobs)
    (tmp_path / "x.mp4").write_bytes(b"no video at all")
    before = set((tmp_path / "work").iterdir())
    with pytest.raises(InputError, match=r"^holiday & sun\.mp4") as caught:
        workspace.open(tmp_path / "x.mp4", "holiday & sun.mp4")
    assert "source" not in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert set((tmp_path / "work").iterdir()) == before, "a refused upload leaves nothing behind"


def test_a_run_uses_what_was_pointed_at_and_only_one_is_under_way(
    session: Session, workspace: Workspace
) -> None:
    session.point(2, *middle(2), 1)
    session.decide(1, "segment")
    session.adjust(exports=["coco"])
    go = threading.Event()

    def run(*what: Any, **how: Any) -> runs.Result:
        go.wait(300)
        return run_here(*what, **how)

    workspace.jobs = Jobs(lambda: run)
    job = session.start(workspace.jobs)
    with pytest.raises(InputError, match="being worked on"):
        session.start(workspace.jobs)
    go.set()
    finished(job)
    assert job.state == "done", job.error
    results = session.folder / "results"
    assert (results / "segmented.mp4").exists() and (results / "masks_coco.json").exists()
    assert {p.name for p in job.files} == {
        "tracked.mp4", "segmented.mp4", "tracks.json", "tracks.csv", "masks_and_tracks.zip",
    }  # fmt: skip
    with zipfile.ZipFile(job.files[-1]) as archive:
        told = archive.read("run.json").decode()
    assert '"path": "source.mp4"' in told and session.id not in told, "the id is a secret"
    assert len(list((results / "masks").glob("*.png"))) == COUNT
    session.seek(9)  # a frame that nobody pointed at
    shown = active(session)
    assert shown["mask"] and np.allclose(shown["box"], square_box(9), atol=2)
    assert "corrects it from this frame on" in session.view()["note"]
    curve = session.curves()["things"][0]
    assert len(curve["scores"]) == COUNT and curve["scores"][2] == 1.0 and not any(curve["lost"])
    assert not session.changed
    limit = time.monotonic() + 60
    while (estimate := workspace.estimate(session)) is None or estimate.seconds is None:
        assert time.monotonic() < limit  # it is learnt just after the end
        time.sleep(0.01)
    assert estimate.frames == COUNT and 0 < estimate.seconds < 60
    session.decide(1, "remove")
    more = workspace.estimate(session)
    assert more is not None and more.memory > estimate.memory
    session.undo()
    session.point(12, *middle(12), 1)
    assert session.changed


def test_the_one_mask_of_a_run_is_shown_on_its_own_object(
    session: Session, workspace: Workspace
) -> None:
    session.point(2, *middle(2), 1)
    session.add()
    session.draw_box(2, *square_box(2))
    session.decide(2, "segment")
    assert finished(session.start(workspace.jobs)).state == "done"
    session.seek(9)
    followed, cut = session.view()["things"]
    assert followed["box"] and cut["box"] and cut["mask"] and followed["mask"] == ""


def test_results_stay_until_others_are_done(
    session: Session, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.point(2, *middle(2), 1)
    session.decide(1, "segment")
    session.limit(0, 12)
    assert session.shown is None
    first = finished(session.start(workspace.jobs))
    assert "The results are below" in describe_run(workspace, session)
    tracks, curves, files = session.tracks(), session.curves(), first.files

    def fail(*args: object, **options: object) -> None:
        raise InputError("It cannot be painted.")

    monkeypatch.setattr(pipeline, "build_inpainter", fail)
    session.draw_box(2, 100, 10, 140, 40)
    session.decide(1, "remove")
    session.limit(1, 12)
    text = describe_run(workspace, session)
    assert "Done" in text and "Next run: 11 frames" in text and "before your last changes" in text
    second = finished(session.start(workspace.jobs))
    text = describe_run(workspace, session)
    assert "It cannot be painted" in text and "Next run" not in text and "an earlier run" in text
    new, shown = session.folder / "results" / "tracks.json", session.shelf / "tracks.json"
    assert second.state == "failed" and new.read_bytes() != shown.read_bytes()
    assert session.shown is first and all(file.is_file() for file in files)
    assert (session.tracks(), session.curves(), session.part) == (tracks, curves, (0.0, False))
    session.seek(0)  # not worked on by the second run
    assert active(session)["mask"] and len(list((session.shelf / "masks").iterdir())) == 12
    workspace.close()
    later = Workspace(workspace.options, Jobs(lambda: run_here))
    again = later.find(session.id)
    assert again is not None and again.shown is not None and again.shown.files == files
    assert again.job is not None and again.job.state == "failed"
    assert "an earlier run" in describe_run(later, again)
    later.close()


def test_a_cancelled_run_is_not_taken_up_by_the_next_server(
    session: Session, workspace: Workspace
) -> None:
    session.point(2, *middle(2), 1)
    held = threading.Event()
    workspace.jobs = Jobs(lambda: lambda *a, **k: held.wait(300))  # type: ignore[arg-type]
    other = workspace.open(session.source, "other.mp4")
    other.point(2, *middle(2), 1)
    other.start(workspace.jobs)
    job = session.start(workspace.jobs)
    workspace.jobs.cancel(job)
    record = json.loads((session.folder / "session.json").read_text())
    assert record["job"]["state"] == "cancelled"
    held.set()


@pytest.mark.parametrize(
    ("state", "stage", "paused", "says"),
    [
        ("running", "", False, "Loading the models."),
        ("running", "", True, "Loading the models, paused."),
        ("waiting", "", True, "It is paused; others may run meanwhile."),
        ("running", "cut out", False, "aria-label='Cutting it out'"),
        ("running", "export matte", True, "aria-label='Writing the masks as a black-and-white"),
    ],
)
def test_what_is_said_of_a_run_under_way(
    state: State, stage: str, paused: bool, says: str, session: Session, workspace: Workspace
) -> None:
    session.job = Job("cpu", "segment", ("matte",), state=state, progress=Progress(stage, 1, 9))
    workspace.jobs._jobs[session.job.id] = session.job
    if paused:
        session.job.pause.set()
    text = describe_run(workspace, session)
    assert says in text and ("paused" in text) == paused
    del workspace.jobs._jobs[session.job.id]


def test_what_a_run_will_take_is_said_before_there_has_been_one() -> None:
    rates, chosen, size = Rates(), Settings(inpainter="propagation", device="cpu"), (1000, 1000)
    assert rates.estimate("segment", 100, size, chosen).seconds is None
    rates.learn_look(0.5)
    rates.learn_look(0.001)  # remembered, not looked at
    first = rates.estimate("segment", 100, size, chosen)
    assert first.seconds is not None and 30 < first.seconds < 300
    assert 2**29 < first.memory < rates.estimate("remove", 100, size, chosen).memory
    done = runs.Result(Path(), [], [], dict.fromkeys(runs.STAGES, 1.0), frames=100, pixels=10**6)
    rates.learn(done, chosen)
    assert rates.estimate("remove", 100, size, chosen).seconds == pytest.approx(5.0)
    assert rates.estimate("remove", 100, (2000, 2000), chosen).seconds == pytest.approx(11.0)
    other = replace(chosen, inpainter="e2fgvi_hq")  # nobody has seen it here
    assert rates.estimate("remove", 100, size, other).seconds != pytest.approx(5.0)
    text = describe_estimate(Estimate(100, 4.0, memory=3 * 2**30, free=2 * 2**30))
    assert "100 frames" in text and "3.0 GB" in text and "Only 2.0 GB are free" in text
    assert "Only" not in describe_estimate(Estimate(100, None, memory=2**30, free=2 * 2**30))


def test_the_time_left_counts_the_steps_to_come(workspace: Workspace, session: Session) -> None:
    made = runs.Result(Path(), [], [], {"draw masks": 50.0}, frames=100, pixels=WIDTH * HEIGHT)
    workspace._rates.learn(made, session.settings)
    assert workspace.seconds_left(session) is None
    progress = Progress("cut out", 11, 100, seconds=10.0)
    session.job = Job("cpu", "segment", state="running", progress=progress)
    assert workspace.seconds_left(session) == pytest.approx(89 + 50)


def test_boxes_from_a_file_take_the_place_of_clicks(
    session: Session, workspace: Workspace, tmp_path: Path
) -> None:
    session.point(0, *middle(0), 1)
    rows = [f"{i + 1},4,30,20,8,9,0.9,-1,-1,-1" for i in range(3, COUNT)]
    (tmp_path / "mot.txt").write_text("\n".join(rows))
    session.take_over(tmp_path / "mot.txt", "my boxes.txt")
    (thing,) = session.view()["things"]
    assert (thing["id"], thing["box"], session.view()["index"]) == (4, [30, 20, 38, 29], 3)
    with pytest.raises(InputError, match="come from a file"):
        session.point(5, *middle(5), 1)
    session.decide(4, "segment")
    assert session.view()["note"].endswith("Press Run.")
    job = finished(session.start(workspace.jobs))
    assert job.state == "done", job.error
    assert session.view()["note"].endswith("Undo leads back to pointing.")
    tracks = session.tracks()
    assert tracks is not None and tracks.at(9)[4].box == (30, 20, 38, 29) and not tracks.at(2)
    for _ in range(2):
        session.undo()
    assert [t["id"] for t in session.view()["things"]] == [1]
    # Masks in a zip, as we pack them ourselves: each object keeps its name and has its own fate.
    for number, index in ((4, 4), (7, 5)):
        folder = MaskFolder(tmp_path / "made" / "masks" / f"object_{number}")
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[10 * index : 10 * index + 9, 20:40] = True
        for frame in range(COUNT):
            folder.write(frame, mask)
    names = [{"id": 4, "name": "cat"}, {"id": 7, "name": "dog  "}]
    (tmp_path / "made" / "tracks.json").write_text(json.dumps({"objects": names, "frames": []}))
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "made")
    session.take_over(Path(packed), "my masks.zip")
    assert [t["name"] for t in session.view()["things"]] == ["cat", "dog"]
    session.decide(4, "segment")
    session.rename(4, "lion")
    session.delete(7)
    session.limit(0, 3)
    assert finished(session.start(workspace.jobs)).state == "done"
    written = json.loads((session.folder / "results/tracks.json").read_text())
    assert [(o["id"], o["name"]) for o in written["objects"]] == [(4, "lion")]
    assert [o["box"] for o in written["frames"][1]["objects"]] == [[20, 40, 40, 49]]
    assert load_mask(session.folder / "results/masks/00001.png").sum() == 20 * 9
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"^my file\.csv is not a file of tracks"):
        session.take_over(tmp_path / "bad.csv", "my file.csv")


def test_a_server_that_is_started_again_goes_on(
    workspace: Workspace, session: Session, clip: Path
) -> None:
    """As after kill -9: nothing was closed, and another process holds no lock any more."""
    session.point(2, *middle(2), 1)
    session.rename(1, "square")
    session.limit(0, 20)
    job = finished(session.start(workspace.jobs))
    files = [f.read_bytes() for f in job.files if f.suffix == ".mp4"]
    record = session.folder / "session.json"
    interrupted = record.read_text().replace('"state": "done"', '"state": "running"')
    shutil.rmtree(session.folder / "results")
    shutil.rmtree(session.folder.parent / job.id)
    workspace.close()
    record.write_text(interrupted)
    after = Workspace(workspace.options, Jobs(lambda: run_here))
    again = after.find(session.id)
    assert again is not None and again is not session and again.name == "my clip.mp4"
    assert again.document == session.document and again.job is not None
    assert finished(again.job).state == "done" and again.job.id == job.id
    assert [f.read_bytes() for f in again.job.files if f.suffix == ".mp4"] == files
    after.close()
    last = Workspace(workspace.options, Jobs(lambda: run_here))
    found = last.find(session.id)
    assert found is not None and found.job is not None and found.job.state == "done"
    assert [f.name for f in found.job.files] == [f.name for f in again.job.files]
    last.close()


def test_what_can_be_undone_and_redone_outlives_the_server(
    workspace: Workspace, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def next_server() -> Session:
        nonlocal workspace
        workspace.close()
        workspace = Workspace(workspace.options, Jobs(lambda: run_here))
        found = workspace.find(session.id)
        assert found is not None
        return found

    session.point(0, *middle(0), 1)
    session.paint(0, [{"points": [[100, 80], [120, 80]], "radius": 4, "add": True}])
    mask = session.mask_at(session.document.things[0], 0)
    for name in ("a", "b"):
        session.rename(1, name)
    session.undo()
    again = next_server()
    assert again.document == session.document and again.view()["undo"] and again.view()["redo"]
    again.redo()
    assert active(again)["name"] == "b"
    for _ in range(3):
        again.undo()
    assert [p[2] for p in active(again)["points"]] == [1]
    again.redo()
    assert np.array_equal(again.mask_at(again.document.things[0], 0), mask)
    monkeypatch.setattr(editing, "KEPT_STEPS", 2)
    again.undo()
    again = next_server()
    for _ in range(5):
        again.redo()
    assert active(again)["name"] == "a", "a later server knows the steps next to where one is"
    monkeypatch.setattr(editing, "KEPT_MARKS", 1)
    again.save()
    again = next_server()
    again.undo()
    again.undo()
    assert not again.view()["undo"] and len(active(again)["keys"]) == 1
    workspace.close()


def test_a_paused_run_stays_paused_over_a_restart(workspace: Workspace, session: Session) -> None:
    session.point(2, *middle(2), 1)
    begun, held = threading.Event(), threading.Event()

    def hold(*args: object, **options: Any) -> runs.Result:
        begun.set()
        assert held.wait(300)
        raise Cancelled("Stopped by the user.")

    workspace.jobs = Jobs(lambda: hold)
    job = session.start(workspace.jobs)
    assert begun.wait(120)
    session.pause(workspace.jobs, True)
    kept = (session.folder / "session.json").read_text()  # as after kill -9
    held.set()
    workspace.close()
    (session.folder / "session.json").write_text(kept)
    later = Workspace(workspace.options, Jobs(lambda: run_here))
    again = later.find(session.id)
    assert again is not None and again.job is not None and again.job.id == job.id
    assert again.job.active and again.job.pause.is_set()
    assert "It is paused" in describe_run(later, again)
    time.sleep(0.3)
    assert again.job.state == "waiting", "nobody has told it to go on"
    again.pause(later.jobs, False)
    assert finished(again.job).state == "done"
    later.close()


@pytest.mark.parametrize("task", ["track", "segment", "remove"])
def test_the_page_has_words_for_every_stage(task: Task, clip: Path, tmp_path: Path) -> None:
    seen: dict[str, None] = {}
    runs.run(
        clip, tmp_path, [ObjectPrompt(id=1, name="it", color="#ff0000", box=square_box(0))],
        Settings(do=task, device="cpu"), report=lambda stage, *_: seen.setdefault(stage),
    )  # fmt: skip
    assert (
        list(seen)
        == list(TITLES)[: runs.STAGES_OF[task]]
        == list(runs.STAGES[: runs.STAGES_OF[task]])
    )


def test_two_sessions_share_the_models_and_nothing_else(
    workspace: Workspace, session: Session, clip: Path
) -> None:
    other = workspace.open(clip, "another.mp4")
    session.point(0, *middle(0), 1)
    session.view()
    assert other.view()["things"] == []
    assert other.folder != session.folder and other.frame_index == 0


def test_a_rested_session_goes_on(session: Session) -> None:
    session.point(3, *middle(3), 1)
    before = session.view()
    session.rest()
    after = session.view()
    assert {**after, "stamp": 0, "looking": 0} == {**before, "stamp": 0, "looking": 0}


def test_of_many_sessions_those_used_last_are_awake(
    workspace: Workspace, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested: list[str] = []
    monkeypatch.setattr(Session, "rest", lambda self: rested.append(self.name))
    monkeypatch.setattr(spaces, "MAX_AWAKE", 2)
    first = workspace.open(clip, "first.mp4")
    workspace.open(clip, "second.mp4")
    workspace.find(first.id)
    workspace.open(clip, "third.mp4")
    assert rested == ["second.mp4"]


def test_old_projects_are_removed_and_used_ones_stay(tmp_path: Path, clip: Path) -> None:
    root = tmp_path / "work"
    options = Options(root, keep_hours=2.0, settings=Settings(device="cpu"))
    first = Workspace(options)
    old, new = first.open(clip, "a.mp4"), first.open(clip, "b.mp4")
    (root / "other").mkdir()
    (root / ("0" * 64)).mkdir()  # as Gradio names its uploads
    for folder in (old.folder, root / "other", root / ("0" * 64)):
        os.utime(folder, (time.time() - 3 * 3600,) * 2)
    second = Workspace(options)  # a server that is started later
    assert not old.folder.exists() and new.folder.exists()
    assert (root / "other").exists() and not (root / ("0" * 64)).exists()
    session = second.open(clip, "c.mp4")
    os.utime(session.folder, (time.time() - 3 * 3600,) * 2)
    assert second.find(session.id) is session  # looking at it makes it new
    second.sweep()
    assert session.folder.exists()
    os.utime(session.folder, (time.time() - 3 * 3600,) * 2)
    second.sweep()
    assert not session.folder.exists() and second.find(session.id) is None
    first.close()
    second.close()


def test_a_running_job_keeps_its_project(tmp_path: Path, clip: Path) -> None:
    go = threading.Event()

    def run(source: Path, folder: Path, *rest: object, **options: object) -> runs.Result:
        go.wait(300)
        folder.mkdir()
        (folder / "run.json").write_text("{}")
        return runs.Result(folder, [], [], {})

    space = Workspace(
        Options(tmp_path / "work", settings=Settings(device="cpu")), Jobs(lambda: run)
    )
    session = space.open(clip, "a.mp4")
    session.point(0, *middle(0), 1)
    session.start(space.jobs)
    os.utime(session.folder, (0, 0))
    space.sweep()
    assert session.folder.exists()
    space.jobs.pause(session.job, True)  # type: ignore[arg-type]
    os.utime(session.folder, (0, 0))
    space.sweep()
    assert not session.folder.exists() and session.job is not None and session.job.stop.is_set()
    assert space.find(session.id) is None
    go.set()
    space.close()


def test_the_root_must_be_private(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(InputError, match="only you can open"):
        private_folder(open_to_all)
    link = tmp_path / "link"
    link.symlink_to(private_folder(tmp_path / "private"))
    with pytest.raises(InputError, match="only you can open"):
        private_folder(link)


def test_numbers_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIXCUT_WORK", str(tmp_path))
    monkeypatch.setenv("MIXCUT_KEEP_HOURS", "1.5")
    assert Options.from_environment().keep_hours == 1.5
    assert Options.from_environment().root == tmp_path
    for wrong in ("soon", "0", "-1", "nan"):
        monkeypatch.setenv("MIXCUT_KEEP_HOURS", wrong)
        with pytest.raises(InputError, match="MIXCUT_KEEP_HOURS"):
            Options.from_environment()


def outlines(path: str, hole: np.ndarray) -> bool:
    """Whether a path of SVG goes round a hole, to half a pixel at its corners."""
    filled = np.zeros((HEIGHT, WIDTH), np.uint8)
    for part in path.strip("MZ").split("ZM"):
        turns = np.array([turn.split(",") for turn in part.split("L")], float)
        cv2.fillPoly(filled, [(turns - 0.5).round().astype(np.int32)], 1)
    return 0 < hole.sum() and ((filled > 0) ^ hole).sum() < 0.01 * hole.sum()


def test_what_will_be_painted_over_is_outlined_as_the_run_does_it(session: Session) -> None:
    session.point(0, *middle(0), 1)
    assert session.view()["hole"] == "", "nothing is painted away"
    session.decide(1, "remove")
    mask = session.mask_at(session.document.things[0], 0)
    assert mask is not None
    for dilate in (None, 9, 3):
        session.adjust(dilate=dilate)
        hole, pixels = hole_of(mask, dilate)
        assert pixels == dilate or dilate is None
        assert outlines(session.view()["hole"], hole)
    session.add()
    session.draw_box(0, 100, 10, 140, 40)  # painted as well: one hole of both
    both = mask | session.mask_at(session.document.things[1], 0)  # type: ignore[operator]
    assert outlines(session.view()["hole"], hole_of(both, 3)[0])
    session.show(2, False)
    assert outlines(session.view()["hole"], hole_of(mask, 3)[0])
    session.seek(5)
    assert session.view()["hole"] == ""


def test_the_soft_edge_of_a_cut_out_is_outlined(session: Session) -> None:
    session.point(0, *middle(0), 1)
    session.adjust(feather=3)
    assert active(session)["fade"] == "", "it is only followed"
    session.decide(1, "segment")
    outer, inner = active(session)["fade"].split("ZM")
    mask = session.mask_at(session.document.things[0], 0)
    assert mask is not None
    opacity = soften(mask, 3)
    assert outlines(outer, opacity > 12) and outlines(inner, opacity > 242)
    session.adjust(feather=0.8)
    assert active(session)["fade"] == "", "there is next to nothing between the lines"


@pytest.mark.parametrize("size", [(40, 60), (2160, 3840)])
def test_a_mask_layer_is_clear_outside_and_has_an_edge(size: tuple[int, int]) -> None:
    height, width = size
    mask = np.zeros(size, bool)
    mask[height // 4 : height // 2, : width // 2] = True  # touches the left border
    layer = np.asarray(picture(mask_url(mask, "#ff8800")).convert("RGBA"))
    scale = layer.shape[0] / height
    assert layer.shape[1] <= 1600 and abs(layer.shape[1] - width * scale) <= 1
    inside = layer[int(height * 0.375 * scale), int(width * 0.25 * scale)]
    assert tuple(inside[:3]) == (255, 136, 0) and 0 < inside[3] < 255
    assert layer[int(height * 0.375 * scale), 0, 3] == 255
    assert layer[-1, -1, 3] == 0
