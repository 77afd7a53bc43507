"""Is distillation worth something? The whole chain, and a student with and without its teacher.

    python -m benchmarks.distillation chain --data stills=DIR --data tracks=DIR --out DIR
    python -m benchmarks.distillation figure --data stills=DIR --data tracks=DIR --out DIR \\
        --evaluate DIR

`chain` trains the reduced family from end to end: teacher, dense to sparse, twelve blocks to eight,
eight to four with narrow MLPs, score. It does so again with a first teacher that was never trained,
and trains the narrow model a third way, cut off at once in place of faded out. `--scale tiny` does
all that at a size for a CPU.

`figure` takes the bundled MixFormerV2-S for a teacher and two of its four blocks for a student,
which is trained with and without the teacher's edges and features: as many steps, three seeds each.
`shrink` does the same with a quarter of the hidden units, and asks whether it pays to fade out what
is removed in place of cutting it off.

What has been done is not done again: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import checkpoints
from checkpoints.training.processes import Place
from checkpoints.training.saving import read_weights, write_weights
from trackers.base import build_network
from trackers.training import build_recipe, read_values, train
from trackers.training.data import Batches
from trackers.training.distill import (
    importance_on,
    order_hidden_units,
    with_fewer_hidden,
    without_blocks,
)
from trackers.training.objectives import answer
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
# A size that a CPU trains in minutes: 96 pixel crops, 96 channels, bfloat16 stays on.
TINY = {
    "network.options.search_size": 96,
    "network.options.template_size": 48,
    "network.options.dim": 96,
    "network.options.heads": 3,
    "schedule.batch_size": 32,
    "schedule.samples_per_epoch": 320,  # ten steps
    "schedule.warmup_steps": 20,
    "engine.compile": False,
    "engine.ema": 0.98,
    "engine.piece_mb": 0,
    "engine.log_every": 10,
    "engine.save_every_epochs": 1000,
    "data.pipeline": "loader",
    "data.workers": 0,
    "optimizer.lr": 1e-3,
    "optimizer.backbone_lr": 1e-3,
    "validation.samples": 256,
    "validation.every_epochs": 1000,
}
TINY_EPOCHS = (12, 8, 4, 3, 4, 4, 2)
FADED = {3: 4, 5: 4}  # stage to epochs over which it removes


def overrides(settings: dict[str, object]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def run(
    name: str, settings: dict[str, object], data: Data, out: Path, device: str
) -> dict[str, Any]:
    """One stage; or what it came to, if that is known."""
    if not (out / "run.json").exists():
        train(build_recipe(read_values(name), data, overrides(settings)), out, device=device)
    return json.loads((out / "run.json").read_text())


def weights(out: Path) -> str:
    cut = out / "weights.safetensors.index.json"
    return str(cut if cut.exists() else out / "weights.safetensors")


def settings_of(stage: int, tiny: bool, times: int) -> dict[str, object]:
    if not tiny:
        return {}
    found: dict[str, object] = TINY | {"schedule.epochs": times * TINY_EPOCHS[stage - 1]}
    if stage > 1:
        found["network.options.feat_sz"] = 24  # four times as fine as the tokens
    if stage == 2:
        found |= {"teacher.options.dim": 96, "teacher.options.heads": 3}
    if stage in (3, 4, 5, 6):
        found |= {"teacher.options.dim": 96, "teacher.options.heads": 3}
        found |= {"optimizer.lr": 5e-4, "optimizer.backbone_lr": 5e-4}
    if stage in FADED:
        found["schedule.removal_epochs"] = times * FADED[stage]
    if stage == 5:
        found["network.options.kept_hidden"] = 96
    if stage == 6:
        found["init.kept_hidden"] = 96
    return found


def chain(data: Data, out: Path, device: str, tiny: bool, times: int) -> None:
    """Train all stages with a teacher that knows something, and with one that does not."""
    rows = []
    for branch in ("taught", "control"):
        before = places = out / "taught" / CHAIN[0]
        for stage, name in enumerate(CHAIN, 1):
            settings = settings_of(stage, tiny, times)
            places = out / branch / name
            if stage == 1:
                if branch == "control":
                    continue  # the first teacher keeps its random weights
            elif stage == 2:
                known = weights(before) if branch == "taught" else None
                settings |= {"teacher.weights": known, "init.weights": known}
            else:
                settings["init.weights"] = weights(before)
                # The teacher is what stage 2a, 2b, ... started from, before anything was removed.
                if stage in (3, 5):
                    last_whole = before
                if stage < 7:
                    settings["teacher.weights"] = weights(last_whole)
            found = run(name, settings, data, places, device)
            rows.append((branch, name, losses(places), found["figures"]))
            before = places
    eight = out / "taught" / CHAIN[3]
    settings = settings_of(6, tiny, times) | {
        "schedule.epochs": times * sum(TINY_EPOCHS[4:6]) if tiny else 30,
        "init.weights": weights(eight),
        "teacher.weights": weights(eight),
    }
    at_once = out / "at_once"
    found = run(CHAIN[5], settings, data, at_once, device)
    rows.append(("at once", CHAIN[5], losses(at_once), found["figures"]))
    print("| branch | stage | loss, first and last tenth | held-out IoU | IoU > 0.5 | score |")
    print("|---|---|---|---|---|---|")
    for branch, name, (first, last), figures in rows:
        columns = [figures.get(f"held_out_{key}") for key in ("iou", "iou50", "score")]
        shown = " | ".join("-" if value is None else f"{value:.3f}" for value in columns)
        print(f"| {branch} | {name} | {first:.3f} to {last:.3f} | {shown} |")


def losses(out: Path) -> tuple[float, float]:
    """Mean loss of the first and of the last tenth of a run."""
    import csv

    with (out / "log.csv").open(newline="") as file:
        totals = [float(row["total"]) for row in csv.DictReader(file) if row["total"]]
    tenth = max(1, len(totals) // 10)
    return mean(totals[:tenth]), mean(totals[-tenth:])


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


def middle_settings(steps: int, seed: int) -> dict[str, object]:
    """Of a run of `steps` steps, a multiple of ten, with what `middle_of` leaves."""
    return {
        "losses.score": 0.0,
        "optimizer.lr": 3e-4,
        "optimizer.backbone_lr": 3e-4,
        "data.sampler": "causal",
        "data.template_factor": 2.0 * 64 / 112,
        "data.search_factor": 2.25,
        "data.search_center_jitter": 1.0,
        "data.search_scale_jitter": 0.25,
        "data.pipeline": "loader",
        "data.workers": 0,
        "schedule.batch_size": 16,
        "schedule.samples_per_epoch": 160,
        "schedule.epochs": steps // 10,
        "schedule.warmup_steps": 5,
        "engine.seed": seed,
        "engine.compile": False,
        "engine.ema": 0.95,
        "engine.piece_mb": 0,
        "engine.half": False,
        "engine.log_every": 10,
        "engine.save_every_epochs": 1000,
        "validation.samples": 256,
        "validation.every_epochs": 1000,
    }


def lessons(teacher: Path, pairs: list[list[int]]) -> dict[str, object]:
    """The paper's losses of deep-to-shallow distillation, weaker.

    The paper has 5 and 0.2. Of runs of 30 steps with one seed, 5 for the edges did worse than no
    teacher, and these weights did not; tokens of this teacher are large: 84 in square at the start.
    """
    return {
        "teacher": {"name": "mixformerv2_small", "weights": str(teacher)},
        "losses.edges": 1.0,
        "losses.features": 0.001,
        "losses.feature_pairs": pairs,
    }


def cut_off(state: dict[str, torch.Tensor], hidden: int | None = None) -> dict[str, torch.Tensor]:
    """Without blocks 0 and 2, and with fewer hidden units, but with the places of `middle_of`."""
    half = without_blocks(state, (0, 2))
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
        "taught": lessons(whole_file, [[0, 1], [1, 3]]),
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
    hidden = 192
    slim: dict[str, object] = {"network.options": MIDDLE | {"depth": 2, "mlp_ratio": 0.25}}
    slim |= lessons(whole_file, [[0, 1], [1, 3]])
    found: dict[str, list[dict[str, float]]] = {"cut": [], "faded": []}
    for seed in range(42, 42 + seeds):
        cut_file = out / "cut.safetensors"
        if not cut_file.exists():
            write_weights(cut_off(whole, hidden), cut_file)
        settings = middle_settings(steps, seed) | slim | {"init.weights": str(cut_file)}
        place = out / f"cut_{seed}"
        found["cut"].append(measured(place, settings, data, device, evaluate, frames))

        fading = steps // 20 * 10  # half of the steps
        settings = middle_settings(fading, seed) | lessons(whole_file, [[1, 1], [3, 3]])
        settings |= {
            "network.options": MIDDLE | {"removed_blocks": [0, 2], "kept_hidden": hidden},
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
        rows = track(place, settings, data, device, sequences, frames)
        row |= {f"sequences {key}": value for key, value in rows["mean"].items()}
    return row


def compare(before: list[dict[str, float]], after: list[dict[str, float]], *titles: str) -> None:
    """Mean and deviation over seeds; a gain below the larger deviation is none."""
    print(f"| | {' | '.join(titles)} | gain | above both deviations |")
    print("|---|---|---|---|---|")
    for key in before[0]:
        pair = [[row[key] for row in rows] for rows in (before, after)]
        gain = mean(pair[1]) - mean(pair[0])
        cells = [f"{mean(values):.3f} ± {stdev(values):.3f}" for values in pair]
        real = "yes" if abs(gain) > max(map(stdev, pair)) else "no: none"
        print(f"| {key} | {' | '.join(cells)} | {gain:+.3f} | {real} |")


def track(
    place: Path,
    settings: dict[str, object],
    data: Data,
    device: str,
    sequences: Path,
    frames: int,
) -> dict[str, dict[str, float]]:
    """Follow the first frames of each sequence with the result of a run."""
    table = place / "sequences.json"
    if not table.exists():
        recipe = build_recipe(read_values("continue_small"), data, overrides(settings))
        network = build_network(recipe.network.name, **recipe.network.options)
        network.load_state_dict(read_weights(place / "weights.safetensors"))
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
    parser.add_argument("--evaluate", type=Path, help="folder of sequences; not for `chain`")
    parser.add_argument("--frames", type=int, default=200, help="of each sequence at most")
    parser.add_argument("--steps", type=int, default=100, help="of each run; not for `chain`")
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.threads:
        torch.set_num_threads(args.threads)
    data = [tuple(text.split("=", 1)) for text in args.data]
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "chain":
        chain(data, args.out, args.device, args.scale == "tiny", args.times)
    else:
        experiment = figure if args.what == "figure" else shrink
        experiment(data, args.out, args.device, args.evaluate, args.steps, args.seeds, args.frames)


if __name__ == "__main__":
    main()
