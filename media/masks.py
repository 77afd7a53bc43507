"""Masks on disk: black-and-white pictures, COCO run lengths, a folder with one mask per frame."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from media.errors import InputError
from media.files import replacing


def save_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask as a greyscale PNG, 255 where it is True.

    The file appears complete or not at all (written as PATH.part, then renamed).

    Args:
        path: The file to write.
        mask: bool (h, w).
    """
    path = Path(path)
    picture = mask.astype(np.uint8) * 255
    # A mask is mostly flat: the fastest compression makes it about as small as the best.
    with replacing(path) as part:
        part.write_bytes(iio.imwrite("<bytes>", picture, extension=".png", compress_level=1))


def load_mask(
    path: str | Path | zipfile.Path, *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Read a mask from any picture.

    Where a picture has transparent pixels, its opaque part is the mask (a cut-out). A palette
    picture (DAVIS, VOC) gives everything but index 0. Otherwise what is brighter than 127 in some
    channel counts, or, in a picture of 0 and 1 only, the ones.

    Args:
        path: The picture, also one in a zip.
        size: The (height, width) that it has to have.

    Returns:
        bool (h, w).

    Raises:
        InputError: it cannot be read, or has another size.
    """
    path = path if isinstance(path, zipfile.Path) else Path(path)
    try:
        with path.open("rb") as file, Image.open(file) as picture:
            found = (picture.height, picture.width)
            if size is not None and found != tuple(size):
                raise InputError(
                    f"The mask {path.name} is {found[1]}x{found[0]} and the video {size[1]}x"
                    f"{size[0]}: they have to be of one size."
                )
            return _decide(picture)
    except FileNotFoundError as error:
        raise InputError(f"The mask {path} does not exist: check the name.") from error
    except InputError:
        raise
    except Exception as error:  # on damaged data Pillow raises almost anything
        raise InputError(f"The mask {path.name} cannot be read as a picture.") from error


def _decide(picture: Image.Image) -> np.ndarray:
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        if alpha.min() <= 127:
            return alpha > 127
    if picture.mode == "P":
        return np.asarray(picture) != 0
    if picture.mode.startswith("I"):  # 16 bit
        values = np.asarray(picture)
        return values == 1 if values.max() == 1 else values > 127 * 257
    values = np.asarray(picture.convert("RGB")).max(axis=2)
    return values == 1 if values.max() == 1 else values > 127


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask as compressed COCO run lengths, ready for JSON.

    Args:
        mask: bool (h, w).

    Returns:
        {"size": [h, w], "counts": str}, as pycocotools and COCO's result files have it.
    """
    runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """The inverse of `encode_rle`; also takes COCO's uncompressed run lengths.

    Returns:
        bool (h, w).

    Raises:
        InputError: these are no run lengths.
    """
    try:
        height, width = rle["size"]
        if isinstance(rle["counts"], list):
            rle = coco.frPyObjects(rle, height, width)
        return coco.decode(rle).astype(bool)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "These are no COCO run lengths: 'size' and 'counts' are needed."
        ) from error


class MaskFolder:
    """One mask per frame in a folder, `00000.png` on; read when asked for, nothing is kept.

    A file that is not there is an empty mask.

    Args:
        path: The folder; made on the first write.
        size: (height, width) of every mask; if None, that of the first one written or found.
        length: How many frames there are; if None, up to the last mask there is.
    """

    def __init__(
        self, path: str | Path, *, size: tuple[int, int] | None = None, length: int | None = None
    ) -> None:
        self.path = Path(path)
        self._size = size
        self._length = length

    def __len__(self) -> int:
        if self._length is not None:
            return self._length
        return max((int(file.stem) + 1 for file in self.files()), default=0)

    def file(self, index: int) -> Path:
        """Where the mask of frame `index` is, or would be."""
        return self.path / f"{index:05d}.png"

    def files(self) -> list[Path]:
        """The masks there are, in order."""
        found = (file for file in self.path.glob("*.png") if file.stem.isdecimal())
        return sorted(found, key=lambda file: int(file.stem))

    def write(self, index: int, mask: np.ndarray) -> None:
        """Write the mask of frame `index`: bool (h, w)."""
        self._check(index)
        self._size = self._size or mask.shape
        if mask.shape != tuple(self._size):
            raise ValueError(f"expected a mask of {tuple(self._size)}, got {mask.shape}")
        self.path.mkdir(parents=True, exist_ok=True)
        save_mask(self.file(index), mask)

    def __getitem__(self, index: int) -> np.ndarray:
        """The mask of frame `index`: bool (h, w)."""
        self._check(index)
        file = self.file(index)
        if file.exists():
            return load_mask(file, size=self._size)
        if self._size is None:
            files = self.files()
            if not files:
                raise ValueError(f"{self.path} holds no mask yet: give the size of the empty ones")
            self._size = load_mask(files[0]).shape
        return np.zeros(self._size, dtype=bool)

    def _check(self, index: int) -> None:
        if index < 0 or (self._length is not None and index >= self._length):
            raise IndexError(f"mask {index} of {self._length or 'those'} in {self.path}")


class MaskUnion:
    """Several objects' masks as one: a pixel counts where any of them has it.

    Args:
        folders: at least one; they have masks of one size.
    """

    def __init__(self, folders: Iterable[MaskFolder]) -> None:
        self._folders = list(folders)

    def __len__(self) -> int:
        return max(map(len, self._folders))

    def __getitem__(self, index: int) -> np.ndarray:
        """bool (h, w)."""
        return np.any([folder[index] for folder in self._folders], axis=0)
