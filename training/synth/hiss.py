"""The noise in consonants: one fixed wave for each, played from the frame in which the consonant begins."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..codes import PHONE_IDS
from .waves import FRAME, Wave, decay, rise, shaped_noise

_LONGEST = 4  # frames


@dataclass(frozen=True)
class _Noise:
    """Hills of the spectrum (centre Hz, width Hz, height), RMS `level` against a vowel's 1.

    `closed` is the part of the first frame that is silent before the mouth opens; a `burst` dies away within
    that many frames, without one the noise goes on.
    """

    bands: tuple[tuple[float, float, float], ...]
    level: float
    closed: float = 0.0
    burst: float | None = None


_NOISES = {
    "S": _Noise(((6000, 900, 1.0),), 0.5),
    "SH": _Noise(((3000, 550, 1.0), (5000, 800, 0.3)), 0.55),
    "F": _Noise(((2500, 1800, 0.6), (6500, 2000, 0.6)), 0.2),
    "TH": _Noise(((1500, 900, 0.4), (5200, 1800, 0.7)), 0.2),
    "HH": _Noise(((900, 400, 0.8), (1800, 600, 1.0), (3200, 700, 0.4)), 0.3),
    "P": _Noise(((700, 500, 1.0), (1800, 800, 0.3)), 1.1, 0.5, 0.2),
    "T": _Noise(((4500, 1200, 1.0),), 1.1, 0.5, 0.2),
    "K": _Noise(((2000, 400, 1.0), (3800, 700, 0.3)), 1.1, 0.5, 0.22),
    "CH": _Noise(((3100, 600, 1.0), (5000, 800, 0.3)), 0.7, 0.35),
    "B": _Noise(((600, 400, 1.0),), 0.7, 0.6, 0.1),
    "D": _Noise(((4000, 1200, 1.0),), 0.6, 0.6, 0.1),
    "G": _Noise(((1900, 400, 1.0),), 0.7, 0.6, 0.12),
    "V": _Noise(((2500, 1800, 0.6), (6000, 2000, 0.5)), 0.1),
    "DH": _Noise(((1500, 900, 0.4), (5000, 1800, 0.6)), 0.1),
    "Z": _Noise(((6000, 900, 1.0),), 0.35),
    "ZH": _Noise(((3000, 550, 1.0), (5000, 800, 0.3)), 0.35),
    "JH": _Noise(((3100, 600, 1.0), (5000, 800, 0.3)), 0.5, 0.4),
}
NOISY_IDS = frozenset(PHONE_IDS[phone] for phone in _NOISES)
_BY_ID = {PHONE_IDS[phone]: noise for phone, noise in _NOISES.items()}
_EDGE = FRAME // 8


@cache
def consonant_noise(phone: int, frames: int) -> Wave:
    """[frames * FRAME] of noise for a noisy phone id that lasts `frames`; the longest ones begin anew."""
    noise = _BY_ID[phone]
    wave = noise.level * shaped_noise(phone, _LONGEST * FRAME, noise.bands)
    wave = np.tile(wave, -(-frames // _LONGEST))[: frames * FRAME]
    opening = int(noise.closed * FRAME)
    wave[:opening] = 0
    if noise.burst is not None:
        wave[opening:] *= decay(len(wave) - opening, noise.burst)
        wave[opening : opening + _EDGE // 4] *= rise(_EDGE // 4)
    else:
        wave[opening : opening + _EDGE] *= rise(_EDGE)
    wave[-_EDGE:] *= rise(_EDGE)[::-1]
    return wave
