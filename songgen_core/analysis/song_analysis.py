"""Everything that a video needs to know about a song, from its sound and, where there are, its lyrics.

    audio --> beats, downbeats, envelopes          lyrics --> sections, on downbeats --> times of the lines
    audio alone --> parts (approximate)             vocal --> voice activity ------------/

Letters: C channels, N and M samples.
"""

import json
from dataclasses import asdict, dataclass

from torch import Tensor

from ..audio.resample import check_recording
from ..errors import AudioError, LyricsError
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from ..text.doctor import mend_lyrics
from ..text.lyrics import Song
from .beats import Array, Beats, beats_of, find_onsets
from .envelopes import Envelopes, frame_count, measure_envelopes
from .lines import TimedLine, time_lines
from .sections import SongSection, novelty_sections, sections_of_song
from .spectra import to_mono
from .voice import find_voice

SCHEMA, SCHEMA_VERSION = "songgen-analysis", 1

_STAGE, _STEPS = "analysing the song", 5
_STEM_TOLERANCE = 1.0  # seconds by which a vocal stem may be longer or shorter
_SURE_BAR = 0.05  # below this confidence downbeats are no better a place for sections than beats


@dataclass(frozen=True)
class SongAnalysis:
    """What was found; times in seconds. Whatever was not found is empty, never guessed."""

    seconds: float
    sample_rate: int
    beats: Beats
    sections: tuple[SongSection, ...]
    lines: tuple[TimedLine, ...]
    envelopes: Envelopes

    @property
    def frames(self) -> int:
        """Pictures at the given rate."""
        return self.envelopes.frames

    def sections_json(self) -> str:
        """JSON list of the sections alone."""
        return json.dumps([asdict(section) for section in self.sections], ensure_ascii=False)

    def to_json(self, indent: int | None = None) -> str:
        """JSON with schema and version; bpm is null where no beat was found."""
        content = {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            "seconds": round(self.seconds, 4),
            "sample_rate": self.sample_rate,
            "bpm": self.beats.bpm,
            "beats_per_bar": 4 if self.beats.downbeats else None,
            "beat_confidence": self.beats.confidence,
            "downbeat_confidence": self.beats.downbeat_confidence,
            "beats": self.beats.times,
            "downbeats": self.beats.downbeats,
            "sections": [asdict(section) for section in self.sections],
            "lines": [asdict(line) for line in self.lines],
            "frames": self.frames,
            "envelopes": asdict(self.envelopes),
        }
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent)


def analyze_song(
    audio: Tensor,
    sample_rate: int,
    *,
    fps: float = 24.0,
    lyrics: str | None = None,
    vocal: Tensor | None = None,
    vocal_rate: int | None = None,
    num_bands: int = 8,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> SongAnalysis:
    """Analyse audio [C, N]; `fps` is the rate of the envelopes, 1 to 120.

    `lyrics` are those the song was made from, in any form that can be mended; without them sections are only
    approximate and there are no lines. `vocal` [C, M] at `vocal_rate` (the same as the song's if None) makes
    the times of the lines better. Takes time in proportion to the length. Raises AudioError, LyricsError,
    Cancelled.
    """
    check_recording(audio, sample_rate)
    seconds = audio.shape[1] / sample_rate
    frame_count(seconds, fps)  # a wrong rate is an error before the work, not after it
    song = _song_of(lyrics) if lyrics and lyrics.strip() else None
    voiced = None if vocal is None else _voice(vocal, vocal_rate or sample_rate, seconds)

    def tell(done: int) -> None:
        on_progress(Progress(_STAGE, done, _STEPS))

    tell(0)
    mono = to_mono(audio)
    onsets = find_onsets(mono, sample_rate, cancelled)
    tell(2)
    beats = beats_of(onsets, mono, sample_rate, cancelled)
    tell(3)
    envelopes = measure_envelopes(audio, mono, sample_rate, fps, onsets.strength, num_bands, cancelled)
    tell(4)
    if song is None:
        sections, lines = novelty_sections(audio, sample_rate, cancelled), []
    else:
        bars = beats.downbeats if beats.downbeat_confidence >= _SURE_BAR else beats.times
        sections = sections_of_song(song, seconds, bars, voiced)
        lines = time_lines(song, sections, voiced)
    tell(_STEPS)
    return SongAnalysis(seconds, sample_rate, beats, tuple(sections), tuple(lines), envelopes)


def _song_of(lyrics: str) -> Song:
    """What was sung: lyrics in the model's form to the letter, others mended first. Raises LyricsError."""
    text = lyrics.strip()
    try:
        song = Song.parse(text)
    except LyricsError:
        song = None
    if song is not None and song.format() == text:
        return song
    return Song.parse(mend_lyrics(text).text)


def _voice(vocal: Tensor, rate: int, seconds: float) -> Array:
    """Voice activity of a stem that belongs to a song of `seconds`. Raises AudioError."""
    check_recording(vocal, rate)
    length = vocal.shape[1] / rate
    if abs(length - seconds) > _STEM_TOLERANCE:
        raise AudioError(
            f"the vocal stem lasts {length:.1f} s and the song {seconds:.1f} s; connect a stem of the same"
            " song"
        )
    return find_voice(vocal, rate)
