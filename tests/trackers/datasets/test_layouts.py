"""Each reader on a miniature tree in the layout of the data set's authors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from media import InputError
from trackers.datasets import Sequence, list_datasets, open_dataset

Write = Callable[[str, str], Path]
Draw = Callable[[str, Iterable[int]], None]


def lines(n: int, form: str = "{},2,3,4") -> str:
    """n boxes; x is the number of the box from 0."""
    return "".join(form.format(i) + "\n" for i in range(n))


def numbers(sequence: Sequence) -> list[int]:
    return [int(path.stem) for path in sequence.frames]


def test_all_are_registered() -> None:
    assert list_datasets() == [
        "folder", "got10k", "imagenet_vid", "lasot", "lasot_ext", "nfs", "otb100", "tc128",
        "tnl2k", "trackingnet", "uav123",
    ]  # fmt: skip


def test_folder(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("b10/img/{}.png", [1, 2, 10])
    write("b10/groundtruth.txt", "1,2,3,4\nnan,nan,nan,nan\n1 2\t3,0\n\n")
    draw("b9/img/{}.jpg", [1])
    write("b9/groundtruth.txt", "1,2,3,4")
    draw("davis/JPEGImages/{:05d}.jpg", [0, 1])
    write("davis/groundtruth.txt", lines(2))
    write("notes/readme.txt", "no sequence")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.names == ("b9", "b10", "davis") and len(dataset) == 3
    assert numbers(dataset["davis"]) == [0, 1]
    assert dataset.title == tmp_path.name
    sequence = dataset["b10"]
    assert numbers(sequence) == [1, 2, 10]
    assert sequence[2].shape == (12, 16, 3) and sequence[2][0, 0].tolist() == [100, 0, 0]
    assert sequence.boxes_xywh[0].tolist() == [1, 2, 3, 4]
    assert sequence.visible.tolist() == [True, False, False]


def test_lasot(tmp_path: Path, write: Write, draw: Draw) -> None:
    for name in ("airplane-1", "airplane-2"):
        draw(f"airplane/{name}/img/{{:08d}}.jpg", range(1, 5))
        write(f"airplane/{name}/groundtruth.txt", "1,2,3,4\n" * 3 + "0,0,0,0\n")
        write(f"airplane/{name}/full_occlusion.txt", "0,1,0,0")
        write(f"airplane/{name}/out_of_view.txt", "0,0,1,0\n")
    test = open_dataset("lasot", tmp_path)
    assert len(test) == 280 and test.names[0] == "airplane-1" and "airplane-2" not in test.names
    sequence = test["airplane-1"]
    assert sequence.visible.tolist() == [True, False, False, False]
    assert sequence.shown is not None and sequence.shown.tolist() == [True, False, False, True]
    assert open_dataset("lasot", tmp_path, split="train").names == ("airplane-2",)
    with pytest.raises(InputError, match=r"The folder .*basketball-1/img is missing"):
        test["basketball-1"]
    write("testing_set.txt", "airplane-2\n")
    write("training_set.txt", "airplane-1\n")
    assert open_dataset("lasot", tmp_path).names == ("airplane-2",)
    assert open_dataset("lasot", tmp_path, split="train").names == ("airplane-1",)
    write("airplane/airplane-1/out_of_view.txt", "0,0,1")
    with pytest.raises(InputError, match=r"4 labels in full_occlusion.txt but 3 in out_of_view"):
        test["airplane-1"]


def test_lasot_ext(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("atv/atv-1/img/{:08d}.jpg", [1, 2])
    write("atv/atv-1/groundtruth.txt", lines(2))
    write("atv/atv-1/full_occlusion.txt", "0,0")
    write("atv/atv-1/out_of_view.txt", "0,1")
    dataset = open_dataset("lasot_ext", tmp_path)
    assert dataset.names == ("atv-1",) and dataset["atv-1"].visible.tolist() == [True, False]


def test_got10k(tmp_path: Path, write: Write, draw: Draw) -> None:
    for split, name in (("test", "GOT-10k_Test_000001"), ("val", "GOT-10k_Val_000001")):
        write(f"{split}/list.txt", name + "\n")
        draw(f"{split}/{name}/{{:08d}}.jpg", range(1, 4))
    write("test/GOT-10k_Test_000001/groundtruth.txt", "1.5,2,3,4\n")
    val = "val/GOT-10k_Val_000001"
    write(f"{val}/groundtruth.txt", lines(3, "{},2.0000,3.0000,4.0000"))
    write(f"{val}/cover.label", "8\n0\n3\n")
    write(f"{val}/meta_info.ini", "[METAINFO]\nurl: x\nresolution: (1920, 1080)\n")
    test = open_dataset("got10k", tmp_path)
    assert test.split == "test" and test.hidden
    sequence = test["GOT-10k_Test_000001"]
    assert len(sequence) == 3 and sequence.boxes_xywh.tolist() == [[1.5, 2, 3, 4]]
    dataset = open_dataset("got10k", tmp_path, split="val")
    sequence = dataset["GOT-10k_Val_000001"]
    assert not dataset.hidden and sequence.size == (1080, 1920)
    assert sequence.visible.tolist() == [True, False, True]
    assert sequence.boxes_xywh[2].tolist() == [2, 2, 3, 4]
    with pytest.raises(InputError, match=r"train/list.txt is missing"):
        open_dataset("got10k", tmp_path, split="train")


def test_trackingnet(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("TEST/frames/abc_0/{}.jpg", range(12))
    write("TEST/anno/abc_0.txt", "1,2,3,4")
    draw("TRAIN_3/frames/def_1/{}.jpg", range(2))
    write("TRAIN_3/anno/def_1.txt", lines(2))
    test = open_dataset("trackingnet", tmp_path)
    assert test.hidden and test.names == ("abc_0",)
    assert numbers(test["abc_0"]) == list(range(12))
    train = open_dataset("trackingnet", tmp_path, split="train")
    assert not train.hidden and train.names == ("def_1",) and len(train["def_1"].visible) == 2


def test_otb100(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("Skating2/img/{:04d}.jpg", [1, 2])
    write("Skating2/groundtruth_rect.1.txt", lines(2))
    write("Skating2/groundtruth_rect.2.txt", lines(2, "{}\t9\t3\t4"))
    draw("Human4/img/{:04d}.jpg", [1])
    write("Human4/groundtruth_rect.1.txt", "\r\n")
    write("Human4/groundtruth_rect.2.txt", lines(1))
    draw("David/img/{:04d}.png", range(299, 772))
    write("David/groundtruth_rect.txt", lines(471, "{} 2 3 4"))
    draw("Tiger1/img/{:04d}.jpg", range(1, 8))
    write("Tiger1/groundtruth_rect.txt", lines(7))
    dataset = open_dataset("otb100", tmp_path)
    assert dataset.names == ("David", "Human4_2", "Skating2_1", "Skating2_2", "Tiger1")
    assert dataset["Skating2_2"].boxes_xywh[1].tolist() == [1, 9, 3, 4]
    david, tiger = numbers(dataset["David"]), dataset["Tiger1"]
    assert (david[0], david[-1]) == (300, 770)
    assert numbers(tiger) == [6, 7] and tiger.boxes_xywh[:, 0].tolist() == [5, 6]


def test_uav123(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("data_seq/UAV123/uav1/{:06d}.png", range(1553, 2380))
    write("anno/UAV123/uav1_2.txt", "1,2,3,4\n" + "NaN,NaN,NaN,NaN\n" * 822)
    dataset = open_dataset("uav123", tmp_path)
    assert len(dataset) == 123
    sequence = dataset["uav1_2"]
    assert (numbers(sequence)[0], numbers(sequence)[-1]) == (1555, 2377)
    assert sequence.visible.sum() == 1


@pytest.mark.parametrize(("rate", "labels", "used"), [(30, 3, 3), (30, 24, 3), (30, 4, 3)])
def test_nfs(rate: int, labels: int, used: int, tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("Gymnastics/30/Gymnastics/{:05d}.jpg", [1, 2, 3])
    write("Gymnastics/30/Gymnastics.txt", lines(labels, '0 {} 20 110 70 5 0 0 0 "man"'))
    sequence = open_dataset("nfs", tmp_path)["Gymnastics"]
    step = labels // used if labels > 4 else 1
    assert len(sequence) == used
    assert sequence.boxes_xywh[2].tolist() == [2 * step, 20, 110 - 2 * step, 50]


def test_nfs_refuses_other_files(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("run/30/run/{:05d}.jpg", [1])
    write("run/30/run.txt", "0 1 2 3\n")
    with pytest.raises(InputError, match=r"Line 1 of .*run.txt is not `id x0 y0 x1 y1"):
        open_dataset("nfs", tmp_path)["run"]


def test_tc128(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("Airport_ce/img/{:04d}.jpg", range(1, 9))
    write("Airport_ce/Airport_ce_frames.txt", "3,5\n")
    write("Airport_ce/Airport_ce_gt.txt", lines(3))
    assert numbers(open_dataset("tc128", tmp_path)["Airport_ce"]) == [3, 4, 5]
    write("Airport_ce/Airport_ce_frames.txt", "3\n")
    with pytest.raises(InputError, match="not a first and a last frame number"):
        open_dataset("tc128", tmp_path)["Airport_ce"]


def test_tnl2k(tmp_path: Path, write: Write, draw: Draw) -> None:
    draw("Cartoon_01/imgs/{:05d}.png", [1, 2])
    write("Cartoon_01/groundtruth.txt", lines(2))
    write("Cartoon_01/language.txt", "the left man")
    assert len(open_dataset("tnl2k", tmp_path)["Cartoon_01"]) == 2


# ------------------------------------------------------------------------------------ what is wrong


def test_unknown_names_say_what_there_is(tmp_path: Path, write: Write) -> None:
    with pytest.raises(InputError, match=r"no data set called 'vot'; there are folder, got10k"):
        open_dataset("vot", tmp_path)
    with pytest.raises(InputError, match=r"LaSOT has no split 'val'; there are test, train"):
        open_dataset("lasot", tmp_path, split="val")
    with pytest.raises(InputError, match="There is no folder"):
        open_dataset("lasot", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no sequence of OTB-100: NAME/img/0001.jpg"):
        open_dataset("otb100", tmp_path)


def test_a_list_chooses_and_orders(tmp_path: Path, write: Write, draw: Draw) -> None:
    for name in ("a", "b", "c"):
        draw(f"{name}/img/{{}}.png", [1])
        write(f"{name}/groundtruth.txt", "1,2,3,4")
    chosen = write("list.txt", "# two of them\nc\n\na\nc\n")
    assert open_dataset("folder", tmp_path, sequences=chosen).names == ("c", "a")
    with pytest.raises(InputError, match="no sequence d in the all split"):
        open_dataset("folder", tmp_path, sequences=write("list.txt", "a\nd\n"))
    with pytest.raises(InputError, match="names no sequence"):
        open_dataset("folder", tmp_path, sequences=write("list.txt", "# none\n"))
    with pytest.raises(InputError, match="is missing or is not a text file"):
        open_dataset("folder", tmp_path, sequences=tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("truth", "sentence"),
    [
        ("1,2,3,4\n1,2,3,4\n", "has 3 frames but 2 lines of ground truth; one line per frame"),
        ("1,2,3,4\n" * 4, "has 3 frames but 4 lines"),
        ("", "has 3 frames but 0 lines"),
        ("1,2,3\n1,2,3,4\n1,2,3,4\n", r"Line 1 of .*groundtruth.txt is not a box of four numbers"),
        ("1,2,3,4\n\n1,2,3,4\n", r"Line 2 of .* is not a box"),
        ("1,2,3,4\n1,2,three,4\n1,2,3,4\n", "'1,2,three,4'"),
        ("nan,nan,nan,nan\n1,2,3,4\n1,2,3,4\n", "begins with an empty box"),
    ],
)
def test_ground_truth_that_does_not_fit(
    truth: str, sentence: str, tmp_path: Path, write: Write, draw: Draw
) -> None:
    draw("s/img/{}.png", [1, 2, 3])
    write("s/groundtruth.txt", truth)
    with pytest.raises(InputError, match=sentence):
        open_dataset("folder", tmp_path)["s"]


def test_empty_sequence_and_damaged_frames(tmp_path: Path, write: Write, draw: Draw) -> None:
    (tmp_path / "s" / "img").mkdir(parents=True)
    write("s/groundtruth.txt", "1,2,3,4\n")
    with pytest.raises(InputError, match="The sequence s has no frames"):
        open_dataset("folder", tmp_path)["s"]
    write("s/img/0001.jpg", "not a picture")
    sequence = open_dataset("folder", tmp_path)["s"]
    with pytest.raises(InputError, match=r"0001.jpg is missing or damaged"):
        sequence[0]
    write("s/img/0001.jpg", "")
    with pytest.raises(InputError, match=r"0001.jpg is missing or damaged"):
        sequence[0]


def test_labels_have_to_fit_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 boxes, but labels of what can be seen for 3 frames"):
        Sequence("s", (tmp_path, tmp_path), np.ones((2, 4)), np.ones(3, bool))
