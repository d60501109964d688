"""The fast engine as `songgen_core.engine` knows it."""

import logging
from functools import partial

import torch

from ..codec import RenderAudio, render_audio
from ..generation.songs import SongLoop, one_by_one
from ..models.lelm import LeLM
from .options import FastOptions
from .songs import write_together

log = logging.getLogger("songgen")


class FastEngine:
    """Fast where the weights lie still on the device, the reference elsewhere."""

    def __init__(self, options: FastOptions = FastOptions()) -> None:
        self.options = options

    @property
    def render_audio(self) -> RenderAudio:
        return render_audio

    def song_loop(self, lm: LeLM, device: torch.device) -> SongLoop:
        """The fast loop, or the reference's if a part of `lm` is not on `device`."""
        if any(p.device.type != device.type for p in lm.parameters()):
            log.info("fast engine: off, the language model is on %s only in part", device.type)
            return one_by_one
        return partial(write_together, options=self.options)
