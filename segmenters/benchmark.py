"""What fewer tokens cost and save: masks against those of the plain encoder, and time.

Nobody has published what token clustering does to SAM's masks. Whoever has SAM's official file can
find out here, over a folder of pictures, together with the plain alternative: averages over a
regular grid, enlarged bilinearly, at the same number of tokens.
"""

from __future__ import annotations

import copy
import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from media import InputError
from media.files import replacing
from media.masks import load_mask
from media.pictures import is_picture
from media.reader import open_video
from segmenters.base import Candidate, Prompt
from segmenters.cleanup import mask_box
from segmenters.evaluation import region_similarity
from segmenters.hourglass import HourglassConfig, HourglassImageEncoder
from segmenters.sam import SamSegmenter

SURE = 0.8  # of its mask the plain model has to be, or the prompt (a point on nothing) is left out
CHANGED = 0.75  # a mask less alike than this is another mask

# ------------------------------------------------------------------------- the plain alternative


def run_on_averages(
    x: Tensor, blocks: Iterable[nn.Module], window_size: int, config: HourglassConfig
) -> Tensor:
    """As `hourglass.run_on_clusters`, with averages over a regular grid and bilinear enlargement.

    The same number of tokens, but laid over the map (b, h, w, c) without its padding.
    """
    size = x.shape[1:3]
    rows, columns = (-(-length // window_size) * config.side for length in size)
    x = F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), (rows, columns)).permute(0, 2, 3, 1)
    for block in blocks:
        x = block(x)
    y = F.interpolate(x.permute(0, 3, 1, 2).float(), size, mode="bilinear")
    return y.permute(0, 2, 3, 1).to(x.dtype)


class PooledImageEncoder(HourglassImageEncoder):
    """SAM's image encoder on averages instead of clusters."""

    def _run_on_fewer(self, x: Tensor, blocks: nn.ModuleList) -> Tensor:
        return run_on_averages(x, blocks, self.window_size, self.config)


# --------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and what is asked about it.

    Attributes:
        frame: RGB uint8 (h, w, 3).
        prompts: One object each.
        truths: Bool (h, w) true masks, one per prompt, where they are known.
    """

    frame: np.ndarray
    prompts: Sequence[Prompt]
    truths: Sequence[np.ndarray] | None = None


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, by name.

    Raises:
        InputError: There are none.
    """
    found = folder.is_dir() and sorted(
        file for file in folder.iterdir() if file.is_file() and is_picture(file)
    )
    if not found:
        raise InputError(f"{folder} is no folder with pictures; give one with some photographs.")
    return found


def grid_prompts(size: tuple[int, int], points: int) -> list[Prompt]:
    """`points` x `points` single points, spread evenly over a frame of `size` (height, width)."""
    at = (np.arange(points) + 0.5) / points
    return [Prompt(points=np.array([[x * size[1], y * size[0]]])) for y in at for x in at]


def read_boxes(path: Path) -> dict[str, list[Prompt]]:
    """Read boxes from a CSV file with the lines `picture,x0,y0,x1,y1`, in pixels, per picture.

    Raises:
        InputError: A line is something else, or the file no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; save it as a CSV file in UTF-8.") from error
    prompts: dict[str, list[Prompt]] = {}
    for number, row in enumerate(csv.reader(lines), 1):
        try:
            picture, *corners = row
            prompt = Prompt(box=np.array([float(corner) for corner in corners]))
        except ValueError as error:
            raise InputError(
                f"Line {number} of {path.name} is no box: picture,x0,y0,x1,y1 is expected."
            ) from error
        prompts.setdefault(picture, []).append(prompt)
    return prompts


def read_samples(
    pictures: Iterable[Path],
    *,
    points: int,
    boxes: Mapping[str, Sequence[Prompt]] | None = None,
    masks: Path | None = None,
) -> Iterator[Sample]:
    """Read pictures one by one, with their prompts.

    Args:
        pictures: Files.
        points: Points per side of a regular grid, if there are neither boxes nor masks.
        boxes: By the name of the picture.
        masks: Folder with a mask of the same stem per picture; the prompt is the box round it.

    Raises:
        InputError: A picture or its mask cannot be read, or a prompt lies outside it.
    """
    for picture in pictures:
        with open_video(picture) as video:
            frame = video[0]
        size = frame.shape[:2]
        if masks is not None:
            truth = load_mask(masks / f"{picture.stem}.png", size=size)
            box = mask_box(truth)
            if box is not None:
                yield Sample(frame, [Prompt(box=box)], [truth])
        elif boxes is None:
            yield Sample(frame, grid_prompts(size, points))
        elif picture.name in boxes:
            yield Sample(frame, boxes[picture.name])


# ----------------------------------------------------------------------------------------- result


@dataclass
class Result:
    """How one way of encoding did; lists have an entry per prompt, `seconds` one per picture."""

    name: str
    seconds: list[float] = field(default_factory=list)
    alike: list[float] = field(default_factory=list)  # IoU with the mask of the first way
    right: list[float] = field(default_factory=list)  # IoU with the true mask


def compare(models: Mapping[str, SamSegmenter], samples: Iterable[Sample]) -> list[Result]:
    """Ask the same of every way to encode a picture; for each prompt the best mask counts.

    The ways take turns picture by picture, so that other work on the machine slows all alike, and
    each begins with a picture that is not timed.

    Args:
        models: Ways to encode by name; the first is what the others are compared with.
        samples: Pictures and prompts.
    """
    results = {name: Result(name) for name in models}
    warm = False
    for sample in samples:
        if not warm:
            for model in models.values():
                model.encode(sample.frame)
            warm = True
        plain: list[Candidate] | None = None
        for name, model in models.items():
            began = time.perf_counter()
            embedding = model.encode(sample.frame)
            embedding.features[0, 0, 0, 0].item()  # waits for a GPU to be done
            results[name].seconds.append(time.perf_counter() - began)
            best = [candidates[0] for candidates in model.predict(embedding, sample.prompts)]
            plain = plain or best
            for index, (found, wanted) in enumerate(zip(best, plain, strict=True)):
                if sample.truths is None and wanted.score < SURE:
                    continue
                results[name].alike.append(region_similarity(found.mask, wanted.mask))
                if sample.truths is not None:
                    results[name].right.append(region_similarity(found.mask, sample.truths[index]))
    return list(results.values())


def with_encoder(segmenter: SamSegmenter, encoder: nn.Module) -> SamSegmenter:
    """A segmenter with another image encoder; it shares all else, and the first is unchanged."""
    twin = copy.copy(segmenter)
    twin.network = copy.copy(segmenter.network)
    twin.network._modules = {**segmenter.network._modules, "image_encoder": encoder}
    return twin


COLUMNS: dict[str, Callable[[Result, Result], str]] = {
    "encoder": lambda result, plain: result.name,
    "seconds per picture": lambda result, plain: f"{np.median(result.seconds):.3f}",
    "times as fast": lambda result, plain: (
        f"{np.median(plain.seconds) / np.median(result.seconds):.2f}"
    ),
    "IoU with plain": lambda result, plain: f"{np.mean(result.alike):.3f}",
    "other mask": lambda result, plain: f"{np.mean(np.array(result.alike) < CHANGED):.1%}",
    "IoU with truth": lambda result, plain: f"{np.mean(result.right):.3f}",
}


def as_table(results: Sequence[Result]) -> list[list[str]]:
    """The titles and a row per result; the first result is the one the others are compared with.

    Raises:
        InputError: There was nothing to compare.
    """
    plain = results[0]
    if not plain.alike:
        raise InputError("There was nothing to compare: the plain model is sure of no mask.")
    titles = [title for title in COLUMNS if plain.right or title != "IoU with truth"]
    return [titles] + [[COLUMNS[title](result, plain) for title in titles] for result in results]


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its first row the titles."""
    rows = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def save_table(table: Sequence[Sequence[str]], path: Path) -> None:
    """Write a table as .md or .csv. The file appears complete or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(table)
    with replacing(path) as part:
        part.write_text(as_markdown(table) if path.suffix == ".md" else text.getvalue())


# ------------------------------------------------------------------------------------------- SAM


def read_setting(text: str) -> HourglassConfig:
    """Read `location,clusters` as in 6,81.

    Raises:
        InputError: It is something else, or cannot be.
    """
    try:
        location, clusters = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"The setting {text!r} is not two numbers: the first block that runs on clusters, "
            "and the clusters per window, as in 6,81."
        ) from None
    side = int(max(clusters, 0) ** 0.5)
    return HourglassConfig(location, clusters, neighbours=min(20, max(1, side**2)))


def fewer_tokens(
    segmenter: SamSegmenter, configs: Sequence[HourglassConfig]
) -> dict[str, SamSegmenter]:
    """SAM as it is ("plain"), and clustered and pooled by each of `configs`; all share weights.

    Raises:
        InputError: A setting does not fit this SAM.
    """
    encoder = segmenter.network.image_encoder
    models = {"plain": segmenter}
    for config in configs:
        setting = f"{config.location}, {config.clusters_per_window}"
        for way, make in (("clustered", HourglassImageEncoder), ("pooled", PooledImageEncoder)):
            models[f"{way} {setting}"] = with_encoder(segmenter, make(encoder, config))
    return models


def check_out(out: Path | None) -> None:
    """Refuse a result file that cannot be written, before hours are spent on what goes into it.

    Raises:
        InputError: It is neither .md nor .csv, or its folder does not exist.
    """
    if out is None:
        return
    if out.suffix not in (".md", ".csv"):
        raise InputError(f"The result {out.name} must end in .md or .csv.")
    if not out.parent.is_dir():
        raise InputError(f"The folder {out.parent} for the result does not exist; make it first.")
