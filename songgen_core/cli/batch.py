"""`songgen batch`: the songs of a list, one after the other, with a record from which it can go on."""

import time
import traceback
from argparse import Namespace
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import Cancelled, UserError
from ..pipeline import SongPipeline
from ..progress import IsCancelled
from ..prompts.readers import PromptReaders
from ..seeds import check_seed
from .model import ChosenModel, choose_model
from .options import Interrupted
from .show import Console, duration_text
from .song import MadeSong, Settings, make_song
from .songlist import FIELDS, Defaults, Line, Record, read_songs
from .stopping import ctrl_c
from .unfinished import Unfinished


def run(args: Namespace) -> int:
    """Make every song that is not done yet. Exit code 1 if one of them failed."""
    console = Console(args)
    settings, lines = Settings.of(args), read_songs(args.songs, _defaults(args))
    chosen = choose_model(args)
    if chosen.advice:
        console.note(chosen.advice)
    batch = _Batch(console, chosen, settings, Record(args.folder), args.overwrite)
    try:
        with console.library_warnings():
            to_do = batch.check(lines)
            if to_do:
                with ctrl_c() as cancelled:
                    with console.progress() as on_progress:
                        pipeline = chosen.load(on_progress, cancelled, longest=_longest(to_do))
                    if pipeline.plan is not None:
                        console.note(pipeline.plan.summary)
                    batch.make(to_do, pipeline, cancelled)
    except (KeyboardInterrupt, Cancelled):
        counts = batch.counts
        raise Interrupted(
            f"stopped with {counts['done'] + counts['skipped']} of {len(lines)} songs done;"
            " the same command goes on from there"
        ) from None
    batch.report()
    return 1 if batch.counts["failed"] else 0


def _defaults(args: Namespace) -> Defaults:
    if args.folder.exists() and not args.folder.is_dir():
        raise UserError(f"{args.folder} is a file; name a folder with -d")
    return Defaults(
        args.folder,
        check_seed(args.seed),
        args.duration,
        args.output,
        args.format or "flac",
        args.songs.parent,
        args.mend,
    )


def _longest(lines: list[Line]) -> float | None:
    """Seconds of the longest song; None is the model's limit."""
    durations = [line.request.duration for line in lines if line.request is not None]
    known = [duration for duration in durations if duration is not None]
    return max(known) if len(known) == len(durations) else None


class _Batch:
    """The songs of one run: what is to be done, doing it, and what came of it."""

    def __init__(
        self, console: Console, chosen: ChosenModel, settings: Settings, record: Record, overwrite: bool
    ) -> None:
        self.console, self.chosen, self.settings = console, chosen, settings
        self.record, self.overwrite = record, overwrite
        self.unfinished = Unfinished(record.folder)
        self.counts: Counter[str] = Counter(done=0, skipped=0, failed=0)
        self._began = time.perf_counter()

    def check(self, lines: list[Line]) -> list[Line]:
        """Sort out what is done or cannot be made; the rest is worth loading the model for."""
        # Not kept: the pipeline has readers of its own, and a separator takes much memory.
        to_do, readers = [], self.chosen.readers()
        for line in lines:
            entry = None if self.overwrite else self.record.done(line.idx)
            if entry is not None and line.problem is None:
                self._skip(line, entry)
            elif (checked := self._checked(line, readers)).problem is not None:
                self._fail(checked, checked.problem)
            else:
                to_do.append(checked)
        return to_do

    def _checked(self, line: Line, readers: PromptReaders) -> Line:
        if line.request is None:
            return line
        request = line.request
        try:
            is_ours = self.unfinished.covers(request.targets().values())
            found = request.check(overwrite=self.overwrite or is_ours)
            found += request.check_length(self.chosen.config)
            if request.prompt is not None:
                request.prompt.check_files(readers, request.lyrics)
        except UserError as error:
            return replace(line, problem=str(error))
        for warning in (*line.warnings, *found):
            self.console.warn(f"{line.label}: {warning}")
        return replace(line, warnings=(*line.warnings, *found))

    def make(self, to_do: list[Line], pipeline: SongPipeline, cancelled: IsCancelled) -> None:
        """Raises Cancelled."""
        began = time.perf_counter()
        for number, line in enumerate(to_do):
            if cancelled():
                raise Cancelled
            left = (time.perf_counter() - began) / number * (len(to_do) - number) if number else 0.0
            about = f", about {duration_text(left)} left" if number else ""
            self.console.note(f"{number + 1} of {len(to_do)}{about}: {line.idx}")
            self._make_one(line, pipeline, cancelled)

    def _make_one(self, line: Line, pipeline: SongPipeline, cancelled: IsCancelled) -> None:
        assert line.request is not None, line
        known = len(self.console.warnings)
        try:
            with self.console.progress() as on_progress:
                song = make_song(
                    pipeline,
                    line.request,
                    self.settings,
                    notice=self.chosen.notice,
                    before_move=self.unfinished.add,
                    on_progress=on_progress,
                    cancelled=cancelled,
                )
        except Cancelled:
            raise
        except UserError as error:
            self._fail(line, str(error))
        except Exception as error:  # a bug of ours: shown as one, but the night's other songs go on
            traceback.print_exc()
            self._fail(line, f"unexpected {type(error).__name__}: {error}; please report it")
        else:
            self._done(replace(line, warnings=(*line.warnings, *self.console.warnings[known:])), song)

    def _skip(self, line: Line, entry: dict[str, Any]) -> None:
        self.counts["skipped"] += 1
        self.unfinished.remove(map(Path, entry["files"].values()))
        if any(entry.get(name) != value for name, value in line.fields.items() if name in FIELDS):
            advice = "delete its file or use --overwrite to make it again"
            self.console.warn(f"{line.label}: it was changed since it was made and is skipped; {advice}")

    def _fail(self, line: Line, problem: str) -> None:
        self.counts["failed"] += 1
        self.console.problem(f"{line.label}: {problem}")
        seed = line.request.seed if line.request else None
        self.record.append(
            {
                **line.fields,
                "line": line.number,
                "status": "failed",
                "error": problem,
                "files": {},
                "seed": seed,
            }
        )

    def _done(self, line: Line, song: MadeSong) -> None:
        self.counts["done"] += 1
        summary = song.summary()
        files = {name: Path(path).name for name, path in summary["files"].items()}
        if song.limited:
            self.console.note(f"{line.label}: peaks reached {song.peak:.2f} and were limited")
        about = {"line": line.number, "status": "done", "error": None, "warnings": list(line.warnings)}
        self.record.append({**line.fields, **summary, **about, "files": files})
        self.unfinished.remove(map(Path, files.values()))

    def report(self) -> None:
        counts, elapsed = dict(self.counts), time.perf_counter() - self._began
        text = ", ".join(f"{number} {what}" for what, number in counts.items())
        self.console.say(f"{text}; see {self.record.path}")
        self.console.result(
            {
                **counts,
                "results": str(self.record.path),
                "elapsed_seconds": round(elapsed, 2),
                "warnings": self.console.warnings,
            }
        )
