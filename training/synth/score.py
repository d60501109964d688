"""A composed song: labels for every frame of 40 ms, and the places of sections, lines and syllables."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from songgen_core.configs import FRAME_RATE
from songgen_core.text.musical_key import NOTES
from songgen_core.text.phonetics import PHONES

from .. import codes as ids
from .request import Key


class Span(NamedTuple):
    """A section by its tag, or a line by its text; from frame `start` up to `end`."""

    name: str
    start: int
    end: int


class Note(NamedTuple):
    """A sung syllable from frame `start` up to `end`, and the number of its line in the song."""

    phones: tuple[str, ...]
    start: int
    end: int
    midi: int
    line: int


@dataclass(frozen=True, eq=False)
class Score:
    """Labels [T] int64 as `training.codes` numbers them, `midi` 0 where nothing is sung with a pitch.

    A voiced consonant has the pitch of its syllable.
    """

    phone: NDArray[np.int64]
    k: NDArray[np.int64]
    pulse: NDArray[np.int64]
    midi: NDArray[np.int64]
    chord: NDArray[np.int64]
    struck: NDArray[np.int64]
    drum: NDArray[np.int64]
    timbre: int
    frames_per_beat: int
    key: Key
    gender: str
    genre: str
    sections: tuple[Span, ...]
    lines: tuple[Span, ...]
    notes: tuple[Note, ...]

    @property
    def num_frames(self) -> int:
        return len(self.phone)

    @property
    def bpm(self) -> float:
        return 60 * FRAME_RATE / self.frames_per_beat

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """[3, T]: mixed, vocal, bgm. Where the band is silent its code is 0."""
        timbre = np.where(self.chord > 0, self.timbre, 0)
        return np.stack(
            [
                ids.mixed_code(self.phone, self.k, self.pulse),
                ids.vocal_code(self.phone, self.midi),
                ids.bgm_code(self.chord, self.struck, self.drum, timbre),
            ]
        )

    def labels(self) -> dict[str, Any]:
        """Everything that is known about the song, times in seconds, for JSON."""
        return {
            "seconds": self.num_frames / FRAME_RATE,
            "bpm": self.bpm,
            "key": str(self.key),
            "gender": self.gender,
            "genre": self.genre,
            "instrument": ids.TIMBRES[self.timbre],
            "sections": [_times(span.start, span.end) | {"tag": span.name} for span in self.sections],
            "lines": [_times(span.start, span.end) | {"text": span.name} for span in self.lines],
            "syllables": [
                _times(note.start, note.end)
                | {
                    "phones": list(note.phones),
                    "midi": note.midi,
                    "note": _name(note.midi),
                    "line": note.line,
                }
                for note in self.notes
            ],
            "frames": {
                "phone": [PHONES[phone] for phone in self.phone],
                "k": self.k.tolist(),
                "pulse": self.pulse.tolist(),
                "midi": self.midi.tolist(),
                "chord": [ids.CHORDS[chord] for chord in self.chord],
                "struck": self.struck.tolist(),
                "drum": [ids.DRUMS[drum] for drum in self.drum],
            },
            "codes": self.codes.tolist(),
        }


def _times(start: int, end: int) -> dict[str, float]:
    return {"start": start / FRAME_RATE, "end": end / FRAME_RATE}


def _name(midi: int) -> str:
    return f"{NOTES[midi % 12]}{midi // 12 - 1}"
