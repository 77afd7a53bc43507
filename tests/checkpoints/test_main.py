"""The command line: what it prints and its exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from checkpoints import CHECKPOINTS, store
from checkpoints.__main__ import main
from checkpoints.registry import Checkpoint
from checkpoints.sources import NpmMember, Url

from .conftest import BODY, Page, Server

Toy = Callable[..., Checkpoint]
NOWHERE = Url("http://127.0.0.1:9/toy")


@pytest.fixture
def only_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No default entry but the bundled one, so that `--default` fetches toys alone."""
    for name, checkpoint in list(CHECKPOINTS.items()):
        if checkpoint.default and not checkpoint.bundled:
            monkeypatch.setitem(CHECKPOINTS, name, replace(checkpoint, default=False))


def test_list(
    toy: Toy, server: Server, weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy()
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0 if line[0] == " " else 1]: line for line in lines[1:-3]}
    assert rows.keys() == CHECKPOINTS.keys()
    assert rows["toy"].split()[-1] == "missing"
    assert rows["mixformerv2_small_seed"].startswith("*")
    assert rows["mixformerv2_small_seed"].endswith("bundled")
    assert "CC BY-NC 4.0" in rows["e2fgvi_hq"] and "2565 MB" in rows["sam_vit_h"]
    assert str(weights_folder) in lines[-2]
    assert max(map(len, lines)) < 140

    weights_folder.mkdir()
    (weights_folder / "toy.bin").write_bytes(BODY)
    (weights_folder / "mobile_sam.pt").write_bytes(b"half")
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if " toy " in line] == ["present"]
    assert [line.split()[-1] for line in lines if " mobile_sam " in line] == ["damaged"]


def test_list_marks_the_better_file_once_it_is_there(
    weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_folder.mkdir()
    torch.save({"net": {}}, weights_folder / "mixformerv2_small.pth.tar")
    main(["list"])
    marked = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line[0:1] == "*"]
    assert "mixformerv2_small" in marked and "mixformerv2_small_seed" not in marked


def test_fetch(
    server: Server, toy: Toy, weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(Url(server.add("/toy", Page())))
    assert main(["fetch", "toy"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"toy: {weights_folder / 'toy.bin'}\n"
    assert "licence MIT" in printed.err and "307k" in printed.err
    assert main(["fetch", "toy"]) == 0
    assert capsys.readouterr().err == ""


def test_dir_goes_before_the_environment(
    server: Server, toy: Toy, weights_folder: Path, tmp_path: Path
) -> None:
    toy(Url(server.add("/toy", Page())))
    assert main(["fetch", "toy", "--dir", str(tmp_path / "here")]) == 0
    assert (tmp_path / "here" / "toy.bin").exists() and not weights_folder.exists()
    assert main(["verify", "toy", "--dir", str(tmp_path / "here")]) == 0
    assert main(["verify", "toy"]) == 1


def test_bad_input_ends_with_2(
    server: Server, toy: Toy, weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(Url(server.add("/toy", Page())))
    assert main(["fetch", "toy", "mobilesam"]) == 2
    assert "did you mean mobile_sam" in capsys.readouterr().err
    assert not weights_folder.exists()  # names are looked at before anything is fetched
    assert main(["fetch"]) == 2
    assert main(["verify", "mobilesam"]) == 2
    capsys.readouterr()
    for words in ([], ["fetsch"], ["list", "--no-such-option"], ["convert", "in.pth"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith("Error: ") and said.count("\n") == 1 and "--help" in said


def test_a_licence_must_be_accepted(
    server: Server, toy: Toy, weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(Url(server.add("/toy", Page())), licence="CC BY-NC 4.0", non_commercial=True)
    assert main(["fetch", "toy"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "--accept-licence" in message
    assert main(["fetch", "toy", "--accept-licence"]) == 0


def test_a_failure_ends_with_1_and_the_others_are_fetched(
    server: Server, toy: Toy, weights_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(NOWHERE, name="lost", file="lost.bin")
    toy(Url(server.add("/toy", Page())))
    assert main(["fetch", "lost", "toy"]) == 1
    assert "lost could not be fetched" in capsys.readouterr().err
    assert (weights_folder / "toy.bin").exists()


def test_default_without_npm_leaves_out_what_needs_it(
    only_toys: None,
    server: Server,
    toy: Toy,
    weights_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "")
    toy(NpmMember("x", "y"), NOWHERE, name="npm_toy", file="npm_toy.bin", default=True)
    toy(Url(server.add("/toy", Page())), default=True)
    assert main(["fetch", "--default"]) == 0
    assert "npm_toy is left out: it needs npm" in capsys.readouterr().err
    assert (weights_folder / "toy.bin").exists()
    assert main(["fetch", "npm_toy"]) == 1  # asked for by name, it is a failure


def test_default_fails_when_something_else_is_missing(
    only_toys: None, toy: Toy, weights_folder: Path
) -> None:
    toy(NOWHERE, default=True)
    assert main(["fetch", "--default"]) == 1


def test_the_default_chain_is_complete() -> None:
    default = {name for name, checkpoint in CHECKPOINTS.items() if checkpoint.default}
    assert default == {"mixformerv2_small_seed", "mobile_sam", "spynet", "migan", "sample_bikes"}


def test_verify(toy: Toy, weights_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy()
    weights_folder.mkdir()
    (weights_folder / "toy.bin").write_bytes(BODY)
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mixformerv2_small_seed: mixformerv2_small_seed.safetensors is as it should be",
        "toy: toy.bin is as it should be",
    ]
    (weights_folder / "toy.bin").write_bytes(BODY[1:])
    assert main(["verify", "toy"]) == 1
    assert "has 307199 bytes instead of 307200" in capsys.readouterr().out


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"net": {"a": torch.ones(3)}}, tmp_path / "in.pth")
    target = tmp_path / "out.safetensors"
    assert main(["convert", str(tmp_path / "in.pth"), str(target), "--half"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert main(["convert", str(tmp_path / "none.pth"), str(target)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_convert_names_what_it_writes_by_its_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.safetensors"
    save_file({"a": torch.ones(3)}, source)
    before = source.read_bytes()
    for target in (source, tmp_path / "out.pth"):
        assert main(["convert", str(source), str(target), "--half"]) == 2
        assert target.name in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["in.safetensors"]
    assert source.read_bytes() == before


def test_the_package_runs_alone_in_an_empty_folder(tmp_path: Path) -> None:
    package = Path(store.__file__).parent
    (tmp_path / "checkpoints").mkdir()
    for file in [*package.glob("*.py"), package / CHECKPOINTS["mixformerv2_small_seed"].file]:
        shutil.copy(file, tmp_path / "checkpoints")
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "checkpoints", "list"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "bundled" in done.stdout


def test_importing_is_light() -> None:
    heavy = ["torch", "numpy", "tqdm", "gdown", "requests", "safetensors", "filelock"]
    script = f"import sys, checkpoints; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(store.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_reader_who_leaves_is_not_told_of_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "checkpoints", "list"],
        cwd=Path(store.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1
