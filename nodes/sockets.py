"""What travels between nodes: our two socket types, and the contract of ComfyUI's AUDIO.

AUDIO is a dictionary {"waveform": float [B, C, N] on the CPU, "sample_rate": int}.
Letters: B batch (takes), C channels, N audio samples.
"""

from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..songgen_core import AudioError

SongModelSocket = io.Custom("SONGGEN_MODEL")  # a host.SongModel
CodesSocket = io.Custom("SONGGEN_CODES")  # Tensor [1, 3, frames] int64: mixed, vocal, accompaniment


def to_audio(samples: Tensor, sample_rate: int) -> dict[str, Any]:
    """Samples [B, C, N] -> AUDIO with memory of its own, so that no larger tensor is kept alive."""
    waveform = samples.detach().to("cpu", torch.float32, memory_format=torch.contiguous_format)
    if waveform.untyped_storage().nbytes() > waveform.nbytes:
        waveform = waveform.clone()
    return {"waveform": waveform, "sample_rate": int(sample_rate)}


def takes_of(audio: dict[str, Any] | None, source: str) -> tuple[list[Tensor], int]:
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
