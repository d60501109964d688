"""The one door to the fast path: what writes and renders songs, the reference or something quicker.

Nothing else knows the package `fast`. Without it, or where it cannot run, everything works as before.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Literal, Protocol

import torch

from .codec import RenderAudio, render_audio
from .errors import UserError
from .generation.songs import SongLoop, one_by_one
from .models.lelm import LeLM

EngineName = Literal["auto", "reference"]
ENGINES: tuple[EngineName, ...] = ("auto", "reference")


class Engine(Protocol):
    """How the stages are computed."""

    @property
    def render_audio(self) -> RenderAudio:
        """What renders codes."""

    def song_loop(self, lm: LeLM, device: torch.device) -> SongLoop:
        """The loop that writes songs with `lm`, as its weights lie now."""


class ReferenceEngine:
    """The networks as they are."""

    @property
    def render_audio(self) -> RenderAudio:
        return render_audio

    def song_loop(self, lm: LeLM, device: torch.device) -> SongLoop:
        return one_by_one


def load_engine(name: str = "auto") -> Engine:
    """`auto` is the fast path where it is installed. Raises UserError on another name."""
    if name not in ENGINES:
        raise UserError(f"engine '{name}' is unknown; choose one of {', '.join(ENGINES)}")
    if name == "auto" and find_spec(f"{__package__}.fast") is not None:
        engine: Engine = import_module(f"{__package__}.fast.engine").FastEngine()
        return engine
    return ReferenceEngine()
