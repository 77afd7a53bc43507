"""What does each recipe cost? Samples per second of its network and teacher, and what follows.

    python -m benchmarks.training_cost --batch 4 --steps 3 --threads 1
    python -m benchmarks.training_cost --device cuda --bf16 --batch 64 --steps 20 stage2a_removal

Random crops and weights, so the input pipeline is left out. Operations are counted on a pass of the
student forwards and one of the teacher; training is taken to cost three times the student's. Memory
is the GPU's peak.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from media.device import resolve_device
from trackers.training import list_recipes, load_recipe, read_values
from trackers.training.data import Batch
from trackers.training.networks import build_student, build_teacher, parameter_groups
from trackers.training.objectives import Objective, Teacher, answer


def random_batch(network: Any, size: int, device: torch.device) -> Batch:
    z, x = network.template_size, network.search_size
    template, online, search = (
        torch.randn(size, 3, side, side, device=device) for side in (z, z, x)
    )
    boxes = torch.tensor([0.3, 0.3, 0.3, 0.4], device=device).expand(size, 4)
    return Batch(template, online, search, boxes, torch.ones(size, device=device))


def gigaflops(network: Any, batch: Batch) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        answer(network.eval(), batch)
    return counter.get_total_flops() / 1e9 / len(batch)


def measure(name: str, batch_size: int, steps: int, device: torch.device, bf16: bool) -> str:
    kinds = list(read_values(name)["data"]["sources"])
    changes = ["init.weights=null", "init.vit=null"]
    if read_values(name).get("teacher"):
        changes.append("teacher.weights=null")
        if name.startswith("small_"):
            changes.append("teacher.options.feat_sz=96")
    recipe = load_recipe(name, [(kind, "-") for kind in kinds], changes)
    network = build_student(recipe).to(device)
    batch = random_batch(network, batch_size, device)
    student_flops, teacher_flops, teacher = gigaflops(network, batch), 0.0, None
    if recipe.teacher is not None:
        other = build_teacher(replace(recipe.teacher, weights=None), network).to(device)
        teacher = Teacher(other, recipe.teacher)
        teacher_flops = gigaflops(other, batch)
    objective = Objective(network, recipe.losses).train()
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe.optimizer))

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            lesson = teacher(batch) if teacher is not None else None
            total = objective(batch, lesson)["total"]
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        total.item()  # waits for a GPU to be done

    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    rate = steps * batch_size / (time.perf_counter() - began)
    samples = recipe.schedule.steps * recipe.schedule.batch_size
    memory = "-"
    if device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    trained = any(p.requires_grad for p in network.get_submodule("backbone").parameters())
    flops = student_flops * (3 if trained else 1) + teacher_flops
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    return (
        f"| {name} | {parameters:.1f} M | {flops:.0f} | {samples / 1e6:.1f} M "
        f"| {samples * flops / 1e9:.2f} | {rate:.1f} | {memory} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help="default: all")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    print(
        "| recipe | parameters | GFLOP per sample | samples | EFLOP in all | samples/s | memory |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in args.recipes or list_recipes():
        print(measure(name, args.batch, args.steps, device, args.bf16), flush=True)


if __name__ == "__main__":
    main()
