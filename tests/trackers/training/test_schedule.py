"""Learning rates and removal follow the official tables."""

from __future__ import annotations

from trackers.training.schedule import removal_coefficient, step_decay


def test_official_tables(golden, check) -> None:
    case = golden("schedules")
    found = [removal_coefficient(int(epoch)) for epoch in case["epoch"]]
    check("schedules removal", found, case["remove_coefficient"], 1e-12)
    assert found[38:] == [0.0] * 7  # exactly gone, not nearly
    for name, rate, drop in (
        ("lr_heads_500ep", 4e-4, 400),
        ("lr_backbone_500ep", 4e-5, 400),
        ("lr_heads_remove45", 4e-4, 400),
        ("lr_backbone_remove45", 4e-5, 400),
        ("lr_score_40ep", 1e-4, 20),
    ):
        rates = [rate * step_decay(i + 1, drop) for i in range(len(case[name]))]
        check("schedules learning rates", rates, case[name], 1e-12)
