"""Training samples: clips with moving holes, the same ones for the same seed and step.

config = DataConfig(clips=("/data/clips",), size=(240, 432))
for batch in Batches(config, "train", seed=1, batch_size=8):
    net(batch.masked, batch.num_local)
"""

from inpainting.training.data.batches import Batch, Batches
from inpainting.training.data.clips import Clip, find_clips
from inpainting.training.data.config import DataConfig, HoleConfig
from inpainting.training.data.sheet import draw_sheet

__all__ = ["Batch", "Batches", "Clip", "DataConfig", "HoleConfig", "draw_sheet", "find_clips"]
