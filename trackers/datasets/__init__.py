"""Annotated sequences, for training and evaluation alike.

dataset = open_dataset("lasot", "/data/LaSOT")
for name in dataset.names:
    sequence = dataset[name]
    frame, box_xywh = sequence[0], sequence.boxes_xywh[0]
"""

from trackers.datasets.base import Dataset, Sequence, dataset_class, list_datasets, open_dataset

__all__ = ["Dataset", "Sequence", "dataset_class", "list_datasets", "open_dataset"]
