"""The fast engine as `songgen_core.engine` knows it."""

import logging
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..codec import RenderAudio
from ..engine import OnLayer, SingStreaming
from ..generation.songs import SongLoop, one_by_one
from ..models.lelm import LeLM
from .options import FastOptions
from .quantize import KINDS, check_kind, quantize_
from .rendering import render_audio_fast
from .songs import write_together
from .streaming import sing_streaming

log = logging.getLogger("songgen")


class FastEngine:
    """Fast where the weights lie still on the device, the reference elsewhere."""

    def __init__(self, options: FastOptions = FastOptions()) -> None:
        self.options = options

    @property
    def render_audio(self) -> RenderAudio:
        return render_audio_fast

    @property
    def sing_streaming(self) -> SingStreaming | None:
        return sing_streaming

    def song_loop(self, lm: LeLM, device: torch.device) -> SongLoop:
        """The fast loop, or the reference's if a part of `lm` is not on `device`."""
        if any(t.device.type != device.type for t in _read_at_every_step(lm)):
            log.info("fast engine: off, the language model is on %s only in part", device.type)
            return one_by_one
        if device.type == "cuda" and device.index not in (None, torch.cuda.current_device()):
            log.info("fast engine: off, it works on the current card alone (CUDA_VISIBLE_DEVICES chooses it)")
            return one_by_one
        return partial(write_together, options=self.options)

    def check_weights(self, weights: str, device: torch.device) -> None:
        if weights != "native":
            check_kind(weights, device)

    def narrow(self, lm: LeLM, weights: str, on_layer: OnLayer) -> None:
        """See `quantize.KINDS`; each original is freed as soon as its layer is done."""
        for kind in KINDS:
            if weights == kind:
                quantize_(lm, kind, on_layer)


def _read_at_every_step(lm: LeLM) -> Iterator[Tensor]:
    """All weights but the text tables, which are read once per song."""
    for name, child in lm.named_children():
        if name != "conditioner":
            yield from child.parameters()
            yield from child.buffers()
