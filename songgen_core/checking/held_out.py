"""The 64 requests that every model is checked on. No model here was trained on them."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..text.lyrics import Song

REQUESTS = Path(__file__).parent / "requests.json"


@dataclass(frozen=True)
class HeldOut:
    """A request and what its song can be held to.

    `lyrics` in the model's format; `key` as in `text.musical_key.KEYS`, None where none is asked for;
    `seconds` is how long the song is if every syllable takes an eighth note and every line whole bars.
    """

    name: str
    lyrics: str
    gender: str
    genre: str
    emotion: str
    instrument: str
    bpm: int
    key: str | None
    seconds: float
    seed: int

    @property
    def description(self) -> str:
        """The style in the model's words."""
        said = [self.gender, self.genre, self.emotion, self.instrument, f"the bpm is {self.bpm}"]
        if self.key is not None:
            said.append(f"the key is {self.key}")
        return ", ".join(said) + "."

    @cached_property
    def song(self) -> Song:
        """The lyrics as sections."""
        return Song.parse(self.lyrics)


def read_requests(path: Path = REQUESTS) -> list[HeldOut]:
    """All of them, in an order of which every beginning is mixed: women and men, English and Chinese."""
    return [HeldOut(**request) for request in json.loads(path.read_text(encoding="utf-8"))]
