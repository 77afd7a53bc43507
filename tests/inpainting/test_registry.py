"""What every inpainter in the list has to keep to, whichever it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from checkpoints import CHECKPOINTS, CheckpointError
from inpainting import Inpainter, build_inpainter, check_inpainter, list_inpainters
from media import InputError
from tests.inpainting.conftest import moving_hole


@pytest.fixture(scope="module", params=list_inpainters())
def inpainter(request: pytest.FixtureRequest) -> Inpainter:
    """Each of them with the weights in the checkpoints folder, skipped without."""
    name = request.param
    try:
        return build_inpainter(name, device="cpu")
    except CheckpointError as error:
        files = [checkpoint for checkpoint in CHECKPOINTS.values() if checkpoint.used_by == name]
        if not files:
            pytest.skip(str(error))
        if any(file.non_commercial for file in files):
            pytest.skip(f"{error} Only a person who accepts its licence can fetch it.")
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_paints_the_holes_and_nothing_else(inpainter: Inpainter) -> None:
    clip = moving_hole(4)
    clip.holes[2][:] = False
    before = [frame.copy() for frame in clip.frames]
    result = list(inpainter.inpaint(clip, clip.holes))
    assert len(result) == len(clip)
    np.testing.assert_array_equal(clip.frames, before)
    np.testing.assert_array_equal(result[2], clip.frames[2])
    far = slice(None, 16)  # rows; the holes begin at 26
    for frame, source, hole in zip(result, clip.frames, clip.holes, strict=True):
        assert (frame.dtype, frame.shape) == (np.uint8, source.shape)
        assert frame.flags.c_contiguous
        np.testing.assert_array_equal(frame[far], source[far])
        assert not hole.any() or (frame[hole] != source[hole]).any()
    assert all(isinstance(note, str) for note in inpainter.notes)
    assert inpainter.weights


def test_gives_the_frames_that_are_asked_for(inpainter: Inpainter) -> None:
    clip = moving_hole(4)
    assert len(list(inpainter.inpaint(clip, clip.holes, start=1, stop=3))) == 2
    assert len(list(inpainter.inpaint(clip, clip.holes, start=3, stop=99))) == 1
    assert list(inpainter.inpaint(clip, clip.holes, start=4)) == []


def test_refuses_what_does_not_fit(inpainter: Inpainter) -> None:
    clip = moving_hole(2)
    with pytest.raises(InputError, match="2 frames but 1 masks"):
        inpainter.inpaint(clip, clip.holes[:1])
    with pytest.raises(InputError, match="range 3"):
        inpainter.inpaint(clip, clip.holes, start=3)
    with pytest.raises(InputError, match="mask of frame 1 is 40x30"):
        list(inpainter.inpaint(clip, [clip.holes[0], np.ones((30, 40), bool)]))


@pytest.mark.parametrize("name", list_inpainters())
def test_missing_weights_are_known_without_loading_any(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(tmp_path))
    with pytest.raises(CheckpointError) as built:
        build_inpainter(name, device="cpu")
    with pytest.raises(CheckpointError) as checked:
        check_inpainter(name)
    assert str(checked.value) == str(built.value)


def test_refuses_names_that_are_not_in_the_list() -> None:
    with pytest.raises(InputError, match=", ".join(list_inpainters())):
        build_inpainter("magic")
