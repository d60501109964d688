"""What vowels look like: spectral envelopes of a vocal tract with given resonances.

The resonances are about those that Peterson and Barney measured, with one vowel of Mandarin more, and with
voiced consonants so that these are not taken for vowels. The voices of the synthesiser that the mini model
learns from have the same resonances: other voices, real ones above all, are told less well.
"""

from functools import cache

import numpy as np

from ..analysis.beats import Array
from ..text.phonetics import VOWELS

# Frequencies in Hz of a man's first three formants, then where the closed mouth of a murmur begins to muffle.
_FORMANTS: dict[str, tuple[float, ...]] = {
    "AA": (730, 1090, 2440),
    "AE": (660, 1720, 2410),
    "AH": (640, 1190, 2390),
    "AO": (570, 840, 2410),
    "EH": (530, 1840, 2480),
    "ER": (490, 1350, 1690),
    "IH": (390, 1990, 2550),
    "IY": (270, 2290, 3010),
    "UH": (440, 1020, 2240),
    "UW": (300, 870, 2240),
    "YU": (270, 1800, 2150),
    "M": (250, 900, 2200, 600),
    "N": (260, 1700, 2600, 2600),
    "NG": (330, 2300, 2600),
    "L": (400, 1150, 3000),
    "R": (430, 1250, 1550),
    "W": (310, 620, 2200),
    "Y": (260, 2350, 3050),
    "D": (200, 1750, 2600, 700),
    "Z": (230, 1700, 2600, 1500),
}
SHAPES = tuple(_FORMANTS)  # the vowels first, in their own order
assert SHAPES[: len(VOWELS)] == VOWELS, SHAPES
_HIGHER_FORMANTS = (3500.0, 4500.0)
_BANDWIDTHS = np.array([70.0, 90.0, 130.0, 200.0, 300.0])
_OPEN = 5000.0  # Hz from which on even an open mouth muffles


@cache
def envelopes(scale: float, highest: float, step: float) -> Array:
    """[shapes, F] in dB at 0, `step`, ... up to `highest` Hz; all formants are `scale` times a man's."""
    hertz = np.arange(0.0, highest, step).clip(min=1.0)
    return np.stack([_envelope(_FORMANTS[name], hertz, scale) for name in SHAPES])


def _envelope(resonances: tuple[float, ...], hertz: Array, scale: float) -> Array:
    formants = scale * np.array([*resonances[:3], *_HIGHER_FORMANTS])[:, None]
    widths = scale * _BANDWIDTHS[:, None]
    gains = formants**2 / np.sqrt((formants**2 - hertz**2) ** 2 + (hertz * widths) ** 2)
    muffled = scale * (resonances[3] if len(resonances) > 3 else _OPEN)
    amplitude = gains.prod(0) / hertz * (1 + (hertz / (1800 * scale)) ** 2) / (1 + (hertz / muffled) ** 4)
    return np.asarray(20 * np.log10(amplitude))
