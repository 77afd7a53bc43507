"""Imports run one way: demo → stages → media, checkpoints; checkpoints.training → media."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "media": set(),
    "checkpoints": {"media"},  # its part `training` alone, see below
    "trackers": {"media", "checkpoints"},
    "segmenters": {"media", "checkpoints"},
    "inpainting": {"media", "checkpoints"},
    "demo": {"trackers", "segmenters", "inpainting", "media", "checkpoints"},
}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrow(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        foreign = (imported(path) & set(ALLOWED)) - {package} - ALLOWED[package]
        assert not foreign, f"{path.relative_to(ROOT)} imports {', '.join(sorted(foreign))}"


def test_fetching_weights_needs_nothing_else() -> None:
    for path in (ROOT / "checkpoints").rglob("*.py"):
        if path.parent.name != "training":
            assert "media" not in imported(path), path.relative_to(ROOT)


def test_packages_do_not_touch_the_import_path() -> None:
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            assert "sys.path" not in path.read_text(encoding="utf-8"), path
