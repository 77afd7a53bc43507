"""Is distillation worth something? The whole chain, and a student with and without its teacher.

    python -m benchmarks.distillation chain --data stills=DIR --data tracks=DIR --out DIR
    python -m benchmarks.distillation figure --data stills=DIR --data tracks=DIR --out DIR \\
        --evaluate DIR

`chain` trains the reduced family from end to end: teacher, dense to sparse, twelve blocks to eight,
eight to four with narrow MLPs, score. It does so again from dense to sparse on with the lessons of
a first teacher of random weights (control), and a third time with its random blocks for a start as
well (untrained); and it trains the narrow model cut off at once in place of faded out. With
`--scale tiny` it is the same chain at a size for a CPU: four blocks, three, two, and the first
teacher starts from the blocks of the bundled MixFormerV2-S.

`figure` takes the bundled MixFormerV2-S for a teacher and two of its four blocks for a student,
which is trained with and without the teacher's edges and features: as many steps, three seeds each.
`shrink` does the same with a quarter of the hidden units, and asks whether it pays to fade out what
is removed in place of cutting it off. All three say which difference is above the deviations.

What has been done is not done again: the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import checkpoints
from checkpoints.training.processes import Place
from checkpoints.training.saving import find_weights, read_weights, weights_in, write_weights
from trackers.base import build_network
from trackers.training import build_recipe, read_values, train
from trackers.training.config import Recipe
from trackers.training.data import Batches
from trackers.training.distill import (
    importance_on,
    order_hidden_units,
    with_fewer_hidden,
    without_blocks,
)
from trackers.training.networks import build_student, build_teacher
from trackers.training.objectives import Objective, Teacher, answer
from trackers.training.validation import HeldOut, follow_sequences

Data = list[tuple[str, str]]

CHAIN = (
    "reduced_1_teacher",
    "reduced_2_dense_to_sparse",
    "reduced_3_removal",
    "reduced_4_finetune",
    "reduced_5_small_removal",
    "reduced_6_small_finetune",
    "reduced_7_score",
)
# A CPU trains with it in minutes: the middle of the usual crops at their scale, few samples a step.
ON_A_CPU: dict[str, object] = {
    "network.options.search_size": 112,
    "network.options.template_size": 64,
    "data.template_factor": 2.0 * 64 / 112,
    "data.search_factor": 2.25,
    "data.search_center_jitter": 1.0,
    "data.search_scale_jitter": 0.25,
    "data.pipeline": "loader",
    "data.workers": 0,
    "schedule.batch_size": 16,
    "schedule.samples_per_epoch": 160,  # ten steps
    "engine.compile": False,
    "engine.ema": 0.95,
    "engine.half": False,
    "engine.piece_mb": 0,
    "engine.log_every": 10,
    "engine.save_every_epochs": 1000,
    "validation.samples": 256,
    "validation.every_epochs": 1000,
}
# The tiny chain is as wide as the bundled tracker and has its narrow MLPs.
WIDTH = {"dim": 768, "heads": 12, "mlp_ratio": 1.0}
HIDDEN = 192  # of 768, what is left of them
TINY_EPOCHS = (60, 40, 20, 20, 30, 20, 8)
TINY_FADING = 10  # epochs, of stages 3 and 5
# Of stages 3 to 6; the paper has 5 and 0.2, which `lessons` explains.
WEAKER = {"losses.edges": 1.0, "losses.features": 0.02}
TINY_STAGES: dict[int, dict[str, object]] = {
    1: {
        "init.weights": "mixformerv2_small_seed",
        "init.unused": ["backbone.reg_tokens", "backbone.pos_embed_reg", "box_head", "score_head"],
        "init.new": ["box_head", *(f"backbone.{part}" for part in ("cls", "pos", "norm", "head"))],
        "network.options.depth": 4,
    },
    2: {
        "init.unused": [],
        "init.new": ["box_head.layers.1."],
        "network.options.depth": 4,
        "teacher.options.depth": 4,
    },
    3: {
        "network.options.depth": 4,
        "network.options.removed_blocks": [2],
        "teacher.options.depth": 4,
        "losses.feature_pairs": [[0, 0], [1, 1], [3, 3]],
    },
    4: {
        "network.options.depth": 3,
        "init.removed_blocks": [2],
        "teacher.options.depth": 4,
        "losses.feature_pairs": [[0, 0], [1, 1], [2, 3]],
    },
    5: {
        "network.options.depth": 3,
        "network.options.removed_blocks": [1],
        "network.options.kept_hidden": HIDDEN,
        "teacher.options.depth": 3,
        "losses.feature_pairs": [[0, 0], [2, 2]],
    },
    6: {
        "network.options.depth": 2,
        "network.options.mlp_ratio": 0.25,
        "init.removed_blocks": [1],
        "init.kept_hidden": HIDDEN,
        "teacher.options.depth": 3,
        "losses.feature_pairs": [[0, 0], [1, 2]],
    },
    7: {"network.options.depth": 2, "network.options.mlp_ratio": 0.25},
}


def overrides(settings: dict[str, object]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def run(
    name: str,
    settings: dict[str, object],
    data: Data,
    out: Path,
    device: str,
    minutes: float | None = None,
) -> dict[str, Any]:
    """One stage; or what it came to, if that is known."""
    if not (out / "run.json").exists():
        recipe = build_recipe(read_values(name), data, overrides(settings))
        train(recipe, out, device=device, minutes=minutes)
    return json.loads((out / "run.json").read_text())


def weights(out: Path) -> str:
    return str(weights_in(out))


def settings_of(stage: int, tiny: bool, times: int, seed: int) -> dict[str, object]:
    """What a stage of the chain, counted from 1, has different from its recipe."""
    if not tiny:
        return {"engine.seed": seed}
    found = ON_A_CPU | {"engine.seed": seed, "schedule.epochs": times * TINY_EPOCHS[stage - 1]}
    found |= {"optimizer.lr": 1e-3, "optimizer.backbone_lr": 3e-4, "schedule.warmup_steps": 5}
    found |= {f"network.options.{key}": value for key, value in WIDTH.items()}
    if stage > 1:
        found["network.options.feat_sz"] = 28  # as the teacher's maps: four times as fine as tokens
    if 1 < stage < 7:
        found |= {f"teacher.options.{key}": value for key, value in WIDTH.items()}
    found |= TINY_STAGES[stage]
    if 2 < stage < 7:
        found |= WEAKER
    if stage in (3, 5):
        found["schedule.removal_epochs"] = times * TINY_FADING
    return found


def chain(
    data: Data,
    out: Path,
    device: str,
    tiny: bool,
    times: int,
    seeds: int,
    minutes: float | None = None,
    evaluate: Path | None = None,
    frames: int = 200,
) -> None:
    """Train all stages with a teacher that knows something, and with one that does not."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in range(42, 42 + seeds):
        runs = chain_once(data, out / str(seed), device, tiny, times, seed, minutes)
        for branch, name, place in runs:
            found.setdefault((branch, name), []).append(stage_row(place))
    print(
        "| branch | stage | loss, first and last tenth | by labels | held-out, before and after "
        "| IoU | IoU > 0.5 | score |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for (branch, name), rows in found.items():
        both = (
            ("first", "last"),
            ("first by labels", "last by labels"),
            ("before", "after"),
        )
        fallen = [" to ".join(f"{mean(row[k] for row in rows):.3f}" for k in pair) for pair in both]
        shares = (f"held_out_{key}" for key in ("iou", "iou50", "score"))
        means = [mean(row[key] for row in rows) if key in rows[0] else None for key in shares]
        shown = " | ".join("-" if value is None else f"{value:.3f}" for value in means)
        print(f"| {branch} | {name} | {' | '.join(fallen)} | {shown} |")
    print("\nThe narrow model at the end, mean and deviation over the seeds:\n")
    ends: dict[str, list[dict[str, float]]] = {}
    for branch, folder in (
        ("taught", Path("taught", CHAIN[5])),
        ("control", Path("control", CHAIN[5])),
        ("untrained", Path("untrained", CHAIN[5])),
        ("at once", Path("at_once")),
    ):
        for seed, row in enumerate(found[branch, CHAIN[5]], 42):
            end = {key: row[key] for key in ("held_out_iou", "held_out_iou50")}
            if evaluate is not None:
                settings = settings_of(6, tiny, times, seed)
                place = out / str(seed) / folder
                table = track(place, CHAIN[5], settings, data, device, evaluate, frames)
                end |= {f"sequences {key}": value for key, value in table["mean"].items()}
            ends.setdefault(branch, []).append(end)
    for branch in ("untrained", "control", "at once"):
        compare(ends[branch], ends["taught"], branch, "taught")
        print()


def chain_once(
    data: Data,
    out: Path,
    device: str,
    tiny: bool,
    times: int,
    seed: int,
    minutes: float | None = None,
) -> list[tuple[str, str, Path]]:
    """All stages of all branches with one seed: branch, recipe, and where its run is."""
    done = []
    # Of a few minutes, compiling would take more than it saves.
    hurry = {} if minutes is None else {"engine.compile": False}
    for branch in ("taught", "control", "untrained"):
        before = out / "taught" / CHAIN[0]
        for stage, name in enumerate(CHAIN, 1):
            settings = settings_of(stage, tiny, times, seed)
            if stage in (1, 7) and branch != "taught":
                continue
            place = out / branch / name
            if stage > 1:
                settings["init.weights"] = weights(before)
            if stage == 2:
                if tiny:
                    settings["init.weights"] = str(with_bundled_tokens(before, out))
                if branch == "untrained":
                    settings["init.weights"] = None
                settings["teacher.weights"] = weights(before) if branch == "taught" else None
            elif 2 < stage < 7:
                # The teacher is what stage 2a, 2b, ... started from, before anything was removed.
                if stage in (3, 5):
                    last_whole = before
                settings["teacher.weights"] = weights(last_whole)
            run(name, settings | hurry, data, place, device, minutes)
            before_and_after(name, settings, data, place, device)
            done.append((branch, name, place))
            before = place
    eight = out / "taught" / CHAIN[3]
    settings = settings_of(6, tiny, times, seed) | {
        "schedule.epochs": times * sum(TINY_EPOCHS[4:6]) if tiny else 30,
        "init.weights": weights(eight),
        "teacher.weights": weights(eight),
    }
    both = None if minutes is None else 2 * minutes
    run(CHAIN[5], settings | hurry, data, out / "at_once", device, both)
    before_and_after(CHAIN[5], settings, data, out / "at_once", device)
    return [*done, ("at once", CHAIN[5], out / "at_once")]


def before_and_after(
    name: str, settings: dict[str, object], data: Data, place: Path, device: str
) -> list[float]:
    """A stage's loss on held-out pairs, of what it leaves: with the weights before and after it.

    What it leaves lacks what is removed. Where parts fade out, the loss of the training can only
    rise meanwhile, for a student begins as its teacher's equal; this is the loss that has to fall.
    """
    table = place / "before_and_after.json"
    if not table.exists():
        recipe = build_recipe(read_values(name), data, overrides(settings))
        student: Any = build_student(recipe)
        if getattr(student, "kept_hidden", None) is not None:
            batch = next(iter(Batches(recipe.data, seed=recipe.engine.seed, batch_size=64)))
            found = importance_on(student, lambda: answer(student, batch))
            student.load_state_dict(order_hidden_units(student.state_dict(), found))
        if hasattr(student, "set_removal_coefficient"):
            student.set_removal_coefficient(0.0)
        student.to(device)
        before = held_out_loss(student, recipe, device)
        student.load_state_dict(read_weights(Path(weights(place))))
        table.write_text(json.dumps([before, held_out_loss(student, recipe, device)]))
    return json.loads(table.read_text())


@torch.no_grad()
def held_out_loss(student: Any, recipe: Recipe, device: str) -> float:
    """Mean of all that the recipe asks for, on the pairs that figures are taken on."""
    teacher = None
    if recipe.teacher is not None:
        teacher = Teacher(build_teacher(recipe.teacher, student).to(device), recipe.teacher)
    batches = HeldOut(recipe, Place(0, 1, torch.device(device))).batches
    assert batches is not None, "no data are held out"
    objective = Objective(student, recipe.losses).eval()
    count = max(1, recipe.validation.samples // recipe.schedule.batch_size)
    return mean(
        float(objective(batch, teacher and teacher(batch))["total"])
        for batch in itertools.islice(batches, count)
    )


def with_bundled_tokens(teacher: Path, out: Path) -> Path:
    """A trained MixViT's blocks, and the four tokens of the bundled tracker that go with them.

    From new tokens, which the reduced family begins with, 1,600 samples lead a student no further
    than to the usual place and size of a box.
    """
    file = out / "start.safetensors"
    if not file.exists():
        blocks, tokens = ("patch_embed.", "blocks.", "pos_embed_"), ("reg_tokens", "pos_embed_reg")
        given = read_weights(Path(weights(teacher)))
        state = pick(given, [f"backbone.{part}" for part in blocks])
        bundled = read_weights(find_weights(str(TINY_STAGES[1]["init.weights"])))
        state |= pick(bundled, [*(f"backbone.{part}" for part in tokens), "box_head.layers.0."])
        write_weights(state, file)
    return file


def pick(state: dict[str, torch.Tensor], beginnings: list[str]) -> dict[str, torch.Tensor]:
    """The entries whose keys begin so."""
    return {key: state[key] for key in state if key.startswith(tuple(beginnings))}


def stage_row(place: Path) -> dict[str, float]:
    """Held-out figures of a run, and its mean losses in its first and its last tenth.

    In all, and as far as labels and not the teacher say what is wanted.
    """
    import csv

    with (place / "log.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["total"]]
    found = json.loads((place / "run.json").read_text())["figures"]
    found["before"], found["after"] = json.loads((place / "before_and_after.json").read_text())
    counts = json.loads((place / "recipe.json").read_text())["losses"]
    known = [name for name in ("l1", "ciou", "giou", "score") if rows[0].get(name)]
    tenth = max(1, len(rows) // 10)
    for when, part in (("first", rows[:tenth]), ("last", rows[-tenth:])):
        found[when] = mean(float(row["total"]) for row in part)
        found[f"{when} by labels"] = mean(
            sum(counts[name] * float(row[name]) for name in known) for row in part
        )
    return found


def middle_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The bundled tracker, made to look at the middle of its crops only.

    Half the side of the search crop at the same scale, and 64 of 112 template pixels: tokens know
    their old places, and of 96 bins the 48 in the middle are left. A third of the work, so that a
    CPU trains it, and nothing has to be learnt anew.
    """

    def positions(first: float, side: int) -> torch.Tensor:
        quarter = state["backbone.reg_tokens"].shape[-1] // 4
        omega = 1 / 10000 ** (torch.arange(quarter) / quarter)
        angles = (first + torch.arange(side))[:, None] * omega
        line = torch.cat([angles.sin(), angles.cos()], dim=1)
        return torch.cat([line.repeat(side, 1), line.repeat_interleave(side, 0)], dim=1)[None]

    cut = dict(state)
    cut["backbone.pos_embed_s"] = positions(3.5, 7)  # of 14
    cut["backbone.pos_embed_t"] = positions(1.5, 4)  # of 7
    for key in ("1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"):
        cut[f"box_head.layers.{key}"] = state[f"box_head.layers.{key}"][24:72].clone()
    return cut


MIDDLE = {"search_size": 112, "template_size": 64, "feat_sz": 48}
# Of four blocks the student keeps the first and the last. Without any training the bundled tracker
# has an IoU of 0.33 then (0.66 with all), for 0.01 without blocks 0 and 2.
REMOVED = (1, 2)


def middle_settings(steps: int, seed: int) -> dict[str, object]:
    """Of a run of `steps` steps, a multiple of ten, with what `middle_of` leaves."""
    return ON_A_CPU | {
        "losses.score": 0.0,
        "optimizer.lr": 3e-4,
        "optimizer.backbone_lr": 3e-4,
        "data.sampler": "causal",
        "schedule.epochs": steps // 10,
        "schedule.warmup_steps": 5,
        "engine.seed": seed,
    }


def lessons(teacher: Path, pairs: list[list[int]]) -> dict[str, object]:
    """The paper's losses of deep-to-shallow distillation, weaker.

    The paper has 5 and 0.2. Chosen among four such pairs by runs of 120 steps with a seed of their
    own, on pairs that are not those reported (docs/benchmarks.md).
    """
    return {
        "teacher": {"name": "mixformerv2_small", "weights": str(teacher)},
        "losses.feature_pairs": pairs,
        **WEAKER,
    }


def cut_off(state: dict[str, torch.Tensor], hidden: int | None = None) -> dict[str, torch.Tensor]:
    """Without `REMOVED` blocks, and with fewer hidden units, but the places of `middle_of`."""
    half = without_blocks(state, REMOVED)
    tables = {key: state[key] for key in state if key.endswith(("pos_embed_s", "pos_embed_t"))}
    return (half if hidden is None else with_fewer_hidden(half, hidden)) | tables


def whole_middle(out: Path, data: Data) -> tuple[Path, dict[str, torch.Tensor]]:
    """The teacher, as a file and as tensors; its hidden units are in order of importance."""
    state = middle_of(read_weights(checkpoints.path("mixformerv2_small_seed")))
    network = build_network("mixformerv2_small", **MIDDLE)
    network.load_state_dict(state)
    settings = middle_settings(10, 42) | {"network.options": MIDDLE, "schedule.batch_size": 64}
    recipe = build_recipe(read_values("continue_small"), data, overrides(settings))
    batch = next(iter(Batches(recipe.data, seed=42, batch_size=64)))
    importance = importance_on(network, lambda: answer(network, batch))
    state = dict(order_hidden_units(state, importance))
    file = out / "whole.safetensors"
    if not file.exists():
        write_weights(state, file)
    return file, state


def figure(
    data: Data, out: Path, device: str, evaluate: Path | None, steps: int, seeds: int, frames: int
) -> None:
    """Train half of the bundled tracker, with and without the whole one as a teacher."""
    whole_file, whole = whole_middle(out, data)
    half_file = out / "half.safetensors"
    if not half_file.exists():
        write_weights(cut_off(whole), half_file)
    half = {"network.options": MIDDLE | {"depth": 2}, "init.weights": str(half_file)}
    arms: dict[str, dict[str, object]] = {
        "alone": {},
        "taught": lessons(whole_file, [[0, 0], [1, 3]]),
    }
    runs = {
        (arm, seed): middle_settings(steps, seed) | half | changes
        for seed in range(42, 42 + seeds)
        for arm, changes in arms.items()
    }
    for (arm, seed), settings in runs.items():
        run("continue_small", settings, data, out / f"{arm}_{seed}", device)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for (arm, seed), settings in runs.items():
        place = out / f"{arm}_{seed}"
        found[arm].append(measured(place, settings, data, device, evaluate, frames))
    for name, file, depth in (
        ("teacher", whole_file, 4),
        ("student before training", half_file, 2),
    ):
        settings = middle_settings(steps, 42) | {"network.options": MIDDLE | {"depth": depth}}
        recipe = build_recipe(read_values("continue_small"), data, overrides(settings))
        network = build_network(recipe.network.name, **recipe.network.options)
        network.load_state_dict(read_weights(file))
        network.to(device)
        row = HeldOut(recipe, Place(0, 1, torch.device(device)))(network)
        if evaluate is not None:
            row |= follow_sequences(network, recipe, evaluate, frames=frames)["mean"]
        print(name, {key: round(value, 3) for key, value in row.items()})
    compare(found["alone"], found["taught"], "without the teacher", "with KL and features")


def shrink(
    data: Data, out: Path, device: str, evaluate: Path | None, steps: int, seeds: int, frames: int
) -> None:
    """Half the blocks and a quarter of the hidden units: faded out, or cut off at once."""
    whole_file, whole = whole_middle(out, data)
    hidden = HIDDEN
    slim: dict[str, object] = {"network.options": MIDDLE | {"depth": 2, "mlp_ratio": 0.25}}
    slim |= lessons(whole_file, [[0, 0], [1, 3]])
    found: dict[str, list[dict[str, float]]] = {"cut": [], "faded": []}
    for seed in range(42, 42 + seeds):
        cut_file = out / "cut.safetensors"
        if not cut_file.exists():
            write_weights(cut_off(whole, hidden), cut_file)
        settings = middle_settings(steps, seed) | slim | {"init.weights": str(cut_file)}
        place = out / f"cut_{seed}"
        found["cut"].append(measured(place, settings, data, device, evaluate, frames))

        fading = steps // 20 * 10  # half of the steps
        settings = middle_settings(fading, seed) | lessons(whole_file, [[0, 0], [3, 3]])
        settings |= {
            "network.options": MIDDLE | {"removed_blocks": REMOVED, "kept_hidden": hidden},
            "init.weights": str(whole_file),
            "schedule.removal_epochs": fading // 10,
        }
        place = out / f"fading_{seed}"
        run("continue_small", settings, data, place, device)
        faded_file = out / f"faded_{seed}.safetensors"
        if not faded_file.exists():
            write_weights(cut_off(read_weights(place / "weights.safetensors"), hidden), faded_file)
        settings = middle_settings(steps - fading, seed) | slim
        settings |= {"init.weights": str(faded_file), "engine.seed": seed + 1000}
        place = out / f"faded_{seed}"
        found["faded"].append(measured(place, settings, data, device, evaluate, frames))
    compare(found["cut"], found["faded"], "cut off at once", "faded out")


def measured(
    place: Path,
    settings: dict[str, object],
    data: Data,
    device: str,
    sequences: Path | None,
    frames: int,
) -> dict[str, float]:
    """Figures of a run on held-out pairs and on sequences."""
    figures = run("continue_small", settings, data, place, device)["figures"]
    row = {key: figures[key] for key in ("held_out_iou", "held_out_iou50")}
    if sequences is not None:
        rows = track(place, "continue_small", settings, data, device, sequences, frames)
        row |= {f"sequences {key}": value for key, value in rows["mean"].items()}
    return row


def compare(before: list[dict[str, float]], after: list[dict[str, float]], *titles: str) -> None:
    """Mean and deviation over seeds; a gain below the larger deviation, or of one seed, is none."""
    print(f"| | {' | '.join(titles)} | gain | above both deviations |")
    print("|---|---|---|---|---|")
    for key in before[0]:
        pair = [[row[key] for row in rows] for rows in (before, after)]
        gain = mean(pair[1]) - mean(pair[0])
        spread = [stdev(values) if len(values) > 1 else math.inf for values in pair]
        cells = [f"{mean(v):.3f} ± {d:.3f}" for v, d in zip(pair, spread, strict=True)]
        real = "yes" if abs(gain) > max(spread) else "no: none"
        print(f"| {key} | {' | '.join(cells)} | {gain:+.3f} | {real} |")


def track(
    place: Path,
    name: str,
    settings: dict[str, object],
    data: Data,
    device: str,
    sequences: Path,
    frames: int,
) -> dict[str, dict[str, float]]:
    """Follow the first frames of each sequence with the result of a run."""
    table = place / "sequences.json"
    if not table.exists():
        recipe = build_recipe(read_values(name), data, overrides(settings))
        network = build_network(recipe.network.name, **recipe.network.options)
        network.load_state_dict(read_weights(Path(weights(place))))
        rows = follow_sequences(network.to(device), recipe, sequences, frames=frames)
        table.write_text(json.dumps(rows, indent=1))
    return json.loads(table.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["chain", "figure", "shrink"])
    parser.add_argument("--data", action="append", required=True, metavar="KIND=PATH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", choices=["tiny", "reduced"], default="tiny")
    parser.add_argument("--times", type=int, default=1, help="as long, for `chain --scale tiny`")
    parser.add_argument("--minutes", type=float, help="squeeze each run of `chain` into so many")
    parser.add_argument("--evaluate", type=Path, help="folder of sequences")
    parser.add_argument("--frames", type=int, default=200, help="of each sequence at most")
    parser.add_argument("--steps", type=int, default=100, help="of each run; not for `chain`")
    parser.add_argument("--seeds", type=int, default=3, help="for a deviation at least 2")
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.threads:
        torch.set_num_threads(args.threads)
    data = [tuple(text.split("=", 1)) for text in args.data]
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "chain":
        chain(
            data,
            args.out,
            args.device,
            args.scale == "tiny",
            args.times,
            args.seeds,
            args.minutes,
            args.evaluate,
            args.frames,
        )
    else:
        experiment = figure if args.what == "figure" else shrink
        experiment(data, args.out, args.device, args.evaluate, args.steps, args.seeds, args.frames)


if __name__ == "__main__":
    main()
