"""Exported networks find in ONNX Runtime, by themselves, what the tracker finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import checkpoints
from media import InputError
from tests.trackers.test_multi_tracker import BOXES, moving_frames, tiny
from trackers import build_tracker, onnx_export
from trackers.__main__ import main
from trackers.boxes import clip_xywh, xywh_to_xyxy, xyxy_to_xywh
from trackers.crops import SquareCrop, to_tensor
from trackers.onnx_export import export

SEED = Path(checkpoints.__file__).parent / "mixformerv2_small_seed.safetensors"
pytest.importorskip("onnxscript")


@pytest.mark.parametrize(
    "name", ["mixformerv2_small", pytest.param("mixvit_base", marks=pytest.mark.slow)]
)
def test_any_batch_and_number_of_templates(name: str, tmp_path: Path) -> None:
    tracker = tiny(name)
    exported = export(tracker, "tiny", tmp_path / "new" / "folder")
    assert {"keys", "values", "boxes_cxcywh"} < exported.differences.keys()
    assert max(exported.differences.values()) < 1e-5
    files = sorted(path.name for path in exported.template.parent.iterdir())
    assert files == ["tiny_search.onnx", "tiny_template.onnx"]

    template, search = (
        onnxruntime.InferenceSession(path) for path in (exported.template, exported.search)
    )
    templates, crops = torch.randn(4, 5, 3, 32, 32), torch.randn(4, 3, 64, 64)
    keys, values = template.run(["keys", "values"], {"templates": templates.numpy()})
    assert keys.shape == (2, 4, 3, 5 * 4, 16)
    feed = {"search": crops.numpy(), "keys": keys, "values": values}
    (boxes,) = search.run(["boxes_cxcywh"], feed)
    with torch.inference_mode():
        network = tracker.network
        wanted = network.search(crops, network.encode_templates(templates)).boxes_cxcywh
    np.testing.assert_allclose(boxes, wanted, atol=1e-5)


def test_a_network_that_differs_is_not_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnx_export, "_write", lambda path, *about: path.write_text("a graph"))
    monkeypatch.setattr(onnx_export, "_compare", lambda *about: {"keys": 1e-6, "scores": np.nan})
    with pytest.raises(InputError, match=r"scores of tiny are off by nan.* so nothing is written"):
        export(tiny("mixformerv2_small"), "tiny", tmp_path)
    assert not list(tmp_path.iterdir())


def test_grm_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grm_base cannot be exported: its template and search"):
        export(tiny("grm_base"), "grm_base", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # half a minute of exporting
def test_the_command_exports_a_tracker_that_works(tmp_path: Path, capsys) -> None:
    """A tracker made of nothing but the two files, a crop and its inverse."""
    assert (
        main(["export", "mixformerv2_small", "--weights", str(SEED), "--out", str(tmp_path)]) == 0
    )
    template_path, search_path, found = capsys.readouterr().out.splitlines()
    assert found.startswith("ONNX Runtime's numbers are PyTorch's within ")
    template = onnxruntime.InferenceSession(template_path)
    search = onnxruntime.InferenceSession(search_path)

    frames, box = moving_frames(5), tuple(xyxy_to_xywh(np.array(BOXES[1], np.float64)))
    tracker = build_tracker("mixformerv2_small", device="cpu", weights=SEED, mode="benchmark")
    tracker.initialize(frames[0], BOXES[1])
    crop = SquareCrop.around(box, 2.0, 112).extract(frames[0])
    keys, values = template.run(None, {"templates": to_tensor([crop, crop])[None].numpy()})
    for frame in frames[1:]:
        window = SquareCrop.around(box, 4.5, 224)
        feed = {
            "search": to_tensor([window.extract(frame)]).numpy(),
            "keys": keys,
            "values": values,
        }
        boxes, scores = search.run(["boxes_cxcywh", "scores"], feed)
        box = clip_xywh(window.to_frame(boxes[0, 0]), frame.shape[:2])
        track = tracker.track(frame)
        np.testing.assert_allclose(xywh_to_xyxy(np.array(box)), track.box, atol=1e-2)
        assert 1 / (1 + np.exp(-scores[0])) == pytest.approx(track.score, abs=1e-4)
