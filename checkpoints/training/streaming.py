"""Batches step by step, made by worker processes if wished for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

from media import InputError

Made = TypeVar("Made", covariant=True)


class ByStep(Protocol[Made]):
    """Makes what belongs to a step; it can be handed to worker processes."""

    def __getitem__(self, step: int, /) -> Made: ...


class _Steps:
    """Numbers without end, as a sampler that worker processes may be handed."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        step = self._start
        while True:
            yield step
            step += 1


def stream(maker: ByStep[Made], *, start: int, workers: int, pin_memory: bool) -> Iterator[Made]:
    """Yield maker[start], maker[start + 1], ... without end.

    Args:
        maker: what makes them.
        start: the first step.
        workers: processes that work ahead; 0: none.
        pin_memory: lay tensors where a GPU fetches them faster.

    Raises:
        InputError: as the maker does, the sentence alone.
    """
    if not workers:
        for step in _Steps(start):
            yield maker[step]
    loader: Any = DataLoader(
        maker,  # type: ignore[arg-type]
        batch_size=None,
        sampler=_Steps(start),
        num_workers=workers,
        prefetch_factor=2,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else it would draw from the run's own
    )
    try:
        yield from loader
    except InputError as error:  # from a worker, its traceback in the message
        sentence = str(error).rstrip().splitlines()[-1]
        raise InputError(sentence.partition("InputError: ")[2] or sentence) from error
