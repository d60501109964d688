"""Make the songs of the fixed requests and measure them, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..codec import RenderOptions
from ..configs import OutputType
from ..errors import Cancelled, UserError
from ..pipeline import SongResult
from ..progress import IsCancelled, OnProgress, Progress, ignore_progress, never_cancelled
from ..text.phonetics import Lexicon
from .held_out import HeldOut
from .song_measures import SongMeasures, measure_song

STAGE = "songs"
LONGEST = 60.0  # seconds of song; published models need three times those of the requests, not more


class Singer(Protocol):
    """What is checked: a `SongPipeline`, or anything that makes songs as it does."""

    def generate(
        self,
        lyrics: str,
        description: str | None = None,
        *,
        seed: int = 0,
        duration: float | None = None,
        rendering: RenderOptions = RenderOptions(),
        output: OutputType = "mixed",
        cancelled: IsCancelled = never_cancelled,
    ) -> SongResult:
        """A song; "separate" gives vocal, bgm and mix."""


@dataclass(frozen=True)
class Checked:
    """Songs that were made, requests that came to nothing with the reason; stopped by the user or not."""

    songs: tuple[SongMeasures, ...]
    failed: dict[str, str]
    stopped: bool = False


def check_model(
    singer: Singer,
    requests: Sequence[HeldOut],
    *,
    lexicon: Lexicon | None = None,
    seed: int = 0,
    duration: float | None = None,
    rendering: RenderOptions = RenderOptions(),
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> Checked:
    """Make and measure a song for each request.

    `seed` is added to that of each request, `duration` bounds each song (None: the model's limit). Only what
    the user could mend fails a single song. Raises Cancelled if stopped before the first song was made;
    later the songs that there are are kept.
    """
    songs: list[SongMeasures] = []
    failed: dict[str, str] = {}
    on_progress(Progress(STAGE, 0, len(requests)))
    for number, request in enumerate(requests, 1):
        try:
            if cancelled():
                raise Cancelled("stopped by the user")
            made = singer.generate(
                request.lyrics,
                request.description,
                seed=request.seed + seed,
                duration=duration,
                rendering=rendering,
                output="separate",
                cancelled=cancelled,
            )
            audio = {name: stem[0] for name, stem in made.audio.items()}
            songs.append(
                measure_song(
                    request, audio, made.sample_rate, ended=made.ended, lexicon=lexicon, cancelled=cancelled
                )
            )
        except Cancelled:
            if not songs:
                raise
            return Checked(tuple(songs), failed, stopped=True)
        except UserError as error:
            failed[request.name] = str(error)
        on_progress(Progress(STAGE, number, len(requests)))
    return Checked(tuple(songs), failed)
