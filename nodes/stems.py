"""Any recording -> its stems, by Demucs.

Letters: C channels, N samples.
"""

from pathlib import Path
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor, nn

from ..songgen_core import UserError
from ..songgen_core.audio.resample import two_channels
from ..songgen_core.checkpoint.layout import find_shared
from ..songgen_core.progress import OnProgress
from ..songgen_core.prompts.load_separator import load_separator, selftest_separator
from ..songgen_core.prompts.separation import split_stems
from ..songgen_core.seeds import MAX_SEED
from ..songgen_core.selftest import SELFTEST
from . import host
from ._compat import inp, schema
from .sockets import takes_of, to_audio, to_stereo

AUTO = "auto"
STEMS = ("vocals", "drums", "bass", "other", "accompaniment")  # our outputs; the core says "vocal"


class SeparateAudio(io.ComfyNode):
    """AUDIO -> five AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SongGenSeparateAudio",
            display_name="Separate Audio (Demucs)",
            description=(
                "Separates any recording into voice, drums, bass and the rest with HTDemucs (Meta, MIT"
                ' licence). Needs the package demucs (pip install "demucs>=4.1") and its weights,'
                " htdemucs.pth, under models/songgen."
            ),
            search_aliases=["stems", "vocals", "karaoke", "instrumental", "demucs"],
            inputs=[
                io.Audio.Input("audio", tooltip="Any sample rate and channels; every take is separated."),
                inp(
                    io.Combo.Input,
                    "separator",
                    options=[AUTO, SELFTEST],
                    default=AUTO,
                    tooltip=(
                        "auto: the htdemucs weights found under models/songgen or models/SongGeneration."
                        " selftest: no files; random weights whose stems are nonsense, to try workflows with."
                    ),
                ),
                inp(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,
                    tooltip="Draws the shifts; it changes hardly anything.",
                ),
                inp(
                    io.Int.Input,
                    "shifts",
                    default=1,
                    min=0,
                    max=10,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "The mean of so many separations, each of the recording a little shifted: a little"
                        " better, so many times as slow. 0: one that is not shifted."
                    ),
                ),
                inp(
                    io.Float.Input,
                    "overlap",
                    default=0.25,
                    min=0.0,
                    max=0.9,
                    step=0.05,
                    round=0.01,
                    display_mode=io.NumberDisplay.slider,
                    optional=True,
                    advanced=True,
                    tooltip="Share of each chunk of 7.8 s that the next one hears again; more is slower.",
                ),
            ],
            outputs=[
                io.Audio.Output(name, display_name=name, tooltip=f"{text}, stereo, at the rate of the input.")
                for name, text in zip(
                    STEMS,
                    ("The voice", "Drums", "Bass", "The other instruments", "The recording less the voice"),
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(
        cls,
        audio: dict[str, Any] | None = None,
        separator: str | None = None,
        seed: int | None = None,
        shifts: int | None = None,
        overlap: float | None = None,
    ) -> str:
        """State of the weights, where they are found."""
        try:
            return SELFTEST if separator == SELFTEST else host.state_of([separator_file()])
        except (UserError, OSError) as error:
            return str(error)

    @classmethod
    def execute(
        cls,
        audio: dict[str, Any] | None,
        separator: str,
        seed: int,
        shifts: int = 1,
        overlap: float = 0.25,
    ) -> io.NodeOutput:
        host.check_choice("separator", separator, (AUTO, SELFTEST))
        takes, rate = takes_of(audio, "audio")
        # Held to the end: ComfyUI takes a network whose patcher is gone for a leak.
        patcher, progress = host.whole(separator_of(separator)), host.NodeProgress(cls)
        device = host.place_separator(patcher)
        parts = []
        for number, take in enumerate(takes):
            report = host.share_of(progress, number, len(takes))
            parts.append(_separated(patcher.model, take, rate, seed, shifts, overlap, device, report))
        return io.NodeOutput(*(to_audio(torch.stack(stem), rate) for stem in zip(*parts)))


def _separated(
    network: nn.Module,
    take: Tensor,
    rate: int,
    seed: int,
    shifts: int,
    overlap: float,
    device: torch.device,
    on_progress: OnProgress,
) -> list[Tensor]:
    """A take [C, N] -> its STEMS, each [2, N]."""
    mix = two_channels(to_stereo(take, rate))
    stems = split_stems(
        network,
        mix,
        rate,
        seed=seed,
        shifts=shifts,
        overlap=overlap,
        device=device,
        on_progress=on_progress,
        cancelled=host.stop_if_cancelled,
    )
    return [*(stems[name] for name in ("vocal", "drums", "bass", "other")), mix - stems["vocal"]]


def separator_file() -> Path:
    """The weights under the model folders. Raises CheckpointError."""
    return find_shared("separator", host.model_roots())


def separator_of(choice: str) -> nn.Module:
    """HTDemucs on the CPU. Raises CheckpointError, UserError without the package demucs."""
    with torch.inference_mode(False):  # as in LoadLeVoModel
        return selftest_separator() if choice == SELFTEST else load_separator(separator_file())
