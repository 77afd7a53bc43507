from __future__ import annotations

import pytest

from inpainting import base, estimate
from media import InputError


@pytest.mark.parametrize("name", ["propagation", "e2fgvi", "e2fgvi_hq"])
def test_grows_with_length_and_is_bounded_in_size(name: str) -> None:
    short, long = (
        estimate(name, size=(240, 432), length=length, device="cpu") for length in (10, 1000)
    )
    assert short.memory is not None and short.seconds is not None and long.seconds is not None
    assert short.memory == long.memory
    assert long.seconds == pytest.approx(100 * short.seconds)
    large = estimate(name, size=(2160, 3840), length=10, device="cpu")
    assert large.memory is not None and large.seconds is not None
    # Whole frames are held, but networks work at no more than before, padded.
    assert large.memory > short.memory
    assert large.seconds < 1.5 * short.seconds


def test_a_lower_resolution_takes_less() -> None:
    for name in ("propagation", "e2fgvi_hq"):
        whole = estimate(name, size=(480, 864), length=10, device="cpu")
        half = estimate(name, size=(480, 864), length=10, device="cpu", resolution=216)
        assert half.seconds is not None and whole.seconds is not None
        assert half.memory is not None and whole.memory is not None
        assert half.seconds < 0.5 * whole.seconds
        assert half.memory < whole.memory


def test_says_when_it_does_not_know() -> None:
    assert estimate("e2fgvi_hq", size=(240, 432), length=9, device="meta").seconds is None


def test_refuses_what_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base._WITHOUT, "fancy", "cv3")
    sentence = r"no inpainter called 'magic'; .*propagation; not to be had here: fancy"
    with pytest.raises(InputError, match=sentence):
        estimate("magic", size=(9, 9), length=1)
    with pytest.raises(InputError, match="from 1 up"):
        estimate("propagation", size=(0, 9), length=1)
