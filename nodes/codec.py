"""Recordings to codes, and codes to files and back."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.v0_0_2 import io

from ..songgen_core import FRAME_RATE, UserError
from ..songgen_core.codes_file import SUFFIX, load_codes, save_codes
from ..songgen_core.prompts.recording import encode_song
from ..songgen_core.seeds import MAX_SEED
from . import host
from ._compat import inp, schema
from .save import check_prefix, next_path, prefix_input, shown_text
from .sockets import CodesSocket, SongModelSocket, recording_inputs, source_of

NOTHING = "no file of codes found"
_LISTED = Path("songgen")  # in the output folder; of the input folder everything is listed
_OWN_NOTES = ("format", "format_version", "frame_rate", "streams", "seconds")


class EncodeAudioTokens(io.ComfyNode):
    """AUDIO -> codes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenEncodeAudioTokens",
            display_name="Encode Audio Tokens",
            description=(
                "Encodes a recording of any length to codes, 25 frames a second, as Generate Tokens makes"
                " them. Connect a whole song, whose voice is then separated (needs the package demucs and its"
                " weights), or voice and accompaniment that are apart already."
            ),
            search_aliases=["codec", "tokens", "codes", "LeVo"],
            inputs=[
                SongModelSocket.Input("model", tooltip="From Load LeVo Model."),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,
                    tooltip="Draws how the separator shifts the recording; it changes little.",
                ),
                *recording_inputs(),
            ],
            outputs=[
                CodesSocket.Output(
                    "codes", display_name="codes", tooltip="For Diffusion Render, Save Tokens."
                ),
                io.Float.Output("seconds", display_name="seconds", tooltip="Length of the codes in seconds."),
                io.String.Output("info", display_name="info", tooltip="What was encoded, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: host.SongModel,
        seed: int,
        audio: dict[str, Any] | None = None,
        vocal: dict[str, Any] | None = None,
        bgm: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        source, notes = source_of(audio, vocal, bgm)
        progress = host.NodeProgress(cls)
        model.readers.check()
        codes = encode_song(
            source,
            separator=model.readers.separator,
            encoders=lambda: model.readers.encoders(progress),
            seed=seed,
            on_progress=progress,
            cancelled=host.stop_if_cancelled,
        )
        return io.NodeOutput(codes, codes.shape[-1] / FRAME_RATE, "\n".join([length_of(codes), *notes]))


def length_of(codes: torch.Tensor) -> str:
    frames = codes.shape[-1]
    return f"{frames / FRAME_RATE:.2f} s, {frames} frames"


class SaveTokens(io.ComfyNode):
    """Codes -> a file in the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenSaveTokens",
            display_name="Save Tokens",
            description=(
                "Saves codes to ComfyUI's output folder, some 20 kB a minute, to be rendered again whenever"
                " you like: see Load Tokens."
            ),
            search_aliases=["codec", "codes", "export"],
            inputs=[
                CodesSocket.Input("codes", tooltip="From Generate Tokens or Encode Audio Tokens."),
                prefix_input("songgen/codes", " Load Tokens lists what is in the folder songgen."),
                inp(
                    io.String.Input,
                    "notes",
                    multiline=True,
                    default="",
                    optional=True,
                    dynamic_prompts=False,
                    tooltip="Kept in the file, and shown by Load Tokens; such as info of Generate Tokens.",
                ),
            ],
            outputs=[
                CodesSocket.Output("saved", display_name="codes", tooltip="The codes as they came in."),
                io.String.Output("path", display_name="path", tooltip="Where the file is; for Load Tokens."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        return host.problem((check_prefix, filename_prefix))

    @classmethod
    def execute(cls, codes: torch.Tensor, filename_prefix: str, notes: str | None = None) -> io.NodeOutput:
        path = next_path(filename_prefix, SUFFIX)
        save_codes(path, codes, {"notes": notes} if notes else None)
        return io.NodeOutput(codes, str(path), ui=shown_text(path))


class LoadTokens(io.ComfyNode):
    """A file in the input or output folder -> codes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = list_files()
        return schema(
            node_id="SongGenLoadTokens",
            display_name="Load Tokens",
            description="Loads codes that Save Tokens or the songgen command has written.",
            search_aliases=["codec", "codes", "import"],
            inputs=[
                inp(
                    io.Combo.Input,
                    "file",
                    options=files or [NOTHING],
                    default=(files or [NOTHING])[0],
                    tooltip=(
                        "A .safetensors file of codes in ComfyUI's input folder, or in the folder songgen of"
                        " the output folder. Press R after a file was added."
                    ),
                ),
                inp(
                    io.String.Input,
                    "path",
                    default="",
                    optional=True,
                    advanced=True,
                    dynamic_prompts=False,
                    tooltip=(
                        "Takes precedence over file: path of a file inside the input or output folder, such"
                        " as path of Save Tokens."
                    ),
                ),
            ],
            outputs=[
                CodesSocket.Output("codes", display_name="codes", tooltip="For Diffusion Render."),
                io.Float.Output("seconds", display_name="seconds", tooltip="Length of the codes in seconds."),
                io.String.Output("info", display_name="info", tooltip="Length, and the notes of the file."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None, path: str | None = None) -> bool | str:
        """In place of ComfyUI's own check: with a linked path (None), `file` may say what was there once."""
        name = path or (None if file == NOTHING else file)
        return host.problem((path_of, name or None))

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, path: str | None = None) -> str:
        """State of the file; a linked name is not known yet (None)."""
        try:
            return host.state_of([path_of(path or file or NOTHING)])
        except (UserError, OSError) as error:
            return str(error)

    @classmethod
    def execute(cls, file: str, path: str | None = None) -> io.NodeOutput:
        if not path and file == NOTHING:
            raise UserError(f"{NOTHING}; save some with Save Tokens, or copy one into ComfyUI's input folder")
        codes, notes = load_codes(path_of(path or file))
        told = [f"{key}: {value}" for key, value in notes.items() if key not in _OWN_NOTES]
        return io.NodeOutput(codes, codes.shape[-1] / FRAME_RATE, "\n".join([length_of(codes), *told]))


def list_files() -> list[str]:
    """Names as ComfyUI writes them: plain in the input folder, `name [output]` in the output folder."""
    output = folder_paths.get_output_directory()
    found = [*_below(folder_paths.get_input_directory(), Path(), ""), *_below(output, _LISTED, " [output]")]
    return sorted(found, key=str.casefold)


def _below(base: str, folder: Path, mark: str) -> Iterator[str]:
    for path in Path(base, folder).rglob(f"[!.]*{SUFFIX}"):
        if path.is_file() and not path.is_symlink():  # a link may lead out of the folder
            yield path.relative_to(base).as_posix() + mark


def path_of(name: str) -> Path:
    """The file that a name of `list_files`, or a path, means. Raises UserError for one elsewhere."""
    homes = [Path(folder_paths.get_input_directory()), Path(folder_paths.get_output_directory())]
    plain, base = name, homes[0]
    if marked := re.fullmatch(r"(.+) \[(input|output)\]", name):
        plain, base = marked[1], homes[marked[2] == "output"]
    try:
        path = (base / plain).resolve()
        inside = any(path.is_relative_to(home.resolve()) for home in homes)
    except (OSError, ValueError, RuntimeError):  # a zero byte, a loop of links
        inside = False
    if not inside or path.suffix != SUFFIX:
        raise UserError(
            f"{name[:80]!r} is no {SUFFIX} file inside ComfyUI's input or output folder; choose one there"
        )
    return path
