"""A song and pictures -> a music video: covers drawn without a model, and cuts at the beats.

Letters: B pictures, H height, W width.
"""

import logging
from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..songgen_core.analysis.cover_colours import words_of
from ..songgen_core.analysis.covers import (
    ASPECTS,
    LARGEST,
    MOST_VARIATIONS,
    SMALLEST,
    STYLES,
    draw_covers,
    lettering_for,
)
from ..songgen_core.analysis.cuts import EVEN_BEAT, ORDERS, beat_times, cut_to_beat
from ..songgen_core.seeds import MAX_SEED
from . import host
from ._compat import font_input, fps_input, inp, schema
from .analysis import font_folders
from .sockets import takes_of

log = logging.getLogger("songgen")


class CoverArt(io.ComfyNode):
    """A song, its title and its style -> IMAGE batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenCoverArt",
            display_name="Cover Art",
            description=(
                "Draws covers of a song without any model: colours from the words of its description, lines"
                " from its sound, title and artist in letters. Several variations are stills for Cut To The"
                " Beat. The pictures of an image model can take its place anywhere."
            ),
            search_aliases=["album cover", "artwork", "thumbnail", "title card", "poster", "music video"],
            inputs=[
                inp(
                    io.String.Input,
                    "title",
                    default="",
                    tooltip="Written on every picture, in a font that has its characters; empty: no title.",
                ),
                inp(
                    io.String.Input,
                    "artist",
                    default="",
                    tooltip="Written in small letters above the title; empty: no artist.",
                ),
                inp(
                    io.Combo.Input,
                    "aspect",
                    options=list(ASPECTS),
                    default="1:1",
                    tooltip="Width to height. 1:1 for shops and players, 16:9 and 9:16 for videos.",
                ),
                inp(
                    io.Int.Input,
                    "size",
                    display_name="size (px)",
                    default=1024,
                    min=SMALLEST,
                    max=LARGEST,
                    step=8,
                    tooltip="The longer side; both sides are rounded to multiples of 8.",
                ),
                inp(
                    io.Combo.Input,
                    "style",
                    options=list(STYLES),
                    default=STYLES[0],
                    tooltip=(
                        "rings: the song runs around, a ring for each band. mountains: bands one behind the"
                        " other. field: lines of passages. sun: a ray for each moment. mixed: variations take"
                        " turns."
                    ),
                ),
                inp(
                    io.Int.Input,
                    "variations",
                    default=1,
                    min=1,
                    max=MOST_VARIATIONS,
                    tooltip="How many pictures; they share the colours and differ in light, place and style.",
                ),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed gives other pictures; the same one the same.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The song that is drawn, its first take; without it lines are drawn by lot.",
                ),
                inp(
                    io.String.Input,
                    "description",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "The style tags of the song, or any sentence: words such as sad, energetic, warm or"
                        " jazz choose the colours. Without such words the seed does."
                    ),
                ),
                font_input(),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="One picture for each variation.")
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        title: str | None = "",
        artist: str | None = "",
        aspect: str | None = None,
        size: int | None = None,
        description: str | None = "",
        font: str | None = "",
    ) -> bool | str:
        # A linked text is not known yet; the other one can be looked at without it.
        letters = (title or "", artist or "", aspect, size, font_folders(), font and font.strip())
        return host.problem((lettering_for, *letters), (words_of, description))

    @classmethod
    def execute(
        cls,
        title: str,
        artist: str,
        aspect: str,
        size: int,
        style: str,
        variations: int,
        seed: int,
        audio: dict[str, Any] | None = None,
        description: str = "",
        font: str = "",
    ) -> io.NodeOutput:
        takes, rate = ([None], 0) if audio is None else takes_of(audio, "audio")
        images = draw_covers(
            title=title,
            artist=artist,
            audio=takes[0],
            sample_rate=rate,
            description=description,
            aspect=aspect,
            size=size,
            seed=seed,
            variations=variations,
            style=style,
            font_folders=font_folders(),
            font=font.strip(),
            on_progress=host.NodeProgress(cls),
            cancelled=host.stop_if_cancelled,
        )
        return io.NodeOutput(images)


class CutToBeat(io.ComfyNode):
    """IMAGE batch and beats -> IMAGE batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenCutToBeat",
            display_name="Cut To The Beat",
            description=(
                "Makes a video of stills or short clips that changes its picture with the beats of a song and"
                " pulses with them. Pictures take much memory: 30 s of 512x288 at 24 fps are 1.2 GB, and 4 GB"
                " are the most."
            ),
            search_aliases=["music video", "slideshow", "beat sync", "audio reactive", "edit", "montage"],
            inputs=[
                io.Image.Input(
                    "pictures",
                    tooltip="Stills as one batch, or the pictures of several clips one after the other.",
                ),
                inp(
                    io.Float.Input,
                    "beats",
                    force_input=True,
                    tooltip=(
                        "Beats or downbeats from Analyze Song: times in seconds, one FLOAT value that is a"
                        " Python list. Where it is empty there is a cut as if a beat came every half second."
                    ),
                ),
                fps_input("Pictures per second of the video, as in Analyze Song and Create Video."),
                inp(
                    io.Int.Input,
                    "frames",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip=(
                        "How many pictures the video has: connect frames of Analyze Song, else Create Video"
                        " cuts the song off. 0 ends with the last beat."
                    ),
                ),
                inp(
                    io.Int.Input,
                    "every",
                    default=4,
                    min=1,
                    max=32,
                    tooltip=(
                        "A cut at the first beat and at every so many after it: 4 is once a bar, also 1 with"
                        " downbeats. A cut within half a beat of the start is left out."
                    ),
                ),
                inp(
                    io.Combo.Input,
                    "order",
                    options=list(ORDERS),
                    default=ORDERS[0],
                    tooltip="shuffled: drawn by the seed, each once in a round, none twice in a row.",
                ),
                inp(
                    io.Float.Input,
                    "pulse",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="A zoom that jumps at each beat and fades: 1 is a quarter larger, 0 is none.",
                ),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Draws the shuffled order; nothing else depends on it.",
                ),
                inp(
                    io.Int.Input,
                    "clip_length",
                    default=1,
                    min=1,
                    max=100_000,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "How many pictures in a row make one clip, which plays forth and back until the next"
                        " cut; 1: they are stills."
                    ),
                ),
                inp(
                    io.Float.Input,
                    "start",
                    display_name="start (s)",
                    default=0.0,
                    min=0.0,
                    max=3600.0,
                    step=0.1,
                    round=0.001,
                    optional=True,
                    tooltip=(
                        "Where the pictures begin, in seconds of the song; long songs can be made in parts,"
                        " which have the cuts of the whole."
                    ),
                ),
                inp(
                    io.Float.Input,
                    "max_seconds",
                    display_name="at most (s)",
                    default=0.0,
                    min=0.0,
                    max=3600.0,
                    step=0.1,
                    round=0.001,
                    optional=True,
                    tooltip="The most that is made, in seconds; 0 goes on to the end if 4 GB suffice.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="The pictures of the video."),
                io.Int.Output("count", display_name="frames", tooltip="How many pictures there are."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        pictures: Tensor,
        beats: list[float],
        fps: float,
        frames: int,
        every: int,
        order: str,
        pulse: float,
        seed: int,
        clip_length: int = 1,
        start: float = 0.0,
        max_seconds: float = 0.0,
    ) -> io.NodeOutput:
        times = beat_times(beats)
        images = cut_to_beat(
            pictures,
            times,
            fps=fps,
            frames=frames,
            every=every,
            order=order,
            pulse=pulse,
            seed=seed,
            clip_length=clip_length,
            start=start,
            max_seconds=max_seconds,
            on_progress=host.NodeProgress(cls),
            cancelled=host.stop_if_cancelled,
        )
        if not times:
            seconds = every * EVEN_BEAT
            log.warning("Cut To The Beat: the song has no beats; there is a cut every %g s", seconds)
        return io.NodeOutput(images, images.shape[0])
