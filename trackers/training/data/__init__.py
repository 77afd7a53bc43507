"""Training samples: from data sets and packed shards to batches on a device.

config = DataConfig(sources=(SourceConfig("stills", "/data/stills"),))
for batch in Batches(config, seed=1, batch_size=32):
    net(batch.template, batch.online_template, batch.search)
"""

from trackers.training.data.batches import Batch, Batches
from trackers.training.data.config import DataConfig, Deformation, SourceConfig
from trackers.training.data.sheet import draw_batch
from trackers.training.data.sources import (
    LAYOUTS,
    PACKED,
    Source,
    find_sources,
    list_kinds,
    open_sources,
)

__all__ = [
    "LAYOUTS",
    "PACKED",
    "Batch",
    "Batches",
    "DataConfig",
    "Deformation",
    "Source",
    "SourceConfig",
    "draw_batch",
    "find_sources",
    "list_kinds",
    "open_sources",
]
