"""A model that does exactly what it is asked, or exactly something else: the synthesiser of songs."""

from dataclasses import replace

import torch

from songgen_core.checking.held_out import HeldOut
from songgen_core.pipeline import SongResult
from songgen_core.text.musical_key import KEYS
from songgen_core.text.phonetics import Lexicon
from training.synth import Key, Line, Part, Request, Score, compose, render

RATE = 48000
LEXICON = Lexicon({}, {"月": "yue", "亮": "liang", "在": "zai", "天": "tian", "上": "shang", "走": "zou"})

REQUESTS = (
    HeldOut(
        "a",
        "[intro-short] ; [verse] Tonight we sing a happy song. The river and the moon go by.",
        *("female", "pop", "happy", "piano"),
        bpm=107,
        key="G major",
        seconds=8.96,
        seed=1,
    ),
    HeldOut(
        "b",
        "[verse] Come over to the garden gate. ; [inst-short] ; [chorus] My little boat is on the sea."
        " ; [outro-short]",
        *("male", "rock", "sad", "guitar"),
        bpm=125,
        key="A minor",
        seconds=11.52,
        seed=2,
    ),
    HeldOut(
        "c",
        "[intro-short] ; [chorus] 月亮在天上走.月亮走",
        *("male", "electronic", "happy", "synthesizer"),
        bpm=94,
        key=None,
        seconds=10.24,
        seed=3,
    ),
)


def score_of(request: HeldOut) -> Score:
    parts = tuple(
        Part(section.tag, tuple(Line(line, tuple(LEXICON.syllables(line))) for line in section.lines))
        for section in request.song.sections
    )
    key = None
    if request.key is not None:
        minor, tonic = divmod(KEYS.index(request.key), 12)
        key = Key(tonic, bool(minor))
    style = (request.gender, request.genre, request.emotion, request.instrument, request.bpm, key)
    return compose(Request(parts, *style), request.seed)


def sing(request: HeldOut) -> dict[str, torch.Tensor]:
    """vocal, bgm and mixed, [2, N] each."""
    vocal, bgm = map(torch.from_numpy, render(score_of(request)))
    return {"vocal": vocal, "bgm": bgm, "mixed": vocal + bgm}


class StandIn:
    """Sings the known request, changed by `changes`, whatever its seed."""

    def __init__(self, requests: tuple[HeldOut, ...] = REQUESTS, **changes: object) -> None:
        self.by_lyrics = {request.lyrics: request for request in requests}
        self.changes = changes
        self.seeds: list[int] = []

    def generate(self, lyrics: str, description: str | None = None, *, seed: int = 0, **_) -> SongResult:
        request = self.by_lyrics[lyrics]
        assert description == request.description
        self.seeds.append(seed)
        audio = {name: stem[None] for name, stem in sing(replace(request, **self.changes)).items()}
        codes = torch.zeros(1, 3, audio["mixed"].shape[-1] // 1920, dtype=torch.int64)
        return SongResult(codes, audio, RATE, seed, True, "stand-in")
