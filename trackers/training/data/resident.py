"""All pictures of packed shards, decoded, on the device that trains: nothing is read any more."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from checkpoints.training.pictures import decode
from media import InputError
from trackers.training.data.sources import Packed, Source

_log = logging.getLogger(__name__)


class Resident:
    """Where each picture of some packed shards begins among all of them; holds no pixels.

    Args:
        sources: the shards.
    """

    def __init__(self, sources: Sequence[Packed]) -> None:
        self._sizes = [[row.size for row in source.rows] for source in sources]
        counts = [height * width for sizes in self._sizes for height, width in sizes]
        bases = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        ends = np.cumsum([len(sizes) for sizes in self._sizes])
        self._bases = np.split(bases[:-1], ends[:-1])
        self._damaged: dict[tuple[int, int], str] = {}
        self.total = int(bases[-1])  # pixels

    def find(self, source: int, picture: int) -> tuple[tuple[int, int], int]:
        """(height, width) of a picture and at which pixel it begins. Raises InputError: damaged."""
        if (source, picture) in self._damaged:
            raise InputError(self._damaged[source, picture])
        return self._sizes[source][picture], int(self._bases[source][picture])

    def load(self, sources: Sequence[Packed], device: torch.device) -> torch.Tensor:
        """Decode all pictures: (total, 3) uint8 on the device. Remembers those that are damaged."""
        pixels = torch.zeros((self.total, 3), dtype=torch.uint8, device=device)

        def fill(job: tuple[int, int]) -> None:
            source, picture = job
            row = sources[source].rows[picture]
            base = int(self._bases[source][picture])
            what = f"the picture at byte {row.offset} of {row.file}"
            try:
                found = decode(row.encoded(), what)
                if found.shape[:2] != row.size:
                    raise InputError(f"{what[:1].upper()}{what[1:]} is not of the size given.")
            except InputError as error:
                self._damaged[job] = str(error)
                return
            flat = torch.from_numpy(found).view(-1, 3)
            pixels[base : base + len(flat)] = flat.to(device)

        jobs = [(s, p) for s, sizes in enumerate(self._sizes) for p in range(len(sizes))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside of Python's lock
            list(pool.map(fill, jobs))
        _log.info("%d pictures, %.1f GB, are on %s", len(jobs), 3e-9 * self.total, device)
        return pixels


def plan_residence(sources: Sequence[Source], most_bytes: float) -> Resident | None:
    """A place on the device for all pictures, if there is one and all are in packed shards."""
    packed = [source for source in sources if isinstance(source, Packed)]
    if len(packed) < len(sources):
        return None
    resident = Resident(packed)
    return resident if 3 * resident.total <= most_bytes else None
