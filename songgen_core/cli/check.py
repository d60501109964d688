"""`songgen check-model`: songs from fixed requests, and what can be heard in them."""

import time
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from ..checking.held_out import HeldOut, read_requests
from ..checking.report import as_json, figures_of, song_as_json, table
from ..checking.runner import LONGEST, Checked, check_model
from ..codec import RenderOptions
from ..errors import UserError
from ..pipeline import SongPipeline, SongResult
from ..seeds import check_seed
from ..text.phone_tokens import PhoneLyrics
from ..text.phonetics import LEXICON_NAME, Lexicon
from .model import choose_model
from .show import Console, duration_text
from .song import memory_advice
from .stopping import ctrl_c

_STOPPED = 130  # exit code, as of any command that was stopped
_LEFT_OUT = f"the model's folder has no {LEXICON_NAME}; give one with --lexicon"


def run(args: Namespace) -> int:
    """Load the model, make the songs, tell what was measured."""
    console = Console(args)
    requests = _requests(args)
    rendering = RenderOptions(args.steps, args.guidance_scale)
    lexicon = Lexicon.read(args.lexicon) if args.lexicon else None
    chosen = choose_model(_with_name(args))
    longest = min(LONGEST, chosen.config.max_duration)
    began = time.perf_counter()
    with console.library_warnings(), ctrl_c() as cancelled, console.progress() as on_progress:
        pipeline = chosen.load(on_progress, cancelled, longest=longest)
        if pipeline.plan is not None:
            console.note(pipeline.plan.summary)
        lexicon = lexicon or _lexicon_of(pipeline)
        more = "" if pipeline.plan is None else "more --memory, "
        checked = check_model(
            _Advised(pipeline, f"use {more}--low-memory or --dtype float16"),
            requests,
            lexicon=lexicon,
            seed=args.seed,
            duration=longest,
            on_progress=on_progress,
            cancelled=cancelled,
            rendering=rendering,
        )
    if not checked.songs:
        raise UserError(f"no song was made: {next(iter(checked.failed.values()))}")
    elapsed = time.perf_counter() - began
    _report(console, pipeline, checked, None if lexicon else _LEFT_OUT, args.seed, len(requests), elapsed)
    return _STOPPED if checked.stopped else 0


@dataclass(frozen=True)
class _Advised:
    """A pipeline whose lack of memory fails one song, not all."""

    pipeline: SongPipeline
    advice: str

    def generate(self, *request: Any, **options: Any) -> SongResult:
        with memory_advice(self.pipeline.device, self.advice):
            return self.pipeline.generate(*request, **options)


def _requests(args: Namespace) -> list[HeldOut]:
    """Raises UserError."""
    requests = read_requests()
    check_seed(args.seed + max(request.seed for request in requests))
    check_seed(args.seed)
    if args.limit is not None and not 1 <= args.limit <= len(requests):
        raise UserError(f"--limit {args.limit} is not possible; choose 1 to {len(requests)}")
    return requests[: args.limit]


def _with_name(args: Namespace) -> Namespace:
    """The options of `sing`, with the name that stands alone as the model's. Raises UserError."""
    if args.name is not None and args.model is not None:
        raise UserError(f"both {args.name} and --model {args.model} name a model; leave one of them out")
    return Namespace(**{**vars(args), "model": args.name or args.model})


def _lexicon_of(pipeline: SongPipeline) -> Lexicon | None:
    """What the model itself reads lyrics with, if it reads their sounds."""
    lyrics = pipeline.tokenizers.lyrics
    return lyrics.lexicon if isinstance(lyrics, PhoneLyrics) else None


def _report(
    console: Console,
    pipeline: SongPipeline,
    checked: Checked,
    no_vowels: str | None,
    seed: int,
    total: int,
    elapsed: float,
) -> None:
    figures = figures_of(checked.songs, no_vowels)
    for name, reason in checked.failed.items():
        console.warn(f"{name} came to nothing: {reason}")
    for line in table(figures):
        console.say(line)
    if checked.stopped:
        console.note("stopped; the figures are of the songs made until then")
    console.say(
        f"{len(checked.songs)} of {total} songs made in {duration_text(elapsed)} on {pipeline.device}"
    )
    told: dict[str, Any] = {
        "model": pipeline.name,
        "seed": seed,
        "device": str(pipeline.device),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "elapsed_seconds": round(elapsed, 2),
        "requests": total,
        "made": len(checked.songs),
        "failed": checked.failed,
        "stopped": checked.stopped,
        "figures": as_json(figures),
        "songs": [song_as_json(song) for song in checked.songs],
        "warnings": console.warnings,
    }
    console.result(told)
