"""Decoded frames to RGB and back: colour matrices, and high dynamic range tone-mapped to 8 bit.

Two traps live here. A file seldom says which matrix its YUV was made with, and a wrong guess shifts
every colour; untagged files follow the players' habit (BT.601 up to 576 lines, BT.709 above).
And high dynamic range (PQ, HLG) read as if it were ordinary video looks flat and grey.
"""

from __future__ import annotations

from functools import cache

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

Frame = np.ndarray
"""uint8 (h, w, 3), RGB, C-contiguous. Whoever gets one must not write into it."""

# AVColorSpace (H.273 MatrixCoefficients) to the constants swscale takes; 2 is "unspecified".
_MATRICES: dict[int, int] = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: 9,  # SWS_CS_BT2020, which PyAV 17 knows by number only
    10: 9,
}
_LAST_SD_LINE = 576

# ITU-R BT.2087: linear BT.2020 to linear BT.709.
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
_REFERENCE_WHITE = 203.0  # cd/m2 of a white page in HDR, ITU-R BT.2408
_HLG_PEAK = 1000.0  # cd/m2, the nominal display of ITU-R BT.2100
_KNEE = 0.6  # up to here linear light is kept as it is, above it is compressed


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether the frame is tagged as high dynamic range (PQ or HLG)."""
    return frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def is_wide_gamut(frame: av.VideoFrame) -> bool:
    """Whether the frame's primaries are tagged as BT.2020, of high dynamic range or not."""
    return frame.color_primaries == ColorPrimaries.BT2020


class RgbConverter:
    """Turns decoded frames into RGB arrays of one size; keeps the scaler's set-up between frames.

    Args:
        size: (height, width) of the arrays. Another than the frame's own resamples it.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._height, self._width = size
        self._scaler = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Frame:
        """Convert one frame.

        Returns:
            uint8 (h, w, 3) RGB, sRGB-like, full range, C-contiguous.
        """
        deep = is_hdr(frame) or is_wide_gamut(frame)
        picture = self._scaler.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgb48le" if deep else "rgb24",
            src_colorspace=_matrix(frame),
            dst_color_range=ColorRange.JPEG,
            interpolation="BICUBIC" if self._scales(frame) else None,
        ).to_ndarray()
        if deep:
            return to_sdr(picture, frame.color_trc)
        return np.ascontiguousarray(picture)

    def _scales(self, frame: av.VideoFrame) -> bool:
        return (frame.height, frame.width) != (self._height, self._width)


def _matrix(frame: av.VideoFrame) -> int:
    untagged = Colorspace.ITU601 if frame.height <= _LAST_SD_LINE else Colorspace.ITU709
    return _MATRICES.get(frame.colorspace, untagged)


def to_sdr(code: np.ndarray, transfer: int) -> Frame:
    """Show BT.2020 pictures on an ordinary screen.

    Code values to linear light (the inverse of the transfer curve), BT.2020 to BT.709 primaries, a
    roll-off that leaves dark and middle tones alone and bends highlights towards white, sRGB curve.

    Args:
        code: uint16 (h, w, 3) RGB code values over the whole range.
        transfer: H.273 code of the transfer curve: 16 PQ, 18 HLG, anything else is taken as
            wide gamut without high dynamic range.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    planes = np.ascontiguousarray(code.reshape(-1, 3).T)  # (3, pixels): each step is one sweep
    light = _linear_light(transfer)[planes]  # 1.0 is the white of a page
    if transfer == ColorTrc.ARIB_STD_B67:
        # HLG holds the light of the scene; BT.2100's OOTF (gamma 1.2) gives that of the display.
        luma = np.maximum(_BT2020_LUMA @ light, 1e-6)
        light *= luma**0.2 * (_HLG_PEAK / _REFERENCE_WHITE)
    light = np.maximum(_BT2020_TO_BT709 @ light, 0)
    if transfer in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        # One factor for the three channels, so that bright colours keep their hue.
        brightest = np.maximum(light.max(axis=0), 1e-6)
        light *= _roll_off(brightest) / brightest
    shown = _srgb_curve()[(np.minimum(light, 1) * 65535 + 0.5).astype(np.uint16)]
    return np.ascontiguousarray(shown.T).reshape(code.shape)


def _roll_off(light: np.ndarray) -> np.ndarray:
    """The identity up to the knee, then a Reinhard shoulder: slope 1 at the knee, never above 1."""
    above = np.maximum(light - _KNEE, 0)
    room = 1 - _KNEE
    return np.minimum(light, _KNEE) + room * above / (above + room)


@cache
def _linear_light(transfer: int) -> np.ndarray:
    """float32 (65536,): linear light of each 16-bit code value."""
    code = np.arange(65536) / 65535
    if transfer == ColorTrc.SMPTE2084:  # PQ, SMPTE ST 2084: absolute light, up to 10,000 cd/m2
        m1, m2, c1, c2, c3 = 2610 / 16384, 78.84375, 0.8359375, 18.8515625, 18.6875
        root = code ** (1 / m2)
        light = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        return (light / _REFERENCE_WHITE).astype(np.float32)
    if transfer == ColorTrc.ARIB_STD_B67:  # HLG, ITU-R BT.2100: light of the scene, 0 to 1
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        return light.astype(np.float32)
    return _srgb_to_linear(code).astype(np.float32)


def _srgb_to_linear(code: np.ndarray) -> np.ndarray:
    # The inverse of the curve put on at the end: greys of wide-gamut video stay as they are.
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


@cache
def _srgb_curve() -> np.ndarray:
    """uint8 (65536,): the sRGB value of linear light 0 to 65535."""
    light = np.arange(65536) / 65535
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (value * 255 + 0.5).astype(np.uint8)


class YuvConverter:
    """Turns RGB arrays into what encoders want: YUV in BT.709, limited range.

    A browser takes HD video for BT.709; in BT.601, FFmpeg's default, red comes out (255, 24, 0).

    Args:
        pixels: FFmpeg's name of the pixel format; with an alpha plane or without.
    """

    def __init__(self, pixels: str = "yuv420p") -> None:
        self._pixels = pixels
        self._scaler = VideoReformatter()

    def __call__(self, frame: Frame) -> av.VideoFrame:
        """Convert one uint8 (h, w, 3) RGB or (h, w, 4) RGBA array with even h and w."""
        return self._scaler.reformat(
            av.VideoFrame.from_ndarray(frame, format="rgb24" if frame.shape[2] == 3 else "rgba"),
            format=self._pixels,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
