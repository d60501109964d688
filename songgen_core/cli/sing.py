"""`songgen sing`: one song."""

import secrets
import sys
from argparse import Namespace
from pathlib import Path

from ..pipeline import SongPipeline
from .model import choose_model
from .prompt import PromptRequest
from .show import Console, duration_text
from .song import MadeSong, Request, Settings, decode_text, make_song, read_text
from .stopping import ctrl_c

_RANDOM_SEEDS = 2**32


def run(args: Namespace) -> int:
    """Check everything, load the model, make the song."""
    console = Console(args)
    settings = Settings.of(args)
    request = _request(args).mend() if args.mend else _request(args)
    for warning in request.check(overwrite=args.overwrite):
        console.warn(warning)
    chosen = choose_model(args)
    if request.prompt is not None:
        request.prompt.check_files(chosen.readers(), request.lyrics)
    for warning in request.check_length(chosen.config):
        console.warn(warning)
    with console.library_warnings(), ctrl_c() as cancelled, console.progress() as on_progress:
        pipeline = chosen.load(on_progress, cancelled)
        song = make_song(
            pipeline,
            request,
            settings,
            notice=chosen.notice,
            on_progress=on_progress,
            cancelled=cancelled,
        )
    _report(console, song, pipeline)
    return 0


def _request(args: Namespace) -> Request:
    seed = secrets.randbelow(_RANDOM_SEEDS) if args.seed is None else args.seed
    return Request(
        lyrics=_lyrics(args.lyrics),
        description=args.tags,
        path=args.file,
        seed=seed,
        duration=args.duration,
        output=args.output,
        audio_format=args.format,
        prompt=PromptRequest.of(args, seed),
    )


def _lyrics(name: str, limit: int = 1_000_000) -> str:
    if name == "-":
        return decode_text(sys.stdin.buffer.read(limit + 1), "standard input", limit)
    return read_text(Path(name), limit)


def _report(console: Console, song: MadeSong, pipeline: SongPipeline) -> None:
    for saved in song.saved.values():
        console.say(f"{saved.path}: {saved.seconds:.1f} s, seed {song.result.seed}")
        if saved.limited:
            console.say(f"peaks reached {saved.peak:.2f} and were limited")
    if not song.result.ended:
        console.say("the time was up before the model ended the song; --duration sets the limit")
    if song.prompt is not None:
        console.say(f"steered by {song.prompt.about}")
    console.say(f"made in {duration_text(song.elapsed_seconds)} on {pipeline.device}")
    device = {"device": str(pipeline.device), "dtype": str(pipeline.dtype).removeprefix("torch.")}
    console.result({**song.summary(), **device, "warnings": console.warnings})
