"""What is exported can be read by others, and by us again."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pycocotools.coco import COCO

from demo import imports, zips
from demo.exports import GREEN, write_tracks_csv
from demo.imports import holds_masks, prompts_of, read_masks, read_tracks
from demo.jobs import publish
from demo.project import ObjectPrompt, Settings, TrackPoint, Tracks
from demo.run import Result, run
from media import InputError
from media.masks import save_mask
from media.video import open_video
from tests.demo.square import COUNT, HEIGHT, WIDTH, red, square_box

pytestmark = pytest.mark.usefixtures("colour_models")
SIZE = (HEIGHT, WIDTH)
PROMPT = ObjectPrompt(id=1, name="square", color="#ff8800", box=square_box(0))
LOST = 7


@pytest.fixture
def result(clip: Path, tmp_path: Path) -> Result:
    every = ("mot", "otb", "vot", "coco", "matte", "webm", "mov", "green")
    return run(clip, tmp_path / "out", [PROMPT], Settings(do="segment", exports=every))


def boxes_of(tracks: Tracks) -> dict[int, Any]:
    return {
        frame: None if points[1].box is None else tuple(np.round(points[1].box, 2).tolist())
        for frame, points in tracks.points.items()
    }


@pytest.mark.parametrize(
    "name", ["tracks.json", "tracks.csv", "tracks_mot.txt", "tracks_otb", "tracks_vot", "zip"]
)
def test_tracks_come_back(name: str, result: Result, tmp_path: Path) -> None:
    path = result.folder / name
    if name == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "otb"), "zip", result.folder, "tracks_otb"))
        assert not holds_masks(path)
    found = read_tracks(path, SIZE, COUNT)
    assert boxes_of(found) == {i: tuple(map(float, square_box(i))) for i in range(COUNT)}
    (prompt,) = prompts_of(found)
    assert (prompt.id, prompt.frame, prompt.box) == (1, 0, square_box(0))


@pytest.mark.parametrize("kind", ["json", "csv", "mot", "otb", "vot"])
def test_lost_frames_have_no_box(kind: str, clip: Path, tmp_path: Path) -> None:
    tracks = Tracks()
    for index in range(COUNT):
        box = None if index == LOST else tuple(map(float, square_box(index)))
        tracks.put(index, 1, TrackPoint(box, 0.5))  # type: ignore[arg-type]
    with open_video(clip) as reader:
        write_tracks_csv(tmp_path / "given.csv", tracks, reader)
    exports = () if kind in ("json", "csv") else (kind,)
    settings = Settings(tracks=tmp_path / "given.csv", exports=exports)
    folder = run(clip, tmp_path / "out", [], settings).folder
    names = {"json": "tracks.json", "csv": "tracks.csv", "mot": "tracks_mot.txt"}
    again = boxes_of(read_tracks(folder / names.get(kind, f"tracks_{kind}"), SIZE, COUNT))
    assert again.get(LOST) is None and sum(box is not None for box in again.values()) == COUNT - 1


def test_coco_file_is_one_for_pycocotools(result: Result, clip: Path) -> None:
    coco = COCO(str(result.folder / "masks_coco.json"))
    assert len(coco.imgs) == len(coco.anns) == COUNT
    assert (coco.annToMask(coco.anns[6]).astype(bool) == red_at(clip, 5)).all()
    x0, y0, x1, y1 = square_box(5)
    assert coco.anns[6]["bbox"] == [x0, y0, x1 - x0, y1 - y0]


@pytest.mark.parametrize("name", ["masks", "masks_coco.json", "plain zip", "our zip"])
def test_masks_come_back(name: str, result: Result, clip: Path, tmp_path: Path) -> None:
    path = result.folder / name
    if name == "plain zip":
        path = Path(shutil.make_archive(str(tmp_path / "plain"), "zip", result.folder / "masks"))
    elif name == "our zip":
        path = publish(result, tmp_path / "shelf")[-1]
    if path.is_file():
        assert holds_masks(path)
    masks = read_masks(path, SIZE, COUNT)
    assert list(masks) == [1] and (masks[1][9] == red_at(clip, 9)).all()
    again = run(clip, tmp_path / "again", [], Settings(do="remove", masks=path))
    assert boxes_of(read_tracks(again.folder / "tracks.csv", SIZE, COUNT))[9] == square_box(9)
    with open_video(again.folder / "removed.mp4") as video:
        assert not red(video[9]).any()


def red_at(clip: Path, index: int) -> np.ndarray:
    with open_video(clip) as video:
        return red(video[index])


@pytest.mark.parametrize("name", ["cutout.webm", "cutout.mov"])
def test_cut_out_shows_the_object_alone(name: str, result: Result) -> None:
    with av.open(str(result.folder / name)) as container:
        assert container.streams.audio
        stream = container.streams.video[0]
        if stream.codec_context.name == "vp9":  # FFmpeg's own decoder leaves the alpha out
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            frames = [f for packet in container.demux(stream) for f in decoder.decode(packet)]
        else:
            frames = list(container.decode(stream))
    assert len(frames) == COUNT
    rgba = frames[5].reformat(format="rgba").to_ndarray()
    x0, y0, x1, y1 = square_box(5)
    alpha = np.zeros(SIZE, bool)
    alpha[y0:y1, x0:x1] = True
    assert ((rgba[..., 3] > 127) == alpha).mean() > 0.99
    assert rgba[y0 + 8, x0 + 8, 3] > 250 and rgba[2, 2, 3] < 5


def test_green_screen(result: Result) -> None:
    with open_video(result.folder / "cutout_green.mp4") as video:
        assert len(video) == COUNT and video.info.has_audio
        assert np.abs(video[5][2, 2].astype(int) - GREEN).max() < 6
        assert red(video[5])[40, 40]


def test_what_is_painted_away_is_not_cut_out_beside_what_is(clip: Path, tmp_path: Path) -> None:
    boxes = {1: (10, 10, 40, 40), 2: (90, 50, 130, 80)}
    for number, (x0, y0, x1, y1) in boxes.items():
        folder = tmp_path / "masks" / f"object_{number}"
        folder.mkdir(parents=True)
        mask = np.zeros(SIZE, bool)
        mask[y0:y1, x0:x1] = True
        for index in range(3):
            save_mask(folder / f"{index:05d}.png", mask)
    settings = Settings(do="remove", end=3, masks=tmp_path / "masks", exports=("green",))
    for fates, shown in ((("segment", "remove"), {1}), (("remove", "remove"), {1, 2})):
        known = [
            replace(PROMPT, id=number, box=boxes[number], do=do)
            for number, do in zip(boxes, fates, strict=True)
        ]
        folder = run(clip, tmp_path / "-".join(fates), [], settings, known=known).folder
        with open_video(folder / "cutout_green.mp4") as video:
            green = np.abs(video[1].astype(int) - GREEN).max(axis=2) < 40
        for number, (x0, y0, x1, y1) in boxes.items():
            assert green[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5].any() != (number in shown)


def test_matte_is_white_on_the_object(result: Result) -> None:
    with open_video(result.folder / "matte.mp4") as video:
        x0, y0, x1, y1 = square_box(5)
        assert video[5][y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].min() > 240 and video[5][:20].max() < 15


@pytest.mark.parametrize(("feather", "width"), [(0.0, (0, 3)), (4.0, (8, 24))])
def test_the_edge_is_as_soft_as_asked(
    feather: float, width: tuple[int, int], clip: Path, tmp_path: Path
) -> None:
    settings = Settings(do="segment", end=6, exports=("mov",), feather=feather)
    folder = run(clip, tmp_path / "out", [PROMPT], settings).folder
    with av.open(str(folder / "cutout.mov")) as container:
        rgba = next(container.decode(video=0)).reformat(format="rgba").to_ndarray()
    row = rgba[42, :, 3]
    between = ((row > 12) & (row < 243)).sum() / 2  # left and right edge
    assert width[0] <= between <= width[1]
    with pytest.raises(InputError, match="0 to 50"):
        Settings(feather=-1.0)


def test_cut_out_is_as_long_as_the_range(clip: Path, tmp_path: Path) -> None:
    settings = Settings(do="segment", start=0, end=6, exports=("webm",))
    folder = run(clip, tmp_path / "out", [PROMPT], settings).folder
    with open_video(folder / "cutout.webm") as video:
        assert len(video) == 6


def test_two_objects_from_mot_and_from_folders(clip: Path, tmp_path: Path) -> None:
    rows = [f"{i + 1},{k},{10 * k},20,8,9,0.9,-1,-1,-1" for i in range(COUNT) for k in (1, 3)]
    (tmp_path / "both.txt").write_text("\n".join(rows))
    settings = Settings(do="segment", tracks=tmp_path / "both.txt", exports=("otb",))
    folder = run(clip, tmp_path / "out", [], settings).folder
    assert sorted(p.name for p in (folder / "tracks_otb").iterdir()) == [
        "object_1.txt", "object_3.txt",
    ]  # fmt: skip
    again = read_tracks(folder / "tracks_otb", SIZE, COUNT)
    assert again.at(4)[3].box == (30, 20, 38, 29)
    assert list(read_masks(folder / "masks", SIZE, COUNT)) == [1, 3]


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("1,1,5,5,0,9,1,-1,-1,-1", "x.txt", "no area"),
        ("99,1,5,5,9,9,1,-1,-1,-1", "x.txt", "frame 98 does not exist"),
        ("1,2,3\n", "x.txt", "line 1"),
        ("nan,nan,nan,nan\n", "x.txt", "no box"),
        ("frame,object\n0,1\n", "x.csv", "no column x0"),
        ("{}", "x.json", "not a file of tracks: it has no “frames”"),
        ("[" * 9999, "x.json", "it has no “frames”"),
        (
            '{"frames": [{"index": Infinity, "objects": [{"id": 1, "box": null}]}]}',
            "x.json",
            "no “fr",
        ),
        ("frame,object,x0,y0,x1,y1\n0,1,1,2,3,hello\n", "x.csv", "line 2 has no number where"),
        ("a,b,c,d", "x.txt", r"line 1 of x.txt is not left,top,width,height\.$"),
        ("1,1,5,5,9,9,1\n1,1,5,5,hello,9,1\n", "x.txt", "line 2 is not frame,id,left,top,width"),
        ("inf,1,5,5,9,9,1", "x.txt", "line 1 is not frame,id"),
        ("500,500,9,9\n", "x.txt", "outside"),
    ],
)
def test_wrong_tracks(text: str, name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says):
        read_tracks(tmp_path / name, SIZE, COUNT)


def test_wrong_masks(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no masks at"):
        read_masks(tmp_path / "none", SIZE, COUNT)
    folder = tmp_path / "masks"
    folder.mkdir()
    save_mask(folder / "a.png", np.ones(SIZE, bool))
    with pytest.raises(InputError, match="1 pictures and the video 24"):
        read_masks(folder, SIZE, COUNT)
    (folder / "a.png").rename(folder / "00099.png")
    with pytest.raises(InputError, match="mask of frame 99"):
        read_masks(folder, SIZE, COUNT)
    (folder / "00099.png").unlink()
    save_mask(folder / "00003.png", np.zeros(SIZE, bool))
    with pytest.raises(InputError, match="are empty"):
        run(clip, tmp_path / "out", [], Settings(masks=folder))
    save_mask(folder / "00003.png", np.ones((4, 4), bool))
    with pytest.raises(InputError, match="one size"):
        run(clip, tmp_path / "out", [], Settings(masks=folder))
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="cannot be read as a zip"):
        read_masks(tmp_path / "x.zip", SIZE, COUNT)
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("__MACOSX/._00003.png", "x")
        archive.writestr("mine/masks of it/00003.png", "no picture")
    with pytest.raises(InputError, match=r"00003\.png cannot be read as a picture"):
        run(clip, tmp_path / "out", [], Settings(masks=tmp_path / "y.zip"))
    monkeypatch.setattr(imports, "MAX_MEMBER", 5)
    with pytest.raises(InputError, match="holds a file of more than"):
        read_masks(tmp_path / "y.zip", SIZE, COUNT)
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(InputError, match=r"not a COCO file .* it has no “images”"):
        read_masks(tmp_path / "x.json", SIZE, COUNT)


def test_settings_that_exclude_each_other(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs masks"):
        Settings(do="track", exports=("webm",))
    with pytest.raises(InputError, match="no export"):
        Settings(exports=("gif",))
    with pytest.raises(InputError, match="not both"):
        Settings(tracks=tmp_path, masks=tmp_path)
    (tmp_path / "x.txt").write_text("1,2,30,40\n")
    with pytest.raises(InputError, match="not both"):
        run(clip, tmp_path / "out", [PROMPT], Settings(tracks=tmp_path / "x.txt"))


def test_a_zip_that_lists_too_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(9):
            archive.writestr(f"{index:05d}.png", b"")
    assert holds_masks(path)
    monkeypatch.setattr(zips, "MAX_DIRECTORY", 200)
    for read in (read_masks, read_tracks):
        with pytest.raises(InputError, match=r"many\.zip cannot be .* lists too many"):
            read(path, SIZE, COUNT)
