"""Packed shards: written, read, and refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints.training.shards import Labelled, ShardWriter, is_inside, read_shards
from media import InputError

RECORD = {"source": "s", "video": None, "frame": None, "objects": [{"box": [1, 2, 3, 4]}]}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    pictures = [bytes([i]) * 40 for i in range(5)]
    with ShardWriter(tmp_path / "new", most_bytes=100) as writer:
        for i, picture in enumerate(pictures):
            record = {
                **RECORD,
                "video": "v",
                "frame": i,
                "objects": [{"id": 7, "box": [i, 0, 2, 2]}],
            }
            writer.add(picture, (12, 16), record)
        assert not list((tmp_path / "new").glob("*.jsonl"))  # under their names when all is done
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [f"shard_0{i}.{end}" for i in range(3) for end in ("bin", "jsonl")]
    rows = list(read_shards(tmp_path / "new"))
    assert [row.encoded() for row in rows] == pictures
    assert [row.frame for row in rows] == [0, 1, 2, 3, 4]
    assert rows[3].objects == (Labelled((3, 0, 2, 2), 7),) and rows[3].size == (12, 16)


@pytest.mark.parametrize("name", ["視頻", "not UTF-8: \udcff"])
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    with ShardWriter(tmp_path / "new") as writer:
        writer.add(b"x", (12, 16), {**RECORD, "video": name, "frame": 0})
    assert [row.video for row in read_shards(tmp_path / "new")] == [name]


def test_writing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, most_bytes=10) as writer:
        for _ in range(3):
            writer.add(b"0123456789", (1, 1), RECORD)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.add(b"x", (12, 16), RECORD)
    with pytest.raises(InputError, match="already holds packed shards; give an empty folder"):
        ShardWriter(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"off": 99}, "Line 2 of .*points beyond the end of a.bin, which is incomplete"),
        ({"len": 0}, "points beyond the end"),
        ({"w": "wide"}, "Line 2 of .*a.jsonl does not describe a picture"),
        ({"objects": [{"box": [1, 2, 3]}]}, "does not describe a picture"),
        ({"objects": [{"bbox": [1, 2, 3, 4]}]}, "does not describe a picture: KeyError"),
        ({"w": float("inf")}, "Line 2 of .*a.jsonl does not describe a picture: OverflowError"),
        ({"video": 5, "frame": 0}, "Line 2 of .*its video is no name"),
        ({"objects": [{"box": [1, 2, 3, 4], "id": [7]}]}, "an id is neither a number nor a name"),
        ({"objects": [{"box": [1, 2, 0, 4]}]}, r"a box \[1.0, 2.0, 0.0, 4.0\] that is empty"),
        ({"objects": [{"box": [20, 2, 3, 4]}]}, r"or outside of its picture, 16 x 12"),
        ({"objects": [{"box": [-9, 2, 3, 4]}]}, r"or outside of its picture"),
        ({"objects": [{"box": [float("nan"), 2, 3, 4]}]}, "that is empty or outside"),
    ],
)
def test_bad_lines(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    good = {**RECORD, "off": 0, "len": 4, "w": 16, "h": 12}
    (tmp_path / "a.bin").write_bytes(b"data")
    lines = [json.dumps(good), json.dumps({**good, **change})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=sentence):
        list(read_shards(tmp_path))


@pytest.mark.parametrize("line", [b"[1, 2]", b"7", b'{"off": "\xff"}', b"[" * 100_000, b"{"])
def test_lines_that_are_no_records(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"data")
    good = json.dumps({**RECORD, "off": 0, "len": 4, "w": 16, "h": 12}).encode()
    (tmp_path / "a.jsonl").write_bytes(good + b"\r\n" + line + b"\n")
    with pytest.raises(InputError, match=r"Line 2 of .*a\.jsonl does not describe a picture"):
        list(read_shards(tmp_path))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no folder .*nowhere"):
        list(read_shards(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"holds no packed shards: NAME.bin with NAME.jsonl"):
        list(read_shards(tmp_path))
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(InputError, match=r"describes a.bin, which is not beside it"):
        list(read_shards(tmp_path))
    with ShardWriter(tmp_path / "b") as writer:
        writer.add(b"0123", (12, 16), RECORD)
    (row,) = read_shards(tmp_path / "b")
    row.file.write_bytes(b"01")
    with pytest.raises(InputError, match="ends too early"):
        row.encoded()
    row.file.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        row.encoded()


def test_what_counts_as_inside() -> None:
    assert is_inside((-5, -5, 6, 6), (12, 16)) and is_inside((15.5, 11.5, 9, 9), (12, 16))
    assert not is_inside((16, 0, 3, 3), (12, 16)) and not is_inside((0, -3, 3, 3), (12, 16))


def test_the_photographs_at_hand_are_such_shards(shared: Callable[[str], Path]) -> None:
    rows = list(read_shards(shared("data/train/stills")))
    assert len(rows) == 12652 and sum(len(row.objects) for row in rows) == 52923
    assert rows[4].video == "uav123_boat1" and rows[4].frame == 124
    assert rows[4].encoded()[:4] == b"RIFF"
