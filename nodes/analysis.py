"""A finished song -> what a video needs: beats, envelopes, subtitles and pictures that move with it.

Letters: B takes or pictures, C channels, N samples, H height, W width.
"""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..songgen_core.analysis.captions import PLACES, burn_subtitles
from ..songgen_core.analysis.fonts import system_font_folders
from ..songgen_core.analysis.song_analysis import analyze_song
from ..songgen_core.analysis.subtitles import parse_subtitles, to_lrc, to_srt
from ..songgen_core.analysis.visuals import STYLES, draw_sound, parse_colour
from . import host
from ._compat import font_input, fps_input, inp, schema
from .sockets import takes_of

_LISTS = "One FLOAT value that is a Python list, as KJNodes and other audio-reactive packs expect it"


class AnalyzeSong(io.ComfyNode):
    """AUDIO -> tempo, beats, envelopes, sections and subtitles of its first take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenAnalyzeSong",
            display_name="Analyze Song",
            description=(
                "Finds tempo, beats and downbeats of a song, its loudness and onsets for every picture of a"
                " video, its sections and, from the lyrics, when each line is sung. Needs no model. What is"
                " not found is left empty; times of sections and lines are estimates."
            ),
            search_aliases=["bpm", "beat", "tempo", "audio reactive", "lrc", "srt", "subtitles", "envelope"],
            inputs=[
                io.Audio.Input("audio", tooltip="A song of any sample rate; the first take is analysed."),
                fps_input("Pictures per second of the video: loudness and onsets get one value for each."),
                inp(
                    io.String.Input,
                    "lyrics",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "The lyrics the song was made from, tags included. Without them sections are"
                        " approximate and there are no subtitles."
                    ),
                ),
                io.Audio.Input(
                    "vocal",
                    optional=True,
                    tooltip=(
                        "The voice of this song alone, from Split Stems or Separate Audio: places sections"
                        " and lines where somebody sings."
                    ),
                ),
            ],
            outputs=[
                io.Float.Output(
                    "tempo",
                    display_name="bpm",
                    tooltip="Beats per minute, 50 to 200; at times half or double. 0: no beat found.",
                ),
                io.Float.Output(
                    "beat_times",
                    display_name="beats",
                    tooltip=f"Times of the beats in seconds. {_LISTS}; empty if there is no steady beat.",
                ),
                io.Float.Output(
                    "downbeat_times",
                    display_name="downbeats",
                    tooltip=f"Times of the first beat of each bar in seconds, four beats assumed. {_LISTS}.",
                ),
                io.Float.Output(
                    "loudness",
                    display_name="loudness",
                    tooltip=f"0 to 1 for each picture; 0 is 50 dB below the loudest one. {_LISTS}.",
                ),
                io.Float.Output(
                    "onsets",
                    display_name="onsets",
                    tooltip=f"0 to 1 for each picture: how strongly notes and drums begin. {_LISTS}.",
                ),
                io.String.Output(
                    "sections",
                    display_name="sections",
                    tooltip="JSON list of tag, start, end (seconds) and source: how each was found.",
                ),
                io.String.Output(
                    "lrc",
                    display_name="lrc",
                    tooltip="The lines of the lyrics with their times, for players.",
                ),
                io.String.Output(
                    "srt", display_name="srt", tooltip="The same as subtitles, for Burn Subtitles or a file."
                ),
                io.Int.Output(
                    "frames", display_name="frames", tooltip="Pictures that last as long as the song."
                ),
                io.String.Output(
                    "analysis",
                    display_name="analysis",
                    tooltip="Everything as JSON, with confidences, levels in dB and eight frequency bands.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        audio: dict[str, Any] | None,
        fps: float,
        lyrics: str = "",
        vocal: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        takes, rate = takes_of(audio, "audio")
        stems, stem_rate = takes_of(vocal, "vocal") if vocal is not None else ([None], rate)
        found = analyze_song(
            takes[0],
            rate,
            fps=fps,
            lyrics=lyrics,
            vocal=stems[0],
            vocal_rate=stem_rate,
            on_progress=host.NodeProgress(cls),
            cancelled=host.stop_if_cancelled,
        )
        envelopes, beats = found.envelopes, found.beats
        numbers = (beats.times, beats.downbeats, envelopes.loudness, envelopes.onsets)
        texts = (found.sections_json(), to_lrc(found.lines), to_srt(found.lines))
        return io.NodeOutput(
            beats.bpm or 0.0, *(list(values) for values in numbers), *texts, found.frames, found.to_json()
        )


class BurnSubtitles(io.ComfyNode):
    """IMAGE batch and subtitles -> IMAGE batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenBurnSubtitles",
            display_name="Burn Subtitles",
            description=(
                "Writes subtitles into the pictures of a video. Takes a font that has all their characters"
                " from models/fonts or the system, Chinese included, and stops if there is none."
            ),
            search_aliases=["lyrics video", "karaoke", "captions", "srt", "lrc"],
            inputs=[
                io.Image.Input("images", tooltip="The pictures of the video, the first one at 0 s."),
                inp(
                    io.String.Input,
                    "subtitles",
                    default="",
                    multiline=True,
                    tooltip="SRT or LRC: from Analyze Song, or typed.",
                ),
                fps_input("Pictures per second of the video, as in Create Video."),
                inp(
                    io.Int.Input,
                    "size",
                    display_name="size (px)",
                    default=0,
                    min=0,
                    max=400,
                    tooltip="Height of the letters in pixels; 0 is a fourteenth of the picture.",
                ),
                inp(
                    io.String.Input,
                    "colour",
                    default="#ffffff",
                    tooltip="Colour of the letters as #rrggbb; their outline is black.",
                ),
                inp(
                    io.Combo.Input,
                    "position",
                    options=list(PLACES),
                    default=PLACES[0],
                    tooltip="Where in the picture the lines stand.",
                ),
                font_input(),
            ],
            outputs=[
                io.Image.Output(
                    "subtitled", display_name="images", tooltip="The pictures with the subtitles in them."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, subtitles: str | None = None, colour: str | None = None) -> bool | str:
        return host.problem((parse_subtitles, subtitles), (parse_colour, colour))

    @classmethod
    def execute(
        cls,
        images: Tensor,
        subtitles: str,
        fps: float,
        size: int,
        colour: str,
        position: str,
        font: str = "",
    ) -> io.NodeOutput:
        host.check_choice("position", position, PLACES)
        drawn = burn_subtitles(
            images,
            parse_subtitles(subtitles),
            fps,
            font_folders=font_folders(),
            font=font.strip(),
            size=size,
            colour=parse_colour(colour),
            place=position,
            on_progress=host.NodeProgress(cls),
            cancelled=host.stop_if_cancelled,
        )
        return io.NodeOutput(drawn)


class Visualizer(io.ComfyNode):
    """AUDIO -> IMAGE batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenVisualizer",
            display_name="Audio Visualizer",
            description=(
                "Draws pictures that move with a song, bars of the spectrum or the wave, for Create Video or"
                " as the guide of a video model. Pictures take much memory: 30 s of 512x288 at 24 fps are"
                " 1.2 GB, and 4 GB are the most."
            ),
            search_aliases=["spectrum", "waveform", "equalizer", "music video", "audio reactive"],
            inputs=[
                io.Audio.Input("audio", tooltip="Any sample rate and channels; the first take is drawn."),
                fps_input("Pictures per second of the video, as in Create Video."),
                _side("width", 512),
                _side("height", 288),
                inp(
                    io.Combo.Input,
                    "style",
                    options=list(STYLES),
                    default=STYLES[0],
                    tooltip="bars: levels from bass to treble. wave: the sound wave itself.",
                ),
                inp(
                    io.String.Input,
                    "colour",
                    default="#40c4ff",
                    tooltip="Colour of the drawing as #rrggbb; the ground is black.",
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
                    tooltip="Where the drawing begins, in seconds; long songs can be drawn in parts.",
                ),
                inp(
                    io.Float.Input,
                    "max_seconds",
                    display_name="at most (s)",
                    default=30.0,
                    min=0.0,
                    max=3600.0,
                    step=0.1,
                    round=0.001,
                    tooltip="The most that is drawn, in seconds; 0 draws to the end if 4 GB suffice.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="One picture per frame, on black."),
                io.Int.Output("frames", display_name="frames", tooltip="How many pictures there are."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, colour: str | None = None) -> bool | str:
        return host.problem((parse_colour, colour))

    @classmethod
    def execute(
        cls,
        audio: dict[str, Any] | None,
        fps: float,
        width: int,
        height: int,
        style: str,
        colour: str,
        start: float,
        max_seconds: float,
    ) -> io.NodeOutput:
        takes, rate = takes_of(audio, "audio")
        images = draw_sound(
            takes[0],
            rate,
            fps=fps,
            width=width,
            height=height,
            style=style,
            colour=parse_colour(colour),
            start=start,
            max_seconds=max_seconds,
            on_progress=host.NodeProgress(cls),
            cancelled=host.stop_if_cancelled,
        )
        return io.NodeOutput(images, images.shape[0])


def _side(name: str, default: int) -> io.Input:
    size = {"default": default, "min": 16, "max": 4096, "step": 16}
    return inp(io.Int.Input, name, display_name=f"{name} (px)", tooltip="In pixels.", **size)


def font_folders() -> list[Path]:
    """ComfyUI's models/fonts, whether it exists or not, and the system's."""
    return [Path(folder_paths.models_dir, "fonts"), *system_font_folders()]
