"""From a request to a score: the style, the bars of each section, chords, drums, and the sung lines."""

from dataclasses import dataclass, field
from random import Random

import numpy as np

from songgen_core.configs import FRAME_RATE
from songgen_core.text.phone_tokens import FRAMES_PER_BEAT, frames_per_beat
from songgen_core.text.phonetics import Syllable

from ..codes import FIRST_CONSONANT, PHONE_IDS, SYLLABLE_CYCLE
from . import beats
from .diction import VOICED_IDS, share_out
from .harmony import progression, triad
from .melody import Melody, new_melody
from .request import GENDERS, GENRES, INSTRUMENTS, Key, Line, Part, Request
from .score import Note, Score, Span

PLAYED_BARS = {"short": 2, "medium": 4, "long": 6, "silence": 1}
_LONGEST_HOLD = 4  # eighths of the last syllable of a line
_SILENT = PHONE_IDS["SIL"]


@dataclass(frozen=True)
class _Style:
    """All choices of a song."""

    frames_per_beat: int
    key: Key
    gender: str
    genre: str
    timbre: int
    degrees: dict[str, tuple[int, ...]]  # progression by tag
    melody: Melody

    def chord(self, tag: str, bar: int) -> tuple[int, tuple[int, int, int]]:
        """Label and pitch classes of a section's bar, from 0."""
        degrees = self.degrees.get(tag, self.degrees["verse"])
        return triad(self.key, degrees[bar % len(degrees)])


@dataclass
class _Voice:
    """What is sung, frame by frame, as it grows."""

    phone: list[int]
    k: list[int]
    midi: list[int]
    notes: list[Note] = field(default_factory=list)
    lines: list[Span] = field(default_factory=list)

    def rest_until(self, frame: int) -> None:
        """Silence keeps the number of the last syllable."""
        missing = frame - len(self.phone)
        self.phone += [_SILENT] * missing
        self.k += [(len(self.notes) - 1) % SYLLABLE_CYCLE] * missing
        self.midi += [0] * missing

    def sing(self, syllable: Syllable, midi: int, end: int) -> None:
        """One more syllable, up to frame `end`, in the line that comes next."""
        start = len(self.phone)
        phones = share_out(syllable, end - start)
        self.phone += phones
        self.k += [len(self.notes) % SYLLABLE_CYCLE] * len(phones)
        self.midi += [midi if phone < FIRST_CONSONANT or phone in VOICED_IDS else 0 for phone in phones]
        self.notes.append(Note(syllable.phones, start, end, midi, len(self.lines)))


def compose(request: Request, seed: int) -> Score:
    """The score of a request: the same for the same seed, and what the request leaves open depends on it."""
    style = _choose_style(request, Random(seed))
    fpb = style.frames_per_beat
    bar_frames = beats.BEATS_PER_BAR * fpb
    voice = _Voice([], [], [])
    chord: list[int] = []  # of each bar; 0 where the band is silent
    drummed: list[bool] = []
    sections: list[Span] = []
    for part in request.parts:
        first = len(chord)
        bars = part_bars(part, fpb)
        if part.tag == "silence":
            chord += [0] * bars
        else:
            chord += [style.chord(part.tag, bar)[0] for bar in range(bars)]
        drummed += [part.tag != "silence" and (bar > 0 or not _is_intro(part)) for bar in range(bars)]
        _sing_lines(voice, part, style, first)
        sections.append(Span(part.tag, first * bar_frames, len(chord) * bar_frames))
    voice.rest_until(len(chord) * bar_frames)
    drums = np.where(np.array(drummed)[:, None], beats.bar_drums(style.genre, fpb), 0).reshape(-1)
    chords = np.repeat(np.array(chord), bar_frames)
    pulse = np.tile(beats.bar_pulse(fpb), len(chord))
    struck = (pulse >= beats.STRUCK_BY[INSTRUMENTS[style.timbre]]) & (chords > 0)
    return Score(
        phone=np.array(voice.phone),
        k=np.array(voice.k),
        pulse=pulse,
        midi=np.array(voice.midi),
        chord=chords,
        struck=struck.astype(np.int64),
        drum=drums,
        timbre=style.timbre,
        frames_per_beat=fpb,
        key=style.key,
        gender=style.gender,
        genre=style.genre,
        sections=tuple(sections),
        lines=tuple(voice.lines),
        notes=tuple(voice.notes),
    )


def num_bars(request: Request, frames_per_beat: int) -> int:
    """Bars of the whole song at a tempo."""
    return sum(part_bars(part, frames_per_beat) for part in request.parts)


def part_bars(part: Part, frames_per_beat: int) -> int:
    """Bars of a section: its lines begin on a bar each; without lines the tag tells, or two bars."""
    if part.lines:
        return sum(_line_bars(line, frames_per_beat) for line in part.lines)
    return PLAYED_BARS.get(part.tag.rpartition("-")[2], 2)


def _line_bars(line: Line, frames_per_beat: int) -> int:
    eighths = len(line.syllables) * beats.eighths_per_syllable(frames_per_beat)
    return max(1, -(-eighths // beats.EIGHTHS_PER_BAR))


def _is_intro(part: Part) -> bool:
    return part.tag.startswith("intro")


def _choose_style(request: Request, rng: Random) -> _Style:
    """Every choice is drawn even if the request tells it: so what is told changes nothing else."""
    tempo = _free_tempo(request, rng.random())
    minor = rng.random() < 0.5
    tonic = int(rng.random() * 12)
    gender, genre, instrument = (_pick(rng, choices) for choices in (GENDERS, GENRES, INSTRUMENTS))
    if request.emotion is not None:
        minor = request.emotion == "sad"
    key = request.key or Key(tonic, minor)
    gender = request.gender or gender
    return _Style(
        frames_per_beat=frames_per_beat(request.bpm) if request.bpm is not None else tempo,
        key=key,
        gender=gender,
        genre=request.genre or genre,
        timbre=INSTRUMENTS.index(request.instrument or instrument),
        degrees={tag: progression(rng, key) for tag in ("verse", "chorus", "bridge")},
        melody=new_melody(rng, key, gender),
    )


def _free_tempo(request: Request, draw: float) -> int:
    """Any tempo at which the song is not too long; the shortest song if none is."""
    tempos = list(FRAMES_PER_BEAT)
    if request.longest is not None:
        frames = {tempo: num_bars(request, tempo) * beats.BEATS_PER_BAR * tempo for tempo in tempos}
        fitting = [tempo for tempo in tempos if frames[tempo] <= request.longest * FRAME_RATE]
        tempos = fitting or [min(tempos, key=frames.__getitem__)]
    return tempos[int(draw * len(tempos))]


def _pick(rng: Random, choices: tuple[str, ...]) -> str:
    return choices[int(rng.random() * len(choices))]


def _sing_lines(voice: _Voice, part: Part, style: _Style, first_bar: int) -> None:
    """The lines of a section that begins in bar `first_bar` of the song."""
    fpb, bar = style.frames_per_beat, first_bar
    step = beats.eighths_per_syllable(fpb)
    for number, line in enumerate(part.lines):
        bars = _line_bars(line, fpb)
        count, first = len(line.syllables), bar * beats.EIGHTHS_PER_BAR
        starts = range(first, first + count * step, step)
        sounding = [
            (style.chord(part.tag, start // beats.EIGHTHS_PER_BAR - first_bar)[1], start % 2 == 0)
            for start in starts
        ]
        pitches = style.melody.line(part.tag, number, sounding)
        # An eighth of rest stays before the next line where there is room.
        room = first + bars * beats.EIGHTHS_PER_BAR - starts[-1] - 1 if count else 0
        ends = [*starts[1:], starts[-1] + min(_LONGEST_HOLD, max(step, room))] if count else []
        voice.rest_until(beats.eighth_frame(first, fpb))
        for syllable, midi, end in zip(line.syllables, pitches, ends):
            voice.sing(syllable, midi, beats.eighth_frame(end, fpb))
        if count:
            voice.lines.append(Span(line.text, beats.eighth_frame(first, fpb), len(voice.phone)))
        bar += bars
