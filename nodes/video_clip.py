"""A finished song -> the clip of it that a video model works on, and its number of pictures.

Letters: C channels, N samples.
"""

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..songgen_core import AudioError
from ..songgen_core.analysis.clip_times import GRIDS, LONGEST, Clip, plan_clip
from . import host
from ._compat import fps_input, inp, schema
from .sockets import Audio, takes_of, to_audio

_UNITS = {"min": 0.0, "max": LONGEST, "step": 0.01, "round": 0.000001}  # finer than a sample


class VideoClip(io.ComfyNode):
    """AUDIO -> the AUDIO of one clip, and its number of pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenVideoClip",
            display_name="Audio for a Video Clip",
            description=(
                "Cuts the part of a song that a video model makes pictures for, and counts them: as many as"
                " the model can make, and sound that lasts exactly as long. next_start is where the"
                " following clip begins; clips in a row give the whole song without a gap."
            ),
            search_aliases=[
                "wan",
                "s2v",
                "humo",
                "ltx",
                "lip sync",
                "talking",
                "trim audio",
                "frames",
                "fps",
            ],
            inputs=[
                io.Audio.Input(
                    "audio",
                    tooltip="A song, or its voice alone for a model that moves lips; any sample rate.",
                ),
                inp(
                    io.Float.Input,
                    "start",
                    default=0.0,
                    **_UNITS,
                    tooltip="Where the clip begins, in seconds; next_start of the clip before.",
                ),
                inp(
                    io.Float.Input,
                    "seconds",
                    default=0.0,
                    **_UNITS,
                    tooltip=(
                        "How long the clip should be, to the nearest picture; 0 goes to the end of the song"
                        " or to max_frames."
                    ),
                ),
                fps_input(
                    default=16.0,
                    tooltip="Pictures per second that the model makes: Wan S2V 16, HuMo 25, LTX 24 or 25.",
                ),
                inp(
                    io.Combo.Input,
                    "grid",
                    options=list(GRIDS),
                    default="4k+1 (Wan, HuMo)",
                    tooltip=(
                        "Numbers of pictures that the model can make. The length is rounded up to the next"
                        " one; where the song has ended, less than one step is filled with silence."
                    ),
                ),
                inp(
                    io.Int.Input,
                    "max_frames",
                    default=0,
                    min=0,
                    max=100000,
                    optional=True,
                    tooltip="The most pictures that the model makes at once: Wan S2V 77, HuMo 97. 0: any.",
                ),
                io.Audio.Input(
                    "second",
                    optional=True,
                    tooltip=(
                        "Another track of the same song, cut alike: the mix for the sound of the video while"
                        " the voice moves the lips."
                    ),
                ),
            ],
            outputs=[
                io.Audio.Output("clip", display_name="audio", tooltip="The clip, frames / fps seconds long."),
                io.Audio.Output(
                    "second_clip",
                    display_name="second",
                    tooltip="The same moments of second; without one, the same as audio.",
                ),
                io.Int.Output("frames", display_name="frames", tooltip="The length for the video model."),
                io.Float.Output("clip_fps", display_name="fps", tooltip="As given, for Create Video."),
                io.Float.Output("clip_seconds", display_name="seconds", tooltip="frames / fps."),
                io.Float.Output(
                    "next_start",
                    display_name="next_start",
                    tooltip="Start of the clip after this one, in seconds.",
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="Whether the song was trimmed or filled with silence, and how to go on.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        audio: Audio | None,
        start: float,
        seconds: float,
        fps: float,
        grid: str,
        max_frames: int = 0,
        second: Audio | None = None,
    ) -> io.NodeOutput:
        host.check_choice("grid", grid, tuple(GRIDS))
        takes, rate = _track(audio, "audio")
        clip = plan_clip(
            _seconds(takes, rate), start=start, seconds=seconds, fps=fps, grid=grid, max_frames=max_frames
        )
        part, info = _cut(takes, rate, clip), clip.describe()
        if second is None:
            other = part
        else:
            takes, rate = _track(second, "second")
            other, info = _cut(takes, rate, clip), f"{info}{_shortage(_seconds(takes, rate), clip)}"
        return io.NodeOutput(part, other, clip.frames, clip.fps, clip.seconds, clip.next_start, info)


def _track(audio: Audio | None, source: str) -> tuple[list[Tensor], int]:
    """Takes [C, N] and their rate, which a clip can be cut from. Raises AudioError."""
    takes, rate = takes_of(audio, source)
    if rate < 1:
        raise AudioError(f"{source} has the sample rate {rate}; connect audio with samples per second")
    return takes, rate


def _seconds(takes: list[Tensor], rate: int) -> float:
    return takes[0].shape[-1] / rate


def _cut(takes: list[Tensor], rate: int, clip: Clip) -> Audio:
    return to_audio(torch.stack([clip.cut(take, rate) for take in takes]), rate)


def _shortage(seconds: float, clip: Clip) -> str:
    """A line if the second track ends before the first one. Raises AudioError if it lacks the clip."""
    if seconds <= clip.start:
        raise AudioError(
            f"second ends at {seconds:g} s, before the clip starts at {clip.start:g} s;"
            " connect another track of the same song"
        )
    missing = min(clip.next_start, clip.song_seconds) - seconds
    return f"\nsecond ends {missing:.3g} s before audio does; silence fills it" if missing > 0.001 else ""
