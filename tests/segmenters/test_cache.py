from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import WeightsRecord
from media import InputError
from segmenters import Embedding, Prompt
from segmenters.cache import CachedSegmenter
from segmenters.sam import SamSegmenter

BYTES = 256 * 64 * 64 * 4  # features of a frame


class Counting(SamSegmenter):
    """Says how often it has encoded."""

    def __init__(self, other: SamSegmenter, weights: str = "a", settings: str = "") -> None:
        super().__init__(other.network, WeightsRecord("small", weights), torch.device("cpu"))
        self.encoded, self._settings = 0, settings

    @property
    def settings(self) -> str:
        return super().settings + self._settings

    def encode(self, frame: np.ndarray) -> Embedding:
        self.encoded += 1
        return super().encode(frame)


@pytest.fixture
def counting(small: SamSegmenter) -> Counting:
    return Counting(small)


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_second_click_costs_only_the_decoder(counting: Counting) -> None:
    cached = CachedSegmenter(counting)
    first, second = cached.encode(frame(0)), cached.encode(frame(0).copy())
    assert counting.encoded == 1 and second is first
    prompt = [Prompt(box=np.array([5, 5, 30, 30]))]
    (answer,), (plain,) = cached.predict(first, prompt), counting.predict(first, prompt)
    assert (answer[0].mask == plain[0].mask).all() and answer[0].score == plain[0].score
    assert cached.weights == counting.weights


def test_frames_of_the_same_bytes_but_another_shape_differ(counting: Counting) -> None:
    cached = CachedSegmenter(counting)
    assert cached.encode(frame(0)).size == (40, 60)
    assert cached.encode(frame(0).reshape(60, 40, 3)).size == (60, 40)
    assert counting.encoded == 2


def test_a_picture_that_is_not_contiguous_is_the_same_frame(counting: Counting) -> None:
    cached = CachedSegmenter(counting)
    cached.encode(frame(0))
    cached.encode(np.asfortranarray(frame(0)))
    assert counting.encoded == 1


def test_memory_is_bounded_and_the_least_recently_used_goes_first(counting: Counting) -> None:
    cached = CachedSegmenter(counting, memory=2 * BYTES)
    for seed in (0, 1, 0, 2):  # 2 takes the place of 1
        cached.encode(frame(seed))
    assert counting.encoded == 3
    cached.encode(frame(0))
    assert counting.encoded == 3
    cached.encode(frame(1))
    assert counting.encoded == 4


def test_no_memory_is_no_cache(counting: Counting) -> None:
    cached = CachedSegmenter(counting, memory=0)
    cached.encode(frame(0))
    cached.encode(frame(0))
    assert counting.encoded == 2


def test_files_outlive_the_process_to_the_last_bit(counting: Counting, tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    before = CachedSegmenter(counting, folder=folder).encode(frame(0))
    (file,) = folder.iterdir()
    assert file.suffix == ".safetensors" and folder.stat().st_mode & 0o077 == 0
    after = CachedSegmenter(counting, folder=folder).encode(frame(0))
    assert counting.encoded == 1
    assert torch.equal(before.features, after.features) and after.size == (40, 60)


def test_other_weights_and_settings_share_a_folder_and_nothing_else(
    small: SamSegmenter, tmp_path: Path
) -> None:
    models = [Counting(small), Counting(small, weights="b"), Counting(small, settings="fast")]
    for model in models:
        CachedSegmenter(model, folder=tmp_path).encode(frame(0))
    assert [model.encoded for model in models] == [1, 1, 1]
    assert len(files(tmp_path)) == 3


def test_the_disk_is_bounded(counting: Counting, tmp_path: Path) -> None:
    cached = CachedSegmenter(counting, memory=0, folder=tmp_path, disk=2 * BYTES + 10_000)
    for seed in (0, 1, 0, 2):
        cached.encode(frame(seed))
    assert counting.encoded == 3 and len(files(tmp_path)) == 2
    cached.encode(frame(0))
    assert counting.encoded == 3
    cached.encode(frame(1))
    assert counting.encoded == 4


def test_what_a_killed_write_has_left_goes(counting: Counting, tmp_path: Path) -> None:
    for name, age in (("old.1.part", 7200), ("new.2.part", 60)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    CachedSegmenter(counting, folder=tmp_path).encode(frame(0))
    assert [file for file in files(tmp_path) if file.endswith(".part")] == ["new.2.part"]


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"\x10\0\0\0\0\0\0\0{}              "])
def test_a_damaged_file_is_made_anew(counting: Counting, tmp_path: Path, rubbish: bytes) -> None:
    before = CachedSegmenter(counting, folder=tmp_path).encode(frame(0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(rubbish)
    after = CachedSegmenter(counting, folder=tmp_path).encode(frame(0))
    assert counting.encoded == 2 and torch.equal(before.features, after.features)
    CachedSegmenter(counting, folder=tmp_path).encode(frame(0))
    assert counting.encoded == 2 and files(tmp_path) == [file.name]


def test_a_folder_that_cannot_be_written_costs_only_time(
    counting: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cached = CachedSegmenter(counting, folder=tmp_path / "file")
    assert cached.encode(frame(0)).size == (40, 60)
    assert "could not be kept" in caplog.text


def test_what_two_ask_for_at_once_is_encoded_once(small: SamSegmenter) -> None:
    arrived = threading.Event()

    class Slow(Counting):
        def encode(self, frame: np.ndarray) -> Embedding:
            arrived.wait(5)
            return super().encode(frame)

    slow = Slow(small)
    cached = CachedSegmenter(slow)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cached.encode, frame(0)) for _ in range(4)]
        arrived.set()
        answers = [future.result() for future in asked]
    assert slow.encoded == 1 and all(answer is answers[0] for answer in answers)


def test_many_threads_and_frames(counting: Counting, tmp_path: Path) -> None:
    cached = CachedSegmenter(counting, memory=2 * BYTES, folder=tmp_path, disk=3 * BYTES)
    wanted = {seed: counting.encode(frame(seed)).features for seed in range(5)}
    with ThreadPoolExecutor(8) as pool:
        seeds = [i * 7 % 5 for i in range(60)]
        for seed, answer in zip(seeds, pool.map(cached.encode, map(frame, seeds)), strict=True):
            assert torch.equal(answer.features, wanted[seed])
    assert len(files(tmp_path)) <= 3 and not list(tmp_path.glob("*.part"))


def test_an_error_is_told_and_not_kept(counting: Counting) -> None:
    cached = CachedSegmenter(counting)
    for _ in range(2):
        with pytest.raises(InputError, match="A frame must be RGB"):
            cached.encode(np.zeros((9, 9), np.uint8))
