"""Seconds and memory of an inpainter, measured in a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from inpainting import build_network, cost
from inpainting.__main__ import main
from inpainting.cost import Cost, MaskPictures, as_markdown
from tests.inpainting.conftest import moving_hole


@pytest.fixture
def clip(tmp_path: Path) -> tuple[Path, Path]:
    made = moving_hole(3, size=(60, 108))
    for name, pictures in (("frames", made.frames), ("masks", made.holes)):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / f"{i:03d}.png")
    return tmp_path / "frames", tmp_path / "masks"


def test_the_command_measures(
    clip: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = tmp_path / "w.safetensors"
    save_file(build_network("e2fgvi_hq_small").state_dict(), weights)
    command = ["benchmark", *map(str, clip), f"--weights={weights}", "--limit=2", "--device=cpu"]
    assert main([*command, "--method=e2fgvi_hq_small"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    name, frames, size, wall, cpu, memory, gpu = (cell.strip() for cell in row.split("|")[1:-1])
    assert (name, frames, size, gpu) == ("e2fgvi_hq_small", "2", "108x60", "")
    assert float(wall) > 0 and float(cpu) > 0 and 100 < float(memory) < 20_000
    assert main(command) == 2 and "name it with --method" in capsys.readouterr().err
    assert main(["benchmark", *map(str, clip), "--limit=0"]) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": "no"}, "no"),
        ({"masks": "no"}, "no"),
        ({"masks": "two"}, "3 frames but 2 masks"),
        ({"method": "magic"}, "no inpainter called 'magic'"),
        ({"method": "e2fgvi"}, "fetch e2fgvi"),
        ({"device": "cuda:77"}, "'cuda:77' is not available"),
    ],
    ids=str,
)
def test_what_cannot_be_is_known_before_a_model_is_loaded(
    clip: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, str],
    message: str,
) -> None:
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(cost, "measure", lambda *a, **k: pytest.fail("a model was loaded"))
    shutil.copytree(clip[1], tmp_path / "two")
    (tmp_path / "two" / "000.png").unlink()
    places = [str(tmp_path / wrong.get(name, name)) for name in ("frames", "masks")]
    options = [f"--{name}={wrong[name]}" for name in ("method", "device") if name in wrong]
    assert main(["benchmark", *places, *options]) in (1, 2)
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_masks_are_read_in_order(clip: tuple[Path, Path]) -> None:
    masks = MaskPictures(clip[1])
    assert len(masks) == 3
    truth = moving_hole(3, size=(60, 108)).holes
    assert all(np.array_equal(masks[i], truth[i]) for i in range(3))


def test_the_table() -> None:
    text = as_markdown([Cost("x", 30, (240, 432), 1.25, 2.5, 900.4, 512.0)])
    assert text.splitlines()[-1] == "| x | 30 | 432x240 | 1.250 | 2.500 | 900 | 512 |"
