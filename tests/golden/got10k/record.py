"""What the GOT-10k toolkit says of result files of ours: figures.json beside this file.

    python -m trackers evaluate folder DIR --tracker mixformerv2_small --out RESULTS
    python record.py DIR RESULTS/mixformerv2_small/folder_all

Runs where `pip install got10k` (0.1.3) has been done, and nothing of this project: the reports of
ExperimentOTB, and of ExperimentGOT10k with every frame shown. DIR holds DragonBaby and Skiing of
OTB-100, which are not ours to hand on; the result files beside this one are.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from got10k.experiments import ExperimentGOT10k, ExperimentOTB
from PIL import Image

HERE = Path(__file__).parent


class Sequences:
    """What the toolkit asks of a data set."""

    return_meta = False

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.seq_names = root, names

    def __len__(self) -> int:
        return len(self.seq_names)

    def __getitem__(self, index: int | str) -> tuple:
        name = index if isinstance(index, str) else self.seq_names[index]
        truth = np.loadtxt(self.root / name / "groundtruth.txt", delimiter=",")
        if not self.return_meta:
            return None, truth
        with Image.open(next((self.root / name / "img").iterdir())) as picture:
            size = picture.size
        return None, truth, {"resolution": str(size), "cover": np.full(len(truth), 8)}


def report(kind: type, sequences: Sequences, results: Path, work: Path) -> dict:
    """One experiment's figures, of files laid out as it wants them."""
    experiment = kind.__new__(kind)
    experiment.dataset, experiment.subset = sequences, "val"
    experiment.nbins_iou, experiment.nbins_ce = (101 if kind is ExperimentGOT10k else 21), 51
    experiment.result_dir, experiment.report_dir = str(work / "results"), str(work / "reports")
    experiment.plot_curves = lambda *_: None
    for name in sequences.seq_names:
        place = work / "results" / "ours"
        boxes, times = f"{name}.txt", f"times/{name}_time.txt"
        if kind is ExperimentGOT10k:
            boxes, times = f"{name}/{name}_001.txt", f"{name}/{name}_time.txt"
        for file, source in ((boxes, f"{name}.txt"), (times, f"{name}_time.txt")):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(place / file, np.loadtxt(results / source), delimiter=",")
    return experiment.report(["ours"])["ours"]


def main(root: Path, results: Path) -> None:
    names = ["otb_DragonBaby", "otb_Skiing"]
    figures: dict = {}
    for kind in (ExperimentOTB, ExperimentGOT10k):
        with tempfile.TemporaryDirectory() as work:
            found = report(kind, Sequences(root, names), results, Path(work))
        figures[kind.__name__] = found
        for row in (found["overall"], *found["seq_wise"].values()):
            row.pop("speed_fps", None)
    (HERE / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    for name in names:
        shutil.copy(results / f"{name}.txt", HERE)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
