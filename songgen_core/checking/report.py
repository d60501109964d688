"""From songs to the figures of a model, each with its interval or with the reason why there is none."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .bootstrap import Statistic, interval, interval_of_difference, mean, median
from .song_measures import EXACT, RELATIVE, SongMeasures
from .tempo import RELATED, RIGHT

SHARE, SEMITONES, MIDI, TIMES = "share", "semitones", "MIDI number", "times"
SEPARATE = 0.05  # of the power of drums, or of the voice, that a separate stem may hold
_SINGS = 1.0  # seconds on a pitch from which on a song has a voice
_CLIPS = 1e-5  # share of samples; a few per second

Pick = Callable[[SongMeasures], float | None]


@dataclass(frozen=True)
class Figure:
    """`value` in `unit` over so many `songs`, its 95 % interval; or the `reason` why it is missing."""

    name: str
    about: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    songs: int
    reason: str | None = None


@dataclass(frozen=True)
class _Row:
    """A figure: what to take of each song, and the reason that is given where no song has it."""

    name: str
    about: str
    pick: Pick
    missing: str
    unit: str = SHARE
    statistic: Statistic = mean


_NO_VOICE = "no song has a voice with a pitch"
_NO_PART = "no song with a voice was asked for an instrumental section that could be placed"
_NO_DRUMS = "no accompaniment has hits in the treble"
_NO_KEY = "none was asked for"
_NO_SONG = "no song was made"

_ROWS = (
    _Row("tempo_right", "tempo within 4 %", lambda s: s.tempo == RIGHT, _NO_SONG),
    _Row("tempo_related", "tempo a multiple: 2, 1/2, 3/2 ...", lambda s: s.tempo == RELATED, _NO_SONG),
    _Row("key_exact", "key, where asked", lambda s: _is(s.key, EXACT), _NO_KEY),
    _Row("key_exact_or_relative", "key or its relative", lambda s: _is(s.key, EXACT, RELATIVE), _NO_KEY),
    _Row("voice_heard", "songs with a voice", lambda s: s.voiced_seconds >= _SINGS, _NO_SONG),
    _Row("pitch_female", "pitch of female voices", lambda s: _pitch(s, "female"), _NO_VOICE, MIDI, median),
    _Row("pitch_male", "pitch of male voices", lambda s: _pitch(s, "male"), _NO_VOICE, MIDI, median),
    _Row("voice_inside", "voice in sung sections", lambda s: s.voice_inside, _NO_PART),
    _Row("sections_kept", "instrumental sections as long as told", lambda s: _kept(s), _NO_PART),
    _Row("drums_in_voice", "drums in the vocal stem", lambda s: s.drums_in_voice, _NO_DRUMS),
    _Row("voice_in_bgm", "voice in the other stem, at most", lambda s: s.voice_in_bgm, _NO_VOICE),
    _Row("stems_separate", "both below 5 %", lambda s: _separate(s), "no song has both a voice and drums"),
    _Row("ended", "songs that the model ended", lambda s: s.ended, _NO_SONG),
    _Row("length", "length against the request", lambda s: s.length, _NO_SONG, TIMES, median),
    _Row("silent", "silence", lambda s: s.levels.silent, _NO_SONG),
    _Row("clipping", "songs that clip", lambda s: s.levels.clipped > _CLIPS, _NO_SONG),
)
_NAMES_OF_VOWELS = {
    "vowels_right": "vowels of the lyrics, in order",
    "vowels_chance": "the same with shuffled lyrics",
    "vowels_above_chance": "the difference",
}


def figures_of(songs: Sequence[SongMeasures], no_vowels: str | None = None) -> list[Figure]:
    """All figures; `no_vowels` is the reason why vowels were not measured, if they were not."""
    figures = [_figure(row, songs) for row in _ROWS]
    place = 1 + next(n for n, figure in enumerate(figures) if figure.name == "pitch_male")
    figures.insert(place, _distance(songs))
    return figures + _vowel_figures(songs, no_vowels)


def table(figures: Sequence[Figure]) -> list[str]:
    """Lines for people."""
    lines = [f"{'figure':<38} {'value':>8}   {'95 % interval':<17} songs"]
    for figure in figures:
        if figure.value is None:
            lines.append(f"{figure.about:<38} not available: {figure.reason}")
            continue
        value, low, high = (_text(figure, number) for number in (figure.value, figure.low, figure.high))
        around = f"{low} to {high}" if low else "too few songs"
        lines.append(f"{figure.about:<38} {value:>8}   {around:<17} {figure.songs:>5}")
    return lines


def markdown(figures: Sequence[Figure]) -> list[str]:
    """The table of a model card."""
    lines = ["| Figure | Value | 95 % interval | Songs |", "| --- | ---: | --- | ---: |"]
    for figure in figures:
        if figure.value is None:
            lines.append(f"| {figure.about} | not available: {figure.reason} | | |")
            continue
        value, low, high = (_text(figure, number) for number in (figure.value, figure.low, figure.high))
        lines.append(f"| {figure.about} | {value} | {f'{low} to {high}' if low else ''} | {figure.songs} |")
    return lines


def as_json(figures: Sequence[Figure]) -> dict[str, dict[str, Any]]:
    """Name -> figure; one that is missing has the value null and a reason."""
    return {figure.name: {k: v for k, v in asdict(figure).items() if k != "name"} for figure in figures}


def song_as_json(song: SongMeasures) -> dict[str, Any]:
    """One song; of its request no more than what was asked."""
    told = asdict(song)
    request = told.pop("request")
    kept = [{**asdict(part), "kept": part.kept} for part in song.instrumentals]
    asked = {name: request[name] for name in ("name", "gender", "bpm", "key", "seed")}
    return {"asked": asked, **told, "instrumentals": kept}


def _figure(row: _Row, songs: Sequence[SongMeasures]) -> Figure:
    values = [float(value) for value in map(row.pick, songs) if value is not None]
    if not values:
        return _missing(row.name, row.about, row.unit, row.missing if songs else _NO_SONG)
    value = float(row.statistic(np.array([values]))[0])
    return _rounded(row.name, row.about, row.unit, value, interval(values, row.statistic), len(values))


def _distance(songs: Sequence[SongMeasures]) -> Figure:
    """How far the medians of female and male voices lie apart."""
    name, about = "pitch_distance", "female above male voices"
    groups = [[p for s in songs if (p := _pitch(s, gender)) is not None] for gender in ("female", "male")]
    if not all(groups):
        return _missing(name, about, SEMITONES, "one of both has no song with a voice")
    value = float(np.median(groups[0]) - np.median(groups[1]))
    return _rounded(
        name, about, SEMITONES, value, interval_of_difference(groups[0], groups[1]), sum(map(len, groups))
    )


def _vowel_figures(songs: Sequence[SongMeasures], reason: str | None) -> list[Figure]:
    scores = [song.vowels for song in songs if song.vowels is not None]
    if reason is not None or not scores:
        return [_missing(n, about, SHARE, reason or _NO_SONG) for n, about in _NAMES_OF_VOWELS.items()]
    right, chance = [score.right for score in scores], [score.chance for score in scores]
    above = [r - c for r, c in zip(right, chance)]  # of the same song, so that its length matters for neither
    return [
        _rounded(name, about, SHARE, float(np.mean(values)), interval(values), len(values))
        for (name, about), values in zip(_NAMES_OF_VOWELS.items(), (right, chance, above))
    ]


def _missing(name: str, about: str, unit: str, reason: str) -> Figure:
    return Figure(name, about, unit, None, None, None, 0, reason)


def _rounded(
    name: str, about: str, unit: str, value: float, around: tuple[float, float] | None, songs: int
) -> Figure:
    low, high = (None, None) if around is None else (round(end, 5) for end in around)
    return Figure(name, about, unit, round(value, 5), low, high, songs)


def _text(figure: Figure, number: float | None) -> str:
    if number is None:
        return ""
    return f"{100 * number:.1f} %" if figure.unit == SHARE else f"{number:.2f}"


def _is(judged: str | None, *wanted: str) -> bool | None:
    return None if judged is None else judged in wanted


def _pitch(song: SongMeasures, gender: str) -> float | None:
    sings = song.request.gender == gender and song.voiced_seconds >= _SINGS
    return song.pitch if sings else None


def _kept(song: SongMeasures) -> float | None:
    kept = [part.kept for part in song.instrumentals]
    return sum(kept) / len(kept) if kept else None


def _separate(song: SongMeasures) -> bool | None:
    if song.drums_in_voice is None or song.voice_in_bgm is None:
        return None
    return max(song.drums_in_voice, song.voice_in_bgm) < SEPARATE
