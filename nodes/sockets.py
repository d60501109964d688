"""What travels between nodes: our socket types, and the contract of ComfyUI's AUDIO.

AUDIO is a dictionary {"waveform": float [B, C, N] on the CPU, "sample_rate": int}.
Letters: B batch (takes), C channels, N audio samples.
"""

from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..songgen_core import AudioError
from ..songgen_core.audio.resample import check_recording, resample_pyav
from ..songgen_core.prompts.recording import Recording, Source

Audio = dict[str, Any]

SongModelSocket = io.Custom("SONGGEN_MODEL")  # a host.SongModel
CodesSocket = io.Custom("SONGGEN_CODES")  # Tensor [1, 3, frames] int64: mixed, vocal, accompaniment
PromptSocket = io.Custom("SONGGEN_PROMPT")  # a songgen_core Prompt: codes, and latents of a recording


def to_audio(samples: Tensor, sample_rate: int) -> Audio:
    """Samples [B, C, N] -> AUDIO with memory of its own, so that no larger tensor is kept alive."""
    waveform = samples.detach().to("cpu", torch.float32, memory_format=torch.contiguous_format)
    if waveform.untyped_storage().nbytes() > waveform.nbytes:
        waveform = waveform.clone()
    return {"waveform": waveform, "sample_rate": int(sample_rate)}


def takes_of(audio: Audio | None, source: str) -> tuple[list[Tensor], int]:
    """AUDIO -> takes [C, N] float32 on the CPU and their rate; `source` names the input in messages."""
    if audio is None:
        raise AudioError(
            f"{source}: the connected node delivered no sound (a silent video?); connect another"
        )
    try:
        waveform, rate = audio["waveform"], int(audio["sample_rate"])
    except (TypeError, KeyError, ValueError) as error:
        raise AudioError(
            f"{source} is not AUDIO with waveform and sample_rate; connect an audio output"
        ) from error
    if not isinstance(waveform, Tensor) or waveform.ndim not in (2, 3) or 0 in waveform.shape:
        shape = list(getattr(waveform, "shape", ()))
        raise AudioError(
            f"{source} has the shape {shape}; audio is [batch, channels, samples], none of them 0"
        )
    takes = waveform if waveform.ndim == 3 else waveform[None]
    return list(takes.detach().to("cpu", torch.float32)), rate


def to_stereo(take: Tensor, rate: int) -> Tensor:
    """A take [C, N] with two channels at most: more are folded down, centre and surround included."""
    return take if take.shape[0] <= 2 else resample_pyav(take, rate, rate)


def source_of(audio: Audio | None, vocal: Audio | None, bgm: Audio | None) -> tuple[Source, list[str]]:
    """What is connected, first takes only, and what a user should know about it. Raises UserError."""
    given, notes = {}, []
    for name, recording in {"audio": audio, "vocal": vocal, "bgm": bgm}.items():
        if recording is None:
            continue
        takes, rate = takes_of(recording, name)
        if len(takes) > 1:
            notes.append(f"{name} holds {len(takes)} takes; the first one is used")
        given[name] = _recording(takes[0], rate, name)
    source = Source(given.get("audio"), given.get("vocal"), given.get("bgm"))
    return source, [*notes, _origin(source)]


def _recording(take: Tensor, rate: int, source: str) -> Recording:
    try:
        check_recording(take, rate)
    except AudioError as error:
        raise AudioError(f"{source}: {error}") from error
    return Recording(to_stereo(take, rate), rate)


def _origin(source: Source) -> str:
    """Where voice and accompaniment of a source come from."""
    if source.needs_separation:
        return "voice and accompaniment were separated"
    if source.song is None and source.vocal is None:
        return "the accompaniment was taken for the whole song, without a voice"
    if source.song is None and source.bgm is None:
        return "the voice was taken for the whole song, without an accompaniment"
    if source.song is not None and len(source.given) == 2:
        return "the stem that is not connected is the difference of the others"
    return "voice and accompaniment were given"


def recording_inputs() -> list[io.Input]:
    """What `source_of` takes."""
    return [
        io.Audio.Input("audio", optional=True, tooltip="A song, of any length, sample rate and channels."),
        io.Audio.Input(
            "vocal",
            optional=True,
            tooltip="Its voice alone, if you have it; together with bgm nothing is separated.",
        ),
        io.Audio.Input("bgm", optional=True, tooltip="Its accompaniment alone, if you have it."),
    ]
