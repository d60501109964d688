"""The sound of voiced phones: resonances of the mouth, after Peterson and Barney's measurements of vowels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Resonances:
    """Frequencies in Hz of a man's first three formants; `level` and `bandwidth` are factors.

    `cut_off` in Hz is where the closed mouth of a murmur begins to muffle.
    """

    f1: float
    f2: float
    f3: float
    level: float = 1.0
    bandwidth: float = 1.0
    cut_off: float = 5000.0


VOICED = {
    "AA": Resonances(730, 1090, 2440),
    "AE": Resonances(660, 1720, 2410),
    "AH": Resonances(640, 1190, 2390),
    "AO": Resonances(570, 840, 2410),
    "EH": Resonances(530, 1840, 2480),
    "ER": Resonances(490, 1350, 1690),
    "IH": Resonances(390, 1990, 2550),
    "IY": Resonances(270, 2290, 3010),
    "UH": Resonances(440, 1020, 2240),
    "UW": Resonances(300, 870, 2240),
    "YU": Resonances(270, 1800, 2150),
    "M": Resonances(250, 900, 2200, 0.45, 2.0, 600),
    "N": Resonances(260, 1700, 2600, 0.5, 1.0, 2600),
    "NG": Resonances(330, 2300, 2600, 0.5, 0.8),
    "L": Resonances(400, 1150, 3000, 0.6, 0.8),
    "R": Resonances(430, 1250, 1550, 0.7, 0.8),
    "W": Resonances(310, 620, 2200, 0.6, 0.9),
    "Y": Resonances(260, 2350, 3050, 0.6, 1.2),
    "B": Resonances(200, 850, 2200, 0.3, 2.0, 500),
    "D": Resonances(200, 1750, 2600, 0.3, 2.0, 700),
    "G": Resonances(200, 2200, 2400, 0.3, 2.0, 900),
    "V": Resonances(230, 1150, 2300, 0.4, 1.6, 2000),
    "DH": Resonances(240, 1350, 2550, 0.4, 1.6, 2200),
    "Z": Resonances(230, 1700, 2600, 0.3, 1.8, 1500),
    "ZH": Resonances(240, 1850, 2400, 0.3, 1.8, 1800),
    "JH": Resonances(210, 1900, 2400, 0.25, 2.0, 700),
}
_F4, _F5 = 3500.0, 4500.0
_BANDWIDTHS = np.array([70.0, 90.0, 130.0, 200.0, 300.0])
FEMALE = 1.17  # how much shorter a woman's vocal tract is
_HIGHEST = 7000.0  # Hz


def harmonic_amplitudes(sound: Resonances, fundamental: float, scale: float) -> NDArray[np.float64]:
    """Amplitudes of the harmonics of `fundamental` Hz up to 7 kHz, formants times `scale`; RMS is `level`."""
    frequency = fundamental * np.arange(1, int(_HIGHEST / fundamental) + 1)
    formants = scale * np.array([sound.f1, sound.f2, sound.f3, _F4, _F5])[:, None]
    widths = scale * sound.bandwidth * _BANDWIDTHS[:, None]
    # Harmonics lie far apart in a high voice; none may be lost between narrow formants.
    widths = np.maximum(widths, 0.3 * fundamental)
    gains = formants**2 / np.sqrt((formants**2 - frequency**2) ** 2 + (frequency * widths) ** 2)
    # Glottis and lips together fall by 6 dB an octave; the tail keeps what higher formants would lift.
    amplitudes = gains.prod(0) / frequency * (1 + (frequency / (1800 * scale)) ** 2)
    amplitudes /= 1 + (frequency / (scale * sound.cut_off)) ** 4
    return sound.level * amplitudes / np.sqrt(0.5 * np.sum(amplitudes**2))
