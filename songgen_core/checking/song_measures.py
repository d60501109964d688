"""Everything that is measured on one song."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..analysis.spectra import to_mono
from ..progress import IsCancelled, never_cancelled
from ..text.phonetics import Lexicon
from .held_out import HeldOut
from .levels import Levels, measure_levels
from .pitch import PITCH_RATE, find_pitch
from .stems import drums_in_voice, voice_in_bgm
from .tempo import hear_tempo, judge_tempo
from .timeline import Instrumental, bar_seconds, find_instrumentals, inside
from .tonality import find_key, relative_key
from .vowel_order import VowelScore, lyric_vowels, score_vowels
from .vowels import hear_vowels

EXACT, RELATIVE, OTHER = "exact", "relative", "other"


@dataclass(frozen=True)
class SongMeasures:
    """What was heard in the song of one request. None: the request or the song has nothing of the kind.

    `tempo` as `judge_tempo` says it; `key` EXACT, RELATIVE or OTHER; `pitch` the median as a MIDI number;
    `voiced_seconds` of singing on a pitch, `voice_inside` the share of them outside of `instrumentals`;
    `length` as a multiple of the request's seconds; stems as shares of power.
    """

    request: HeldOut
    seconds: float
    ended: bool
    length: float
    bpm: float | None
    tempo: str
    heard_key: str | None
    key: str | None
    pitch: float | None
    voiced_seconds: float
    voice_inside: float | None
    instrumentals: tuple[Instrumental, ...]
    drums_in_voice: float | None
    voice_in_bgm: float | None
    vowels: VowelScore | None
    levels: Levels


def measure_song(
    request: HeldOut,
    audio: Mapping[str, Tensor],
    sample_rate: int,
    *,
    ended: bool = True,
    lexicon: Lexicon | None = None,
    cancelled: IsCancelled = never_cancelled,
) -> SongMeasures:
    """Measure `audio`: "vocal", "bgm" and "mixed", each [C, N]; `ended` is whether the model ended it itself.

    Vowels need a lexicon. Raises AudioError for audio that is empty or not finite, Cancelled.
    """
    vocal, bgm, mixed = (to_mono(audio[name]) for name in ("vocal", "bgm", "mixed"))
    seconds = mixed.shape[0] / sample_rate
    pitch = find_pitch(audio["vocal"], sample_rate, cancelled)
    bpm = hear_tempo(mixed, sample_rate, cancelled)
    key = find_key(bgm, sample_rate, cancelled)
    bar = bar_seconds(request.bpm, bpm)
    instrumentals = find_instrumentals(request.song, seconds, ended, bar, pitch.voiced)
    vowels = None
    if lexicon is not None:
        heard = hear_vowels(vocal, sample_rate, pitch, cancelled)
        vowels = score_vowels(heard, lyric_vowels(request.song, lexicon))
    voiced = int(pitch.voiced.sum())
    wrong = int((pitch.voiced & inside(instrumentals, len(pitch.voiced))).sum())
    return SongMeasures(
        request,
        seconds=round(seconds, 3),
        ended=ended,
        length=round(seconds / request.seconds, 4),
        bpm=bpm,
        tempo=judge_tempo(bpm, request.bpm),
        heard_key=key,
        key=_judge_key(key, request.key),
        pitch=pitch.median,
        voiced_seconds=voiced / PITCH_RATE,
        voice_inside=round(1 - wrong / voiced, 5) if instrumentals else None,
        instrumentals=tuple(instrumentals),
        drums_in_voice=drums_in_voice(vocal, bgm, sample_rate, cancelled),
        voice_in_bgm=voice_in_bgm(vocal, bgm, pitch, sample_rate, cancelled),
        vowels=vowels,
        levels=measure_levels(audio["mixed"], sample_rate),
    )


def _judge_key(heard: str | None, asked: str | None) -> str | None:
    if asked is None:
        return None
    if heard == asked:
        return EXACT
    return RELATIVE if heard == relative_key(asked) else OTHER
