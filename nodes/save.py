"""AUDIO -> files in ComfyUI's output folder, with the workflow inside.

Letters: C channels, N audio samples.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..songgen_core import UserError
from ..songgen_core.audio.files import FORMATS, save_audio
from ..songgen_core.audio.resample import resample_pyav
from ..songgen_core.progress import OnProgress
from . import host
from ._compat import inp, schema
from .sockets import takes_of

log = logging.getLogger("songgen")

_MP3_RATES = (32000, 44100, 48000)
_PATIENCE = 2.0  # seconds of saving before the node says how far it is
_BAD_CHARACTERS = '<>:"|?*'


class SaveAudio(io.ComfyNode):
    """AUDIO -> one file per take, and a player."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenSaveAudio",
            display_name="Save Audio (SongGen)",
            description=(
                "Saves audio to ComfyUI's output folder: FLAC and WAV in 24 bits, WAV in 32-bit float, or"
                " MP3 in 320"
                " kbit/s. FLAC and MP3 carry the workflow, lyrics included: drop the file on the canvas"
                " to restore it."
            ),
            search_aliases=["export", "flac", "wav", "mp3"],
            inputs=[
                io.Audio.Input(
                    "audio", tooltip="One to eight channels, any sample rate; every take gets its own file."
                ),
                prefix_input("songgen/song"),
                inp(
                    io.Combo.Input,
                    "format",
                    options=list(FORMATS),
                    default=FORMATS[0],
                    tooltip=(
                        "flac is lossless and restores the workflow. wav and wav32 hold no workflow. mp3"
                        " is small."
                    ),
                ),
            ],
            outputs=[
                io.Audio.Output(
                    "saved", display_name="audio", tooltip="The audio as it came in, to go on with."
                )
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return host.problem((check_prefix, filename_prefix))

    @classmethod
    def execute(cls, audio: dict[str, Any] | None, filename_prefix: str, format: str) -> io.NodeOutput:
        host.check_choice("format", format, FORMATS)
        takes, rate = takes_of(audio, "audio")
        tags = workflow_tags(getattr(cls, "hidden", None))
        progress = host.NodeProgress(cls, patience=_PATIENCE)
        shown = []
        for number, take in enumerate(takes):
            report = host.share_of(progress, number, len(takes))
            shown.append(save_take(take, rate, number, filename_prefix, format, tags, report))
        return io.NodeOutput(audio, ui={"audio": shown})


def check_prefix(prefix: str) -> str:
    """`prefix`, or UserError for one that is no name or leads out of the output folder."""
    if not isinstance(prefix, str) or not prefix.strip(" ./\\"):
        raise UserError("filename_prefix is empty; write the start of a file name, such as songgen/song")
    path = PureWindowsPath(prefix)  # knows drives and both kinds of slashes, on every system
    if path.anchor or ".." in path.parts:
        raise UserError(
            f"filename_prefix {prefix[:80]!r} leads out of the output folder; use a name or folders inside"
            " it, without .."
        )
    bad = next((c for c in prefix if c in _BAD_CHARACTERS or not c.isprintable()), None)
    if bad is not None:
        raise UserError(f"filename_prefix holds {bad!r}, which file names cannot hold everywhere; remove it")
    if any(len(part.encode()) > 200 for part in path.parts):
        raise UserError("filename_prefix is too long for a file name; shorten each part to 200 bytes")
    return prefix


def prefix_input(default: str, more: str = "") -> io.Input:
    tooltip = "Start of the file name, with folders under the output folder; a number is added."
    return inp(io.String.Input, "filename_prefix", default=default, tooltip=tooltip + more)


def next_path(prefix: str, suffix: str) -> Path:
    """The next free name under the output folder, such as `song_00001_.flac`. Raises UserError."""
    output = folder_paths.get_output_directory()
    folder, name, counter, *_ = folder_paths.get_save_image_path(check_prefix(prefix), output)
    return Path(folder, f"{name}_{counter:05}_{suffix}")


def shown_file(path: Path) -> dict[str, str]:
    """A file of the output folder as the frontend and clients ask for it."""
    subfolder = os.path.relpath(path.parent, folder_paths.get_output_directory())
    return {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": "output"}


def shown_text(path: Path) -> dict[str, list[Any]]:
    """`ui` of a node whose file the frontend cannot play."""
    return {"text": [str(path)], "files": [shown_file(path)]}


def workflow_tags(hidden: Any) -> dict[str, str]:
    """Prompt and workflow as the frontend reads them back: plain ASCII JSON."""
    if hidden is None or args.disable_metadata:
        return {}
    parts: Mapping[str, Any] = {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
    return {name: json.dumps(value) for name, value in parts.items() if value is not None}


def save_take(
    samples: Tensor,
    rate: int,
    number: int,
    prefix: str,
    audio_format: str,
    tags: dict[str, str],
    on_progress: OnProgress,
) -> dict[str, str]:
    """Write one take [C, N] under the next free name; returns what the frontend needs to play it."""
    suffix = ".wav" if audio_format.startswith("wav") else f".{audio_format}"
    path = next_path(prefix.replace("%batch_num%", str(number)), suffix)
    samples, rate = storable(samples, rate, audio_format)
    saved = save_audio(
        path,
        samples,
        rate,
        audio_format=audio_format,
        tags=tags,
        on_progress=on_progress,
        cancelled=host.stop_if_cancelled,
    )
    if saved.limited:
        log.info("%s: peaks of %.2f were limited to full scale", path.name, saved.peak)
    return shown_file(path)


def storable(samples: Tensor, rate: int, audio_format: str) -> tuple[Tensor, int]:
    """Samples [C, N] -> what every format can hold: one or two channels, and for MP3 one of its rates."""
    channels, new_rate = samples.shape[0], rate
    if audio_format == "mp3" and rate not in _MP3_RATES:
        new_rate = _MP3_RATES[-1]
    if channels <= 2 and new_rate == rate:
        return samples, rate
    return resample_pyav(samples, rate, new_rate), new_rate
