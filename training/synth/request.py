"""What a song is asked to be: lyrics as syllables, and a style of which anything may be left open."""

from dataclasses import dataclass

from songgen_core.text.lyrics import INSTRUMENTAL_TAGS, VOCAL_TAGS, Section
from songgen_core.text.musical_key import NOTES
from songgen_core.text.phonetics import Syllable

from ..codes import TIMBRES

GENDERS = ("female", "male")
GENRES = ("pop", "rock", "electronic", "ballad")
EMOTIONS = ("happy", "sad")  # major, minor
INSTRUMENTS = TIMBRES


@dataclass(frozen=True)
class Key:
    """Tonic as a pitch class, 0 for C, and mode."""

    tonic: int
    minor: bool

    def __str__(self) -> str:
        """As descriptions say it: `A minor`."""
        return f"{NOTES[self.tonic]} {'minor' if self.minor else 'major'}"


@dataclass(frozen=True)
class Line:
    """A lyric line as it is written and as it is sung."""

    text: str
    syllables: tuple[Syllable, ...]


@dataclass(frozen=True)
class Part:
    """A section of the lyrics: a structure tag, and lines where it is sung."""

    tag: str
    lines: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        known = VOCAL_TAGS if self.lines else (*VOCAL_TAGS, *INSTRUMENTAL_TAGS)
        if self.tag not in known:
            raise ValueError(f"section tag {self.tag!r} is not one of {', '.join(known)}")


@dataclass(frozen=True)
class Request:
    """A song to be composed; None leaves a choice to the composer.

    `longest` in seconds bounds a tempo that is left open; it is no part of what the model reads.
    """

    parts: tuple[Part, ...]
    gender: str | None = None
    genre: str | None = None
    emotion: str | None = None
    instrument: str | None = None
    bpm: int | None = None
    key: Key | None = None
    longest: float | None = None

    def __post_init__(self) -> None:
        _check("gender", self.gender, GENDERS)
        _check("genre", self.genre, GENRES)
        _check("emotion", self.emotion, EMOTIONS)
        _check("instrument", self.instrument, INSTRUMENTS)

    @property
    def lyrics(self) -> str:
        """The lyrics in the model's format: `[intro-short] ; [verse] Line one. Line two.`"""
        return " ; ".join(
            Section(part.tag, tuple(line.text for line in part.lines)).format() for part in self.parts
        )

    @property
    def description(self) -> str | None:
        """The style in the model's format, None if everything is open: `female, pop, the bpm is 120.`"""
        said: list[str] = [
            word for word in (self.gender, self.genre, self.emotion, self.instrument) if word is not None
        ]
        if self.bpm is not None:
            said.append(f"the bpm is {self.bpm}")
        if self.key is not None:
            said.append(f"the key is {self.key}")
        return ", ".join(said) + "." if said else None


def _check(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")
