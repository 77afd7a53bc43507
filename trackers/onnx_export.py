"""Write a tracker's network as two ONNX graphs, for programs without PyTorch.

    NAME_template.onnx   templates (b, n, 3, z, z)              -> keys, values
    NAME_search.onnx     search (b, 3, x, x), keys, values      -> boxes_cxcywh, scores, ...

`templates` are the template and any number of online templates; keys and values, (blocks, b, heads,
tokens, dim / heads), are good until a template changes. Crops are cut as by `SquareCrop` and
normalised as by `to_tensor`. What comes out of a search bears the names of the network's output,
where its meaning is explained. Batch and number of templates are free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from media import InputError
from trackers.base import Tracker

TOLERANCE = 1e-4
"""How far ONNX Runtime's numbers may be from PyTorch's, in shares of the largest one or of 1."""


@dataclass(frozen=True)
class Exported:
    """The two files, and how well they do."""

    template: Path
    search: Path
    differences: dict[str, float]  # of each output from PyTorch's, as `TOLERANCE`


class _Template(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, templates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cache = self.network.encode_templates(templates)
        return torch.stack([keys for keys, _ in cache]), torch.stack([v for _, v in cache])


class _Search(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def outputs(
        self, search: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        cache = list(zip(keys.unbind(0), values.unbind(0), strict=True))
        found = vars(self.network.search(search, cache))
        return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}

    def forward(
        self, search: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return tuple(self.outputs(search, keys, values).values())


@torch.no_grad()
def export(tracker: Tracker, name: str, out: Path) -> Exported:
    """Write both graphs of a tracker's network, and run them against it.

    Args:
        tracker: a MixFormerV2 or MixViT, not `fast`, on the CPU.
        name: what the files' names begin with.
        out: folder for them; made if need be.

    Raises:
        InputError: the network does not encode templates by themselves, the package onnxscript is
            missing, or ONNX Runtime finds something else than PyTorch; nothing is written then.
    """
    network = getattr(tracker, "network", None)
    if not hasattr(network, "encode_templates"):
        raise InputError(
            f"{name} cannot be exported: its template and search crop are only encoded together."
        )
    try:
        import onnxscript  # noqa: F401  which torch.onnx needs
    except ImportError:
        raise InputError("Export needs one more package: pip install onnxscript.") from None
    out.mkdir(parents=True, exist_ok=True)
    template, search = out / f"{name}_template.onnx", out / f"{name}_search.onnx"
    parts = [path.with_name(path.name + ".part") for path in (template, search)]
    try:
        templates, crops = _inputs(network, batch=2, templates=3)
        cache = dict(zip(("keys", "values"), _Template(network)(templates), strict=True))
        outputs = _Search(network).outputs(crops, **cache)
        free = {"templates": {0: "batch", 1: "templates"}, "search": {0: "batch"}}
        free |= {key: {1: "batch", 3: "tokens"} for key in cache}
        free |= {key: {0: "batch"} for key in outputs}
        _write(parts[0], _Template(network), {"templates": templates}, cache, free)
        _write(parts[1], _Search(network), {"search": crops} | cache, outputs, free)
        differences = _compare(network, parts)
        worst = max(differences, key=lambda output: np.nan_to_num(differences[output], nan=np.inf))
        if not differences[worst] < TOLERANCE:
            raise InputError(
                f"In ONNX Runtime {worst} of {name} are off by {differences[worst]:.1e}, more than "
                f"{TOLERANCE:.0e}, so nothing is written; are these weights of a trained network?"
            )
        for part, path in zip(parts, (template, search), strict=True):
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return Exported(template, search, differences)


def _inputs(network: Any, *, batch: int, templates: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(batch)
    z, x = network.template_size, network.search_size
    return (
        torch.randn(batch, templates, 3, z, z, generator=random),
        torch.randn(batch, 3, x, x, generator=random),
    )


def _write(
    path: Path,
    graph: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, torch.Tensor],
    free: Mapping[str, Mapping[int, str]],
) -> None:
    shapes = [{axis: torch.export.Dim.DYNAMIC for axis in free[key]} for key in inputs]
    program = torch.onnx.export(
        graph.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=tuple(shapes),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)


def _compare(network: Any, paths: Sequence[Path]) -> dict[str, float]:
    """Run the graphs at sizes they were not written with. Returns the largest differences."""
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths
    ]
    largest: dict[str, float] = {}
    for batch, count in ((1, 2), (3, 1), (2, 4)):
        templates, crops = _inputs(network, batch=batch, templates=count)
        keys, values = _Template(network)(templates)
        wanted = {"keys": keys, "values": values} | _Search(network).outputs(crops, keys, values)
        cache = _run(sessions[0], {"templates": templates.numpy()})
        found = cache | _run(sessions[1], {"search": crops.numpy()} | cache)
        for name, tensor in wanted.items():
            reference = tensor.numpy()
            difference = np.abs(found[name] - reference).max() / max(1, np.abs(reference).max())
            largest[name] = max(largest.get(name, 0.0), float(difference))
    return largest


def _run(session: Any, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
