"""`songgen sing`: one song, or several from the same lyrics."""

import secrets
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from ..errors import Cancelled, UserError
from ..pipeline import OnAudio, SongPipeline
from ..progress import IsCancelled, OnProgress
from .model import choose_model
from .options import Interrupted
from .preview import PreviewFile
from .prompt import PromptRequest
from .show import Console, duration_text
from .song import (
    MadeSong,
    Request,
    Settings,
    check_place,
    decode_text,
    make_candidates,
    read_text,
    targets_of,
    time_taken,
)
from .stopping import ctrl_c

_RANDOM_SEEDS = 2**32
_MOST_CANDIDATES = 8


def run(args: Namespace) -> int:
    """Check everything, load the model, make the song, or several."""
    console = Console(args)
    settings = Settings.of(args)
    if not 1 <= args.candidates <= _MOST_CANDIDATES:
        raise UserError(f"--candidates {args.candidates} is not possible; choose 1 to {_MOST_CANDIDATES}")
    if args.candidates > 1 and args.preview is not None:
        raise UserError("--preview goes with one song; leave out --candidates or --preview")
    if args.preview is not None:
        _check_preview(args)
    request = _request(args).mend() if args.mend else _request(args)
    requests = request.candidates(args.candidates)
    for warning in dict.fromkeys(w for r in requests for w in r.check(overwrite=args.overwrite)):
        console.warn(warning)
    chosen = choose_model(args)
    if chosen.advice:
        console.note(chosen.advice)
    if request.prompt is not None:
        request.prompt.check_files(chosen.readers(), request.lyrics)
    for warning in request.check_length(chosen.config):
        console.warn(warning)
    with console.library_warnings(), ctrl_c() as cancelled, console.progress() as on_progress:
        pipeline = chosen.load(on_progress, cancelled, longest=args.duration, songs=len(requests))
        if pipeline.plan is not None:
            console.note(pipeline.plan.summary)
        with _preview(args, pipeline) as on_audio:
            songs = _made(requests, pipeline, settings, chosen.notice, on_audio, on_progress, cancelled)
    _report(console, songs, requests, pipeline)
    return 0


def _check_preview(args: Namespace) -> None:
    """Raise AudioError, UserError unless the preview can be written; a pipe to a player always can."""
    if args.preview.exists() and not (args.preview.is_file() or args.preview.is_dir()):
        return
    check_place(args.preview, args.overwrite)
    others = [Path(args.lyrics), *targets_of(args.file, args.output).values()]
    if args.preview.resolve() in [path.resolve() for path in others]:
        raise UserError(f"{args.preview} is the lyrics or the song; choose another name for the preview")


@contextmanager
def _preview(args: Namespace, pipeline: SongPipeline) -> Iterator[OnAudio | None]:
    """What writes the preview; of several outputs it holds the mix. A stop tells what it holds.

    Raises AudioError.
    """
    if args.preview is None:
        yield None
        return
    heard = "mixed" if args.output == "separate" else args.output
    with PreviewFile(args.preview, pipeline.codec.vae.config.sample_rate) as preview:

        def add(name: str, piece: Tensor) -> None:
            if name == heard:
                preview.add(piece)

        try:
            yield add
        except (KeyboardInterrupt, Cancelled):
            if not preview.kept_seconds:
                raise
            kept = f"the preview {args.preview} holds the first {preview.kept_seconds:.1f} s"
            raise Interrupted(f"stopped; {kept}, nothing else was written") from None


def _made(
    requests: list[Request],
    pipeline: SongPipeline,
    settings: Settings,
    notice: str | None,
    on_audio: OnAudio | None,
    on_progress: OnProgress,
    cancelled: IsCancelled,
) -> list[MadeSong]:
    """All of them; a stop says how many are on the disk."""
    songs: list[MadeSong] = []
    try:
        for song in make_candidates(
            pipeline,
            requests,
            settings,
            notice=notice,
            on_audio=on_audio,
            on_progress=on_progress,
            cancelled=cancelled,
        ):
            songs.append(song)
    except (KeyboardInterrupt, Cancelled):
        if not songs:
            raise
        raise Interrupted(f"stopped; {len(songs)} of {len(requests)} songs were written") from None
    return songs


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


def _report(console: Console, songs: list[MadeSong], requests: list[Request], pipeline: SongPipeline) -> None:
    made = {song.result.seed for song in songs}
    for request in requests:
        if request.seed not in made:
            console.warn(f"seed {request.seed} is left out: the model ended the song before its first sound")
    for song in songs:
        _tell(console, song)
    last = songs[-1]
    console.say(f"made in {duration_text(last.elapsed_seconds)} on {pipeline.device}")
    told = last.summary()
    if len(requests) > 1:
        total = sum(song.result.seconds for song in songs)
        told = {"songs": [song.about() for song in songs], **time_taken(last.elapsed_seconds, total)}
    device = {"device": str(pipeline.device), "dtype": str(pipeline.dtype).removeprefix("torch.")}
    console.result({**told, **device, "warnings": console.warnings})


def _tell(console: Console, song: MadeSong) -> None:
    for saved in song.saved.values():
        console.say(f"{saved.path}: {saved.seconds:.1f} s, seed {song.result.seed}")
        if saved.limited:
            console.say(f"peaks reached {saved.peak:.2f} and were limited")
    if not song.result.ended:
        console.say("the time was up before the model ended the song; --duration sets the limit")
    if song.prompt is not None:
        console.say(f"steered by {song.prompt.about}")
