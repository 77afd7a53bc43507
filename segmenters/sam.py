"""Segment Anything (https://arxiv.org/abs/2304.02643) through Meta's `segment-anything` package.

Any image encoder that yields (1, 256, 64, 64) features fits: `mobile_sam` differs in nothing else,
and with `hourglass` SAM's own runs on fewer tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from segment_anything import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from checkpoints import WeightsRecord
from media import InputError
from segmenters.attention import fuse_attention
from segmenters.base import (
    Candidate,
    Embedding,
    Prompt,
    WeightsSource,
    load_weights,
    register,
)
from segmenters.hourglass import PRESETS, HourglassConfig, apply_to_sam_encoder

# Prompts that go through the decoder at once. On a CPU more are slower (112 ms each for 8, 89 for
# 4, one core of an AMD EPYC), because what lies between the layers leaves the processor's cache.
DECODER_BATCH = {"cpu": 4}


def lower_precision(encoder: nn.Module, precision: torch.dtype) -> None:
    """Let an image encoder multiply in half precision, to be run under `torch.autocast`.

    The weights of linear layers and convolutions are halved. Norms stay in float32, and so do the
    tables of positions and with them the tokens that a ViT's blocks add to: half precision would
    lose most there.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(precision)
        elif isinstance(module, nn.LayerNorm | LayerNorm2d):
            module.register_forward_pre_hook(_in_float32)


def _in_float32(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)


class SamSegmenter:
    """Any SAM network as a `Segmenter`.

    The numbers are those of `segment_anything.SamPredictor` with `multimask_output=True`, for every
    kind of prompt: three candidates (about whole, part and sub-part), the best score first. The
    fourth mask of the decoder, meant for unambiguous prompts, is left out as it is there.

    Args:
        network: A `Sam` with its weights; moved to `device` and switched to evaluation.
        weights: What `network` was loaded from.
        device: Where to run.
        precision: What the image encoder multiplies in: float32, bfloat16 or float16. The decoder
            is always in float32: it takes little time.
    """

    def __init__(
        self,
        network: Sam,
        weights: WeightsRecord,
        device: torch.device,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.network = network.to(device).eval()
        self.weights = weights
        self.device = device
        self.precision = precision
        if precision != torch.float32:
            lower_precision(network.image_encoder, precision)
        self._resize = ResizeLongestSide(network.image_encoder.img_size)

    @property
    def settings(self) -> str:
        """See `Segmenter`."""
        encoder = self.network.image_encoder
        config = getattr(encoder, "config", "all tokens")  # that of token clustering
        return f"{type(encoder).__name__}, {config}, {self.precision}"

    @torch.inference_mode()
    def encode(self, frame: np.ndarray) -> Embedding:
        """Encode an RGB uint8 (h, w, 3) frame; one to two orders slower than `predict`.

        Raises:
            InputError: `frame` is something else.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise InputError(
                f"A frame must be RGB uint8 (h, w, 3), not {frame.dtype} {frame.shape}."
            )
        resized = self._resize.apply_image(frame)
        image = torch.as_tensor(resized, device=self.device).permute(2, 0, 1)[None]
        with torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        ):
            features = self.network.image_encoder(self.network.preprocess(image))
        return Embedding(features.float(), frame.shape[:2])

    def predict(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Candidate]]:
        """Answer each prompt with three candidates, the best score first.

        Raises:
            InputError: A prompt lies outside the frame.
        """
        return [
            [
                Candidate(mask, float(score), each)
                for mask, score, each in zip(
                    self.enlarge(logits, embedding.size), scores, logits, strict=True
                )
            ]
            for logits, scores in self.predict_logits(embedding, prompts)
        ]

    @torch.inference_mode()
    def predict_logits(
        self, embedding: Embedding, prompts: Sequence[Prompt]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `Segmenter.predict_logits`.

        Prompts of the same make-up share calls of the decoder. Others are not padded to fit (as
        label -1 would allow): the decoder attends to padding, so that an answer would depend on
        what else was asked.
        """
        groups: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
        prompts = [prompt.in_frame(embedding.size) for prompt in prompts]
        for index, prompt in enumerate(prompts):
            parts = (prompt.box, prompt.points, prompt.mask_logits)
            groups[tuple(part is not None and part.shape for part in parts)].append(index)
        answers: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        size = DECODER_BATCH.get(self.device.type, 64)
        for group in groups.values():
            for start in range(0, len(group), size):
                indices = group[start : start + size]
                batch = self._decode(embedding, [prompts[index] for index in indices])
                for index, logits, scores in zip(indices, *batch, strict=True):
                    order = scores.argsort(descending=True, stable=True)
                    answers[index] = logits[order].cpu().numpy(), scores[order].cpu().numpy()
        return [answers[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def enlarge(self, logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """See `Segmenter.enlarge`."""
        resized = self._resize.get_preprocess_shape(*size, self._resize.target_length)
        on_device = torch.as_tensor(logits, device=self.device)[None]
        at_frame_size = self.network.postprocess_masks(on_device, resized, size)[0]
        return (at_frame_size > self.network.mask_threshold).cpu().numpy()

    def _decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """Return logits (n, 3, 256, 256) and predicted IoU (n, 3) of n prompts of one make-up."""

        def stack(parts: list[np.ndarray | None]) -> Tensor | None:
            given = [part for part in parts if part is not None]
            return torch.as_tensor(np.stack(given), device=self.device) if given else None

        def to_model(parts: list[np.ndarray | None]) -> list[np.ndarray | None]:
            return [
                None
                if part is None
                else self._resize.apply_coords(part.reshape(-1, 2), embedding.size)
                .astype(np.float32)
                .reshape(part.shape)
                for part in parts
            ]

        points = stack(to_model([prompt.points for prompt in prompts]))
        labels = stack([prompt.labels for prompt in prompts])
        boxes = stack(to_model([prompt.box for prompt in prompts]))
        masks = stack([prompt.mask_logits for prompt in prompts])
        sparse, dense = self.network.prompt_encoder(
            points=None if points is None else (points, labels),
            boxes=boxes,
            masks=None if masks is None else masks[:, None],
        )
        return self.network.mask_decoder(
            image_embeddings=embedding.features,
            image_pe=self.network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )


def _build(
    name: str,
    network: Callable[[], Sam],
    device: torch.device,
    weights: WeightsSource,
    hourglass: HourglassConfig | None = None,
    precision: torch.dtype = torch.float32,
) -> SamSegmenter:
    sam = network()
    fuse_attention(sam.image_encoder)
    if hourglass is not None:
        sam.image_encoder = apply_to_sam_encoder(sam.image_encoder, hourglass)
    return SamSegmenter(sam, load_weights(sam, name, weights), device, precision)


for _name, _network in (
    ("sam_vit_b", build_sam_vit_b),
    ("sam_vit_l", build_sam_vit_l),
    ("sam_vit_h", build_sam_vit_h),
):
    register(_name, partial(_build, _name, _network), presets=PRESETS[_name])
