"""Look inside MixFormerV2: what its four prediction tokens attend to, and where they see the edges.

To be read downwards: what is seen in one frame, the picture of it, the files.
Paper: Cui et al., "MixFormerV2: Efficient Fully Transformer Tracking", NeurIPS 2023
(arXiv 2305.15896), the visualizations of prediction tokens. Nothing here takes part in tracking:
the attention is worked out a second time, from what `MixFormerV2.search` returns anyway.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from media import InputError
from media.draw import PALETTE
from trackers.base import Track, build_network, build_tracker, list_trackers
from trackers.boxes import cxcywh_to_xyxy
from trackers.crops import SquareCrop, to_tensor
from trackers.models.layers import KeysValues, MixedAttention
from trackers.models.mixformerv2 import MixFormerV2, MixFormerV2Tracker

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EDGES = ("left", "right", "top", "bottom")  # the order of the prediction tokens
_COLORS = dict(zip(EDGES, PALETTE, strict=False))
SIZE = (760, 1280)  # (height, width) of a picture in pixels, even as H.264 has them
_DPI = 100

# ----------------------------------------------------------------------- what is seen in a frame


@dataclass(frozen=True)
class Insight:
    """What the network makes of one search crop; edges in the order left, right, top, bottom."""

    window: SquareCrop  # where on the frame the crop is
    crop: np.ndarray  # uint8 (x, x, 3) RGB
    templates: list[np.ndarray]  # uint8 (z, z, 3) RGB, the first one and k - 1 online ones
    # Share of a token's attention that falls on a patch, mean over the heads. With what the
    # prediction tokens give to each other the shares of a token sum to 1.
    attention: np.ndarray  # float32 (4, n, n) on the search crop
    template_attention: np.ndarray  # float32 (4, k, m, m)
    probabilities: np.ndarray  # float32 (4, feat_sz); bin i stands for the position i / feat_sz
    box_in_crop: np.ndarray  # float32 (4,) x0 y0 x1 y1 as shares of the crop

    @property
    def spread(self) -> np.ndarray:
        """(4,) standard deviation of each edge's distribution as a share of the crop."""
        bins = np.arange(self.probabilities.shape[1]) / self.probabilities.shape[1]
        mean = self.probabilities @ bins
        return np.sqrt((self.probabilities * (bins - mean[:, None]) ** 2).sum(axis=1))


def attention_weights(
    attention: MixedAttention, x: torch.Tensor, context: KeysValues, queries: int
) -> torch.Tensor:
    """How much the last `queries` tokens see of each: what `MixedAttention.cached` does not keep.

    Args:
        attention: of a block.
        x: (b, n, dim) what it is given: search and prediction tokens, normalized.
        context: keys and values of t template tokens.
        queries: how many tokens.

    Returns:
        (b, heads, queries, t + n), each row summing to 1.
    """
    q, k, _ = attention._split_heads(attention.qkv(x))
    q, k = q[:, :, -queries:], torch.cat([context[0], k], dim=2)
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)


@torch.inference_mode()
def look(tracker: MixFormerV2Tracker, frame: np.ndarray, block: int | None = None) -> Insight:
    """See what the network makes of the next frame; the tracker stays as it is.

    Args:
        tracker: initialized.
        frame: (h, w, 3) RGB uint8, the one that is to be tracked next.
        block: whose attention, from 0; None for the last.

    Raises:
        InputError: there is no such block.
    """
    network = tracker.network
    blocks = network.backbone.blocks
    chosen = len(blocks) - 1 if block is None else block
    if not 0 <= chosen < len(blocks):
        raise InputError(f"There is no block {block}; there are 0 to {len(blocks) - 1}.")
    window = tracker._windows()[0]
    crop = window.extract(frame)
    search = to_tensor([crop], tracker.device)
    output = network.search(search, tracker._cache)
    x = output.features[chosen - 1] if chosen else network.backbone.search_tokens(search)
    weights = attention_weights(
        blocks[chosen].attn, blocks[chosen].norm1(x), tracker._cache[chosen], 4
    )
    shares = weights[0].mean(dim=0).float().cpu()  # (4, tokens)
    n, m = (size // 16 for size in (network.search_size, network.template_size))
    templates = [tracker._first, *tracker.templates.online]
    k = len(templates)
    return Insight(
        window=window,
        crop=crop,
        templates=templates,
        attention=shares[:, k * m * m : -4].unflatten(1, (n, n)).numpy(),
        template_attention=shares[:, : k * m * m].unflatten(1, (k, m, m)).numpy(),
        probabilities=output.probabilities[0].float().cpu().numpy(),
        box_in_crop=cxcywh_to_xyxy(output.boxes_cxcywh[0, 0].float().cpu()).numpy(),
    )


# ------------------------------------------------------------------------ the picture of a frame


def draw(frame: np.ndarray, index: int, track: Track, insight: Insight) -> np.ndarray:
    """Draw the frame, the crop with its four distributions, and what the tokens attend to.

    Args:
        frame: (h, w, 3) RGB uint8.
        index: its number, for the title.
        track: what the tracker said about it.
        insight: what `look` said about it.

    Returns:
        (760, 1280, 3) RGB uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: nobody else needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[1] / _DPI, SIZE[0] / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    rows = figure.add_gridspec(
        2, 1, height_ratios=(1.55, 1), left=0.01, right=0.99, top=0.95, bottom=0.01, hspace=0.1
    )
    upper = rows[0].subgridspec(1, 2, width_ratios=(1.45, 1), wspace=0.04)
    _draw_frame(figure.add_subplot(upper[0]), frame, index, track, insight)
    _draw_distributions(figure.add_subplot(upper[1]), insight)
    cells = rows[1].subgridspec(1, 5, wspace=0.06)
    for i, edge in enumerate(EDGES):
        _draw_attention(figure.add_subplot(cells[i]), insight, i, edge)
    _draw_templates([figure.add_subplot(c) for c in _stack(cells[4], insight)], insight)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _stack(cell: Any, insight: Insight) -> list[Any]:
    """Room for the templates: below each other, from three on in columns of two."""
    count = len(insight.templates)
    grid = cell.subgridspec(min(2, count), -(-count // 2), hspace=0.25)
    return [grid[i % 2, i // 2] for i in range(count)]


def _draw_frame(axes: Axes, frame: np.ndarray, index: int, track: Track, insight: Insight) -> None:
    from matplotlib.patches import Rectangle

    height, width = frame.shape[:2]
    window = insight.window
    axes.imshow(frame, extent=(0, width, height, 0))
    x0, y0, x1, y1 = track.box
    for corner, w, h, color, style in (
        ((x0, y0), x1 - x0, y1 - y0, "white", "-"),
        ((window.left, window.top), window.side, window.side, "yellow", ":"),
    ):
        for line, shade in ((3.5, "black"), (1.8, color)):
            axes.add_patch(Rectangle(corner, w, h, fill=False, lw=line, ec=shade, ls=style))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    score = "" if np.isnan(track.score) else f", score {track.score:.2f}"
    state = ", lost" if track.lost else ""
    axes.set_title(f"frame {index}{score}{state}; dotted: where it is searched", fontsize=11)


def _draw_distributions(axes: Axes, insight: Insight) -> None:
    """The crop, and along its sides where the edges of the object are thought to be."""
    from mpl_toolkits.axes_grid1 import make_axes_locatable

    axes.imshow(insight.crop, extent=(0, 1, 1, 0))
    axes.set(xticks=[], yticks=[])
    divider = make_axes_locatable(axes)
    above = divider.append_axes("top", "28%", pad=0.04, sharex=axes)
    beside = divider.append_axes("right", "28%", pad=0.04, sharey=axes)
    bins = np.arange(insight.probabilities.shape[1]) / insight.probabilities.shape[1]
    most = float(insight.probabilities.max())
    positions = dict(zip(EDGES, insight.box_in_crop[[0, 2, 1, 3]], strict=True))
    for edge, p, spread in zip(EDGES, insight.probabilities, insight.spread, strict=True):
        color, at, label = _COLORS[edge], positions[edge], f"{edge}, sd {100 * spread:.0f} %"
        if edge in ("left", "right"):
            above.fill_between(bins, p, color=color, alpha=0.55, lw=1.2, label=label)
            for place in (axes, above):
                place.axvline(at, color=color, lw=1.4, ls="--")
        else:
            beside.fill_betweenx(bins, p, color=color, alpha=0.55, lw=1.2, label=label)
            for place in (axes, beside):
                place.axhline(at, color=color, lw=1.4, ls="--")
    above.set(ylim=(0, 1.05 * most), xticks=[], yticks=[])
    beside.set(xlim=(0, 1.05 * most), xticks=[], yticks=[])
    axes.set(xlim=(0, 1), ylim=(1, 0))
    handles = [*above.get_legend_handles_labels()[0], *beside.get_legend_handles_labels()[0]]
    above.legend(
        handles=handles, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False
    )
    above.set_title("distributions of the edges; dashed: mean", fontsize=11, loc="left")


def _draw_attention(axes: Axes, insight: Insight, i: int, edge: str) -> None:
    share = insight.attention[i]
    _overlay(axes, insight.crop, share)
    x0, y0, x1, y1 = insight.box_in_crop
    line = axes.axvline if edge in ("left", "right") else axes.axhline
    at = {"left": x0, "right": x1, "top": y0, "bottom": y1}[edge]
    line(at, color=_COLORS[edge], lw=1.6, ls="--")
    axes.set_title(f"{edge} token: {100 * share.sum():.0f} % of its attention", fontsize=10)


def _draw_templates(places: Sequence[Axes], insight: Insight) -> None:
    shares = insight.template_attention.mean(axis=0)  # of the four tokens
    for i, (axes, template) in enumerate(zip(places, insight.templates, strict=True)):
        _overlay(axes, template, shares[i])
        name = "online template" if i else "template"
        axes.set_title(f"{name}: {100 * shares[i].sum():.0f} %", fontsize=10)


def _overlay(axes: Axes, picture: np.ndarray, share: np.ndarray) -> None:
    """A heat map over a grey picture, from clear where nothing is to red at its own maximum."""
    whole = (0, 1, 1, 0)
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=whole)
    clear = 0.8 * np.sqrt(share / share.max())
    axes.imshow(share, cmap="turbo", alpha=clear, vmin=0, extent=whole, interpolation="bilinear")
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])


# ------------------------------------------------------------------------------------------ files


def build_explainable(name: str, **options: Any) -> MixFormerV2Tracker:
    """Build a tracker that can be explained.

    Args:
        name: of a tracker.
        options: of `build_tracker`.

    Raises:
        InputError: it has no prediction tokens to look at, or as `build_tracker`.
        checkpoints.CheckpointError: as `build_tracker`.
    """
    with torch.device("meta"):  # shapes, no memory
        able = [n for n in list_trackers() if isinstance(build_network(n), MixFormerV2)]
    if name not in able:
        raise InputError(f"{name} has no prediction tokens to look at; take {' or '.join(able)}.")
    return cast(MixFormerV2Tracker, build_tracker(name, **options))


def explain(
    tracker: MixFormerV2Tracker,
    frames: Iterable[np.ndarray],
    box: Sequence[float],
    *,
    first: int = 0,
    every: int = 1,
    block: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Follow an object and draw how.

    Args:
        tracker: to start anew.
        frames: (h, w, 3) RGB uint8.
        box: x0 y0 x1 y1 on the first of them.
        first: the number of that frame, for titles.
        every: draw each so-manieth frame only.
        block: whose attention, from 0; None for the last.

    Yields:
        The number of a frame and the picture of it, from the second frame on.
    """
    for index, frame in enumerate(frames, first):
        if index == first:
            tracker.initialize(frame, box)
            continue
        wanted = (index - first - 1) % every == 0
        insight = look(tracker, frame, block) if wanted else None
        track = tracker.track(frame)
        if insight is not None:
            yield index, draw(frame, index, track, insight)


def write_pictures(pictures: Iterable[tuple[int, np.ndarray]], out: Path, *, fps: Fraction) -> None:
    """Write a film if `out` ends with .mp4, else a folder of PNG files named by their frames.

    Nothing lies under its final name before all is there.

    Args:
        pictures: numbers, and what `draw` makes; at least one.
        out: the film, or the folder, which is new or empty.
        fps: of the film.

    Raises:
        InputError: it cannot be written there.
    """
    import imageio.v3 as iio  # late, as all that is not needed for tracking

    from media.video import VideoWriter

    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".mp4":
        with VideoWriter(out, size=SIZE, fps=fps) as film:
            for _, picture in pictures:
                film.write(picture)
        return
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already: give a new folder, or a film (.mp4).")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    part.mkdir()
    try:
        for index, picture in pictures:
            iio.imwrite(part / f"{index:05d}.png", picture)
        if out.exists():
            out.rmdir()
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
