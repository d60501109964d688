"""How far a figure could be off by the choice of songs: songs are drawn again and again with replacement.

Where all songs agree the interval has no width. That is no certainty: 64 songs without a fault do not rule
out one in twenty.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..analysis.beats import Array

_DRAWS = 2000
FEWEST = 5  # songs; an interval from fewer says nothing

Statistic = Callable[[Array], Array]  # [draws, songs] -> [draws]


def mean(values: Array) -> Array:
    return np.asarray(values.mean(1))


def median(values: Array) -> Array:
    return np.asarray(np.median(values, 1))


def interval(values: Sequence[float], statistic: Statistic = mean) -> tuple[float, float] | None:
    """The 95 % interval of a statistic over songs; None for fewer than 5."""
    if len(values) < FEWEST:
        return None
    return _middle(statistic(_drawn(values, 0)))


def interval_of_difference(
    first: Sequence[float], second: Sequence[float], statistic: Statistic = median
) -> tuple[float, float] | None:
    """The 95 % interval of how far the statistic of one group of songs lies above that of another."""
    if min(len(first), len(second)) < FEWEST:
        return None
    return _middle(statistic(_drawn(first, 0)) - statistic(_drawn(second, 1)))


def _drawn(values: Sequence[float], seed: int) -> Array:
    """[draws, songs], the same each time."""
    rng = np.random.default_rng(seed)
    return np.asarray(values, np.float64)[rng.integers(len(values), size=(_DRAWS, len(values)))]


def _middle(statistics: Array) -> tuple[float, float]:
    low, high = np.percentile(statistics, (2.5, 97.5))
    return float(low), float(high)
