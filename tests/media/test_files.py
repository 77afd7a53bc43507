"""Whole files and folders or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from media.files import replacing, replacing_folder


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("older", ["folder", "file", "nothing"])
def test_a_folder_appears_whole(tmp_path: Path, older: str) -> None:
    path = tmp_path / "a"
    if older == "folder":
        path.mkdir()
        (path / "old").touch()
    elif older == "file":
        path.touch()
    (tmp_path / "a.part").mkdir()  # left by a process that was killed
    (tmp_path / "a.part" / "half").touch()
    with replacing_folder(path) as part:
        (part / "new").touch()
        assert path.exists() == (older != "nothing")
    assert sorted(tmp_path.rglob("*")) == [path, path / "new"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as part:
        (part / "new").touch()
        raise KeyboardInterrupt
    assert sorted(tmp_path.rglob("*")) == [path, path / "old"]
