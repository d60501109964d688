"""Subtitles -> a file that players and video editors read."""

from comfy_api.v0_0_2 import io

from ..songgen_core.analysis.subtitles import parse_subtitles, to_lrc, to_srt
from ..songgen_core.atomic import complete_or_nothing
from . import host
from ._compat import inp, schema
from .save import check_prefix, next_path, prefix_input, shown_text

_FORMATS = {"srt": to_srt, "lrc": to_lrc}


class SaveSubtitles(io.ComfyNode):
    """SRT or LRC -> a file of either kind in the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenSaveSubtitles",
            display_name="Save Subtitles",
            description=(
                "Saves timed lyrics to ComfyUI's output folder: SRT for video editors, LRC for music players."
                " Either kind is read and can be saved as the other."
            ),
            search_aliases=["export", "srt", "lrc", "lyrics", "karaoke"],
            inputs=[
                inp(
                    io.String.Input,
                    "subtitles",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="SRT or LRC: from Analyze Song, or typed.",
                ),
                prefix_input("songgen/song"),
                inp(
                    io.Combo.Input,
                    "format",
                    options=list(_FORMATS),
                    default="srt",
                    tooltip="srt: times of beginning and end. lrc: a time before each line.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "path",
                    display_name="path",
                    tooltip="Where the file is; empty if there were no lines to save.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, subtitles: str | None = None, filename_prefix: str | None = None) -> bool | str:
        return host.problem((parse_subtitles, subtitles), (check_prefix, filename_prefix))

    @classmethod
    def execute(cls, subtitles: str, filename_prefix: str, format: str) -> io.NodeOutput:
        written = _FORMATS[host.check_choice("format", format, tuple(_FORMATS))]
        lines = parse_subtitles(subtitles)
        if not lines:  # a song without words; the rest of the graph goes on
            return io.NodeOutput("", ui={"text": ["there are no lines: nothing was saved"]})
        path = next_path(filename_prefix, f".{format}")
        with complete_or_nothing(path) as temporary:
            temporary.write_text(written(lines), encoding="utf-8", newline="\n")
        return io.NodeOutput(str(path), ui=shown_text(path))
