"""Embeddings of frames that were seen before, so that another click costs only the decoder."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from segmenters.base import Candidate, Embedding, Prompt, Segmenter

_log = logging.getLogger(__name__)
_SUFFIX = ".safetensors"
_STALE_SECONDS = 3600.0  # a file still unfinished after that long belongs to nobody


class CachedSegmenter:
    """A segmenter that remembers what it has encoded; a `Segmenter` itself.

    Frames are told apart by their content, and models by their weights and settings, so that
    several users, videos, models and processes may share one folder. What was used least recently
    goes first when there is no room. Safe in several threads: a frame that two ask for at the same
    time is encoded once.

    Args:
        segmenter: What encodes and predicts.
        memory: Bytes of features that are kept in memory, on the model's device. A frame takes
            4 MiB.
        folder: Where features are kept from one run to the next, exactly as they are; made when
            first needed, for this user alone. None keeps none.
        disk: Bytes of files in `folder`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory: int = 256 * 2**20,
        folder: Path | None = None,
        disk: int = 4 * 2**30,
    ) -> None:
        self.segmenter = segmenter
        self.weights, self.device = segmenter.weights, segmenter.device
        self.settings = segmenter.settings
        self._memory, self._folder, self._disk = memory, folder, disk
        self._kept: OrderedDict[str, Embedding] = OrderedDict()  # least recently used first
        self._awaited: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()
        self._model = f"{self.weights.sha256} {self.settings}".encode()

    def encode(self, frame: np.ndarray) -> Embedding:
        """Encode an RGB uint8 (h, w, 3) frame, or remember how it looked.

        Raises:
            InputError: `frame` is something else.
        """
        key = self._key(frame)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            awaited = self._awaited.get(key)
            if awaited is None:
                mine = self._awaited[key] = Future()
        if awaited is not None:
            return awaited.result()
        try:
            embedding = self._load(key)
            if embedding is None:
                embedding = self.segmenter.encode(frame)
                self._save(key, embedding)
        except BaseException as error:
            with self._lock:
                del self._awaited[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self._kept[key] = embedding
            while self._kept and sum(_bytes(kept) for kept in self._kept.values()) > self._memory:
                self._kept.popitem(last=False)
            del self._awaited[key]
        mine.set_result(embedding)
        return embedding

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        """See `Segmenter.predict`."""
        return self.segmenter.predict(embedding, prompts)

    def predict_logits(
        self, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `Segmenter.predict_logits`."""
        return self.segmenter.predict_logits(embedding, prompts)

    def enlarge(self, logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """See `Segmenter.enlarge`."""
        return self.segmenter.enlarge(logits, size)

    def _key(self, frame: np.ndarray) -> str:
        digest = hashlib.blake2b(self._model, digest_size=20)
        digest.update(f"{frame.shape} {frame.dtype}".encode())
        digest.update(np.ascontiguousarray(frame).data)
        return digest.hexdigest()

    # -------------------------------------------------------------------------------------- disk

    def _load(self, key: str) -> Embedding | None:
        if self._folder is None:
            return None
        file = self._folder / (key + _SUFFIX)
        try:
            with safe_open(file, framework="pt", device=str(self.device)) as stored:
                height, width = map(int, stored.metadata()["size"].split())
                features = stored.get_tensor("features")
            _note_use(file)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            _log.warning("%s cannot be read and is made anew: %s", file, error)
            return None
        return Embedding(features, (height, width))

    def _save(self, key: str, embedding: Embedding) -> None:
        if self._folder is None:
            return
        height, width = embedding.size
        tensors = {"features": embedding.features.cpu().contiguous()}
        data = save(tensors, {"size": f"{height} {width}"})
        # Two processes may write the same frame at the same time.
        part = self._folder / f"{key}.{threading.get_native_id()}.part"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(data)
            _note_use(part)
            part.replace(self._folder / (key + _SUFFIX))
            self._make_room()
        except OSError as error:  # a full disk only makes the next click slower
            _log.warning("An embedding could not be kept in %s: %s", self._folder, error)
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _make_room(self) -> None:
        assert self._folder is not None
        for part in self._folder.glob("*.part"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                    part.unlink()
        files = []
        for file in self._folder.glob("*" + _SUFFIX):
            with suppress(FileNotFoundError):  # another process was faster
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        excess = sum(size for _, size, _ in files) - self._disk
        for _, size, file in sorted(files):
            if excess <= 0:
                break
            file.unlink(missing_ok=True)
            excess -= size


def _note_use(file: Path) -> None:
    """Let a file's time say when it was used last; the system's own clock for that is coarse."""
    now = time.time_ns()
    os.utime(file, ns=(now, now))


def _bytes(embedding: Embedding) -> int:
    return embedding.features.nbytes
