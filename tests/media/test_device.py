"""Where computation runs."""

from __future__ import annotations

import pytest
import torch

from media import device
from media.device import multiplies_bfloat16


@pytest.mark.parametrize(
    ("flags", "fast"), [(set(), False), ({"avx512f"}, False), ({"avx512_bf16"}, True)]
)
def test_bfloat16_is_for_processors_with_instructions_for_it(
    flags: set[str], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_cpu_flags", lambda: frozenset(flags))
    assert multiplies_bfloat16("cpu") is fast
    assert multiplies_bfloat16(torch.device("cpu")) is fast
