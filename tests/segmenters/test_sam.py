from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, build_sam_vit_b
from segment_anything.modeling import Sam

from media import InputError
from segmenters import Candidate, Embedding, Prompt, build_segmenter
from segmenters.sam import SamSegmenter

SIZES = [(90, 160), (200, 120), (1100, 64)]  # wide, tall, larger than the model's 1024
BOX = np.array([10.0, 20.0, 50.0, 70.0])
POINTS = np.array([[30.0, 40.0], [12.5, 60.0]])
LOGITS = np.linspace(-4, 4, 256 * 256, dtype=np.float32).reshape(256, 256)
PROMPTS = {
    "box": Prompt(box=BOX),
    "another box": Prompt(box=BOX + 3),
    "point": Prompt(points=POINTS[:1]),
    "points": Prompt(points=POINTS, labels=np.array([1, 0])),
    "points and box": Prompt(box=BOX, points=POINTS, labels=np.array([1, 0])),
    "box refined": Prompt(box=BOX, mask_logits=LOGITS),
    "mask alone": Prompt(mask_logits=LOGITS),
}


def frame(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def same(answers: list[Candidate], others: list[Candidate], tolerance: float = 1e-4) -> bool:
    """Batches of another length sum in another order, so not to the last bit."""
    return all(
        np.abs(a.logits - b.logits).max() < tolerance and abs(a.score - b.score) < tolerance
        for a, b in zip(answers, others, strict=True)
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_answers_are_those_of_sam_predictor(
    small: SamSegmenter, small_sam: Sam, size: tuple[int, int]
) -> None:
    image = frame(size)
    predictor = SamPredictor(small_sam)
    predictor.set_image(image)
    embedding = small.encode(image)
    assert embedding.size == size
    assert torch.equal(embedding.features, predictor.features)
    for prompt in PROMPTS.values():
        masks, scores, logits = predictor.predict(
            prompt.points,
            prompt.labels,
            prompt.box,
            None if prompt.mask_logits is None else prompt.mask_logits[None],
        )
        (candidates,) = small.predict(embedding, [prompt])
        assert len(candidates) == 3
        for candidate, index in zip(candidates, np.argsort(-scores), strict=True):
            assert candidate.mask.dtype == bool and candidate.mask.shape == size
            assert candidate.logits.dtype == np.float32
            assert candidate.score == pytest.approx(float(scores[index]), abs=1e-6)
            np.testing.assert_allclose(candidate.logits, logits[index], atol=1e-5)
            assert (candidate.mask != masks[index]).mean() < 1e-3


def test_a_batch_answers_as_one_by_one_in_order(small: SamSegmenter) -> None:
    embedding = small.encode(frame(SIZES[0]))
    prompts = list(PROMPTS.values())
    together = small.predict(embedding, prompts)
    assert len(together) == len(prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        assert same(answer, small.predict(embedding, [prompt])[0])
    assert not same(together[0], together[1])  # the two boxes do get different answers


def test_prompts_of_one_kind_share_one_call(
    small: SamSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = small.encode(frame(SIZES[0]))
    decode, calls = small._decode, []

    def counted(embedding: Embedding, prompts: list[Prompt]) -> object:
        calls.append(len(prompts))
        return decode(embedding, prompts)

    monkeypatch.setattr(small, "_decode", counted)
    small.predict(embedding, list(PROMPTS.values()))
    assert sorted(calls) == [1, 1, 1, 1, 1, 2]


def test_many_prompts_take_several_calls_and_answer_the_same(
    small: SamSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = small.encode(frame(SIZES[0]))
    prompts = [Prompt(box=BOX + shift) for shift in range(10)]
    alone = [small.predict(embedding, [prompt])[0] for prompt in prompts]
    decode, calls = small._decode, []

    def counted(embedding: Embedding, prompts: list[Prompt]) -> object:
        calls.append(len(prompts))
        return decode(embedding, prompts)

    monkeypatch.setattr(small, "_decode", counted)
    together = small.predict(embedding, prompts)
    assert calls == [4, 4, 2]
    for answer, other in zip(together, alone, strict=True):
        assert same(answer, other)
        for a, b in zip(answer, other, strict=True):
            assert (a.mask != b.mask).mean() < 1e-3


def test_logits_and_masks_apart_are_those_of_candidates(small: SamSegmenter) -> None:
    embedding = small.encode(frame(SIZES[1]))
    (candidates,) = small.predict(embedding, [PROMPTS["box"]])
    ((logits, scores),) = small.predict_logits(embedding, [PROMPTS["box"]])
    assert scores.tolist() == [candidate.score for candidate in candidates]
    assert (logits == np.stack([candidate.logits for candidate in candidates])).all()
    masks = small.enlarge(logits, embedding.size)
    assert (masks == np.stack([candidate.mask for candidate in candidates])).all()


def test_best_score_comes_first(small: SamSegmenter) -> None:
    for candidates in small.predict(small.encode(frame(SIZES[0])), list(PROMPTS.values())):
        scores = [candidate.score for candidate in candidates]
        assert scores == sorted(scores, reverse=True)


def test_two_embeddings_do_not_disturb_each_other(small: SamSegmenter) -> None:
    prompt = [PROMPTS["box"]]
    first = small.encode(frame(SIZES[0], seed=1))
    before = small.predict(first, prompt)[0]
    second = small.encode(frame(SIZES[1], seed=2))
    other = small.predict(second, prompt)[0]
    assert other[0].mask.shape == SIZES[1] and not same(before, other)
    assert same(small.predict(first, prompt)[0], before, tolerance=1e-9)


def test_no_prompts_no_answers(small: SamSegmenter) -> None:
    assert small.predict(small.encode(frame(SIZES[0])), []) == []


def test_the_frame_is_left_alone(small: SamSegmenter) -> None:
    image = frame(SIZES[0])
    image.flags.writeable = False
    small.encode(image)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 3), np.float32),
        np.zeros((0, 9, 3), np.uint8),
    ],
    ids=lambda frame: f"{frame.shape} {frame.dtype}",
)
def test_other_arrays_are_refused(small: SamSegmenter, wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"A frame must be RGB uint8 \(h, w, 3\)"):
        small.encode(wrong)


def test_a_prompt_outside_the_frame_is_refused(small: SamSegmenter) -> None:
    with pytest.raises(InputError, match="lies outside the frame"):
        small.predict(small.encode(frame((40, 40))), [PROMPTS["point"], PROMPTS["points"]])


def test_vit_b_takes_official_weights() -> None:
    state = build_sam_vit_b().state_dict()
    assert len(state) == 314
    assert state["image_encoder.pos_embed"].shape == (1, 64, 64, 768)
    segmenter = build_segmenter("sam_vit_b", device="cpu", weights=state)
    assert segmenter.weights.name == "state dict"
    answers = segmenter.predict(Embedding(torch.randn(1, 256, 64, 64), (30, 40)), [Prompt(BOX / 4)])
    assert answers[0][0].mask.shape == (30, 40)
