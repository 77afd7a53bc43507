"""What does each recipe cost? Samples per second of its network and teacher, and what follows.

    python -m benchmarks.training_cost --batch 4 --steps 3 --threads 1
    python -m benchmarks.training_cost --device cuda --bf16 --batch 64 --steps 20 stage2a_removal

Random crops and weights, so the input pipeline is left out. Operations are counted on a pass of the
student forwards and one of the teacher; training is taken to cost three times the student's. Memory
is estimated for one of eight processes, in float32: what is kept for gradients, weights, gradients
and AdamW's averages. The peak is the GPU's.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from media.device import resolve_device
from trackers.training import list_recipes, load_recipe, read_values
from trackers.training.config import LossConfig
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


def gigaflops(network: Any) -> float:
    """Of one sample forwards; shapes are enough to count them."""
    meta = torch.device("meta")
    outline = copy.deepcopy(network).to(meta).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        answer(outline, random_batch(network, 1, meta))
    return counter.get_total_flops() / 1e9


def activation_mb(network: Any, config: LossConfig) -> float:
    """What a sample keeps for its gradients in float32, counted on shapes alone."""
    meta = torch.device("meta")
    objective = Objective(copy.deepcopy(network).to(meta).train(), config)
    weights = {p.untyped_storage()._cdata for p in objective.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    batch = random_batch(network, 2, meta)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = objective(batch, None)
    del found
    return sum(kept.values()) / 2 / 1e6


def time_steps(
    objective: Objective,
    teacher: Teacher | None,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    steps: int,
    bf16: bool,
) -> float:
    """Seconds that `steps` steps take, after one to warm up."""
    device = batch.search.device

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
    return time.perf_counter() - began


def parameters_of(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def measure(name: str, batch_size: int, steps: int, device: torch.device, bf16: bool) -> str:
    kinds = list(read_values(name)["data"]["sources"])
    changes = ["init.weights=null", "init.vit=null"]
    if read_values(name).get("teacher"):
        changes.append("teacher.weights=null")
        if name.startswith("small_"):
            changes.append("teacher.options.feat_sz=96")
    recipe = load_recipe(name, [(kind, "-") for kind in kinds], changes)
    network = build_student(recipe).to(device)
    student_flops, teacher_flops, teacher = gigaflops(network), 0.0, None
    if recipe.teacher is not None:
        other = build_teacher(replace(recipe.teacher, weights=None), network).to(device)
        teacher = Teacher(other, recipe.teacher)
        teacher_flops = gigaflops(other)
    objective = Objective(network, recipe.losses).train()
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe.optimizer))
    rate = "-"
    if steps:
        batch = random_batch(network, batch_size, device)
        seconds = time_steps(objective, teacher, optimizer, batch, steps, bf16)
        rate = f"{steps * batch_size / seconds:.1f}"
    samples = recipe.schedule.steps * recipe.schedule.batch_size
    plain = replace(recipe.losses, edges=0.0, features=0.0)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    state = (16 * trained + 4 * (parameters_of(network) - trained)) / 1e9
    if recipe.teacher is not None:
        state += 4 * parameters_of(other) / 1e9
    share = recipe.schedule.batch_size // 8
    estimate = state + share * activation_mb(network, plain) / 1e3
    memory = "-"
    if device.type == "cuda" and steps:
        memory = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB"
    deep = any(p.requires_grad for p in network.get_submodule("backbone").parameters())
    flops = student_flops * (3 if deep else 1) + teacher_flops
    return (
        f"| {name} | {parameters_of(network) / 1e6:.1f} M | {flops:.0f} | {samples / 1e6:.1f} M "
        f"| {samples * flops / 1e9:.2f} | {estimate:.0f} GB | {rate} | {memory} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help="default: all")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="0: count only")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, help="of the CPU; default: as PyTorch chooses")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    print(
        "| recipe | parameters | GFLOP per sample | samples | EFLOP in all "
        "| memory, estimated | samples/s | peak |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in args.recipes or list_recipes():
        print(measure(name, args.batch, args.steps, device, args.bf16), flush=True)


if __name__ == "__main__":
    main()
