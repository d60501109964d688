"""The singing voice: harmonics with formants that glide from phone to phone, and the noise of consonants.

T frames, N = T * 1920 samples.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from songgen_core.text.phonetics import PHONES

from ..codes import PHONE_IDS
from .diction import VOICED_IDS
from .formants import FEMALE, VOICED, harmonic_amplitudes
from .hiss import NOISY_IDS, consonant_noise
from .melody import FEMALE_FROM
from .waves import FRAME, GRID, Wave, grid_steps, periodic, rise, unroll

# Samples on either side of a boundary over which one sound becomes the next.
_GLIDE = FRAME // 2  # from an open sound to another
_CLOSING = FRAME // 4  # where a voiced consonant closes the mouth
_MEETING_NOISE = FRAME // 8  # where an unvoiced consonant is next
_FADE = FRAME // 2  # samples in which a voice comes out of silence, or goes
_CLOSED = VOICED_IDS - {PHONE_IDS[phone] for phone in ("L", "R", "W", "Y")}


def sing(phone: NDArray[np.int64], midi: NDArray[np.int64]) -> Wave:
    """[N] from labels [T]; a phone with `midi` above 0 is sung with that pitch. A vowel has RMS 1."""
    out = np.zeros(len(phone) * FRAME, np.float32)
    starts = np.flatnonzero(np.diff(phone * 128 + midi, prepend=-1))
    ends = [*starts[1:], len(phone)]
    runs = [(int(a), int(b), int(phone[a]), int(midi[a])) for a, b in zip(starts, ends)]
    for number, (start, end, phone_id, pitch) in enumerate(runs):
        if phone_id in NOISY_IDS:
            out[start * FRAME : end * FRAME] += consonant_noise(phone_id, end - start)
        if pitch > 0:
            before = _fade(phone_id, *runs[number - 1][2:]) if number else (0, _FADE)
            after = _fade(phone_id, *runs[number + 1][2:]) if number + 1 < len(runs) else (0, _FADE)
            _add_voiced(out, start * FRAME, end * FRAME, _voiced_wave(phone_id, pitch), before, after)
    return out


def _fade(phone: int, neighbour: int, pitch: int) -> tuple[int, int]:
    """Samples outside and inside of a voiced phone over which it fades where `neighbour` is next to it."""
    if pitch > 0:
        glide = _CLOSING if {phone, neighbour} & _CLOSED else _GLIDE
        return glide, glide
    return (_MEETING_NOISE, _MEETING_NOISE) if neighbour > 0 else (0, _FADE)


def _add_voiced(
    out: Wave, start: int, end: int, period: Wave, before: tuple[int, int], after: tuple[int, int]
) -> None:
    """Add samples `start` to `end` of a wave, with fades that reach beyond them."""
    first, last = start - before[0], end + after[0]
    wave = unroll(period, first, last).copy()
    wave[: sum(before)] *= rise(sum(before))
    wave[-sum(after) :] *= rise(sum(after))[::-1]
    out[first:last] += wave


@cache
def _voiced_wave(phone: int, midi: int) -> Wave:
    """One period of a held phone; the pitch tells whose voice it is."""
    steps = grid_steps(midi)
    scale = FEMALE if midi >= FEMALE_FROM else 1.0
    amplitudes = harmonic_amplitudes(VOICED[PHONES[phone]], steps * GRID, scale)
    return periodic(steps * np.arange(1, len(amplitudes) + 1), amplitudes)
