"""The options that published results were made with, where they differ from the defaults."""

from __future__ import annotations

# tracker -> data set -> options of `build_tracker`.
# Sources: MCG-NJU/MixFormerV2 @ 10414383, its experiment files (intervals) and test scripts (search
# factors); MCG-NJU/MixFormer @ f4e759b, tracking/test_mixformer_vit.sh, whose lines for OTB-100 run
# another tracker and are left out; Little-Podi/GRM @ 466ceb7, its experiment files. In benchmark
# mode the update interval is 200 by default, as for the data sets that are not named.
TUNED: dict[str, dict[str, dict[str, float]]] = {
    "mixformerv2_small": {
        "lasot": {"search_factor": 4.4},
        "got10k": {"search_factor": 4.55, "update_interval": 15},
        "trackingnet": {"search_factor": 4.55, "update_interval": 25},
    },
    "mixformerv2_base": {
        "got10k": {"update_interval": 10},
        "trackingnet": {"update_interval": 25},
    },
    "mixvit_base": {
        "lasot": {"search_factor": 5.05},
        "uav123": {"search_factor": 4.7},
    },
    "mixvit_large_384": {
        "lasot": {"search_factor": 4.55},
        "trackingnet": {"search_factor": 4.6},
        "uav123": {"search_factor": 4.7},
    },
    "grm_base": {
        "lasot": {"threshold": 0.4},
        "nfs": {"threshold": 0.6},
        "uav123": {"threshold": 0.55},
    },
}


def tuned_options(tracker: str, dataset: str) -> dict[str, float]:
    """Options of `build_tracker` for a tracker on a data set; empty for the defaults."""
    return dict(TUNED.get(tracker, {}).get(dataset, {}))
