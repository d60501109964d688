"""The one door to the fast path: what writes and renders songs, the reference or something quicker.

Nothing else knows the package `fast`. Without it, or where it cannot run, everything works as before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, NoReturn, Protocol

import torch
from torch import Tensor

from .codec import RenderAudio, render_audio
from .configs import LeLMConfig, OobleckConfig, RendererConfig
from .errors import Cancelled, UserError
from .generation.songs import SongLoop, one_by_one
from .models.lelm import LeLM
from .progress import IsCancelled, OnProgress, Progress

EngineName = Literal["auto", "reference"]
ENGINES: tuple[EngineName, ...] = ("auto", "reference")
WeightKind = Literal["native", "int8", "fp8", "int4"]
WEIGHTS: tuple[WeightKind, ...] = ("native", "int8", "fp8", "int4")

OnLayer = Callable[[int, int], None]  # layers done, layers in all


class Streamed(Protocol):
    """A song that was heard while it was made: codes [1, 3, T], output name -> audio [1, C, N]."""

    @property
    def codes(self) -> Tensor: ...

    @property
    def audio(self) -> dict[str, Tensor]: ...

    @property
    def ended(self) -> bool: ...


SingStreaming = Callable[..., Streamed]  # arguments as `fast.streaming.sing_streaming` has them


@dataclass(frozen=True)
class Planned:
    """How songs of up to `num_frames` frames are made within `budget` bytes.

    engine: what makes them so. weights: for `Engine.narrow`. low_memory: the networks take turns on the
    device. text_tables_in_ram: the language model's conditioner does not go there. summary: for the user.
    """

    engine: "Engine"
    budget: int
    num_frames: int
    weights: str
    low_memory: bool
    text_tables_in_ram: bool
    summary: str


class Engine(Protocol):
    """How the stages are computed."""

    @property
    def render_audio(self) -> RenderAudio:
        """What renders codes."""

    def song_loop(self, lm: LeLM, device: torch.device) -> SongLoop:
        """The loop that writes songs with `lm`, as its weights lie now."""

    @property
    def sing_streaming(self) -> SingStreaming | None:
        """What renders a song while it is being written; None where nothing can."""

    def check_weights(self, weights: str, device: torch.device) -> None:
        """Raise UserError unless weights can be so on `device`; to be asked before gigabytes are read."""

    def narrow(self, lm: LeLM, weights: str, on_layer: OnLayer) -> None:
        """Store the layers of both transformers of `lm` in 8 or 4 bit, in place; "native" leaves them.

        Raises UserError where a weight is damaged.
        """

    def check_memory(self, budget: float, device: torch.device) -> None:
        """Raise UserError unless songs can be planned for `budget` GB; to be asked before files are read."""

    def plan(
        self,
        budget: float,
        lm: LeLMConfig,
        renderer: RendererConfig,
        vae: OobleckConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
        weights: str | None = None,
        low_memory: bool = False,
        longest: float | None = None,
    ) -> Planned:
        """The best way to make songs within `budget` GB (1e9 bytes) of `device`, or of RAM where it has none.

        `weights` and `low_memory` that were asked for are kept. `longest`: seconds of song, None is the
        model's limit. Raises UserError where nothing fits, with the smallest budget that does.
        """


class ReferenceEngine:
    """The networks as they are."""

    @property
    def render_audio(self) -> RenderAudio:
        return render_audio

    def song_loop(self, lm: LeLM, device: torch.device) -> SongLoop:
        return one_by_one

    @property
    def sing_streaming(self) -> SingStreaming | None:
        return None

    def check_weights(self, weights: str, device: torch.device) -> None:
        if weights != "native":
            raise UserError(f"weights in {weights} need the engine 'auto'; choose it, or weights 'native'")

    def narrow(self, lm: LeLM, weights: str, on_layer: OnLayer) -> None:
        self.check_weights(weights, lm.main.norm.weight.device)  # native ones are all that it has

    def check_memory(self, budget: float, device: torch.device) -> NoReturn:
        raise UserError("a budget of memory needs the engine 'auto'; choose it, or give no budget")

    def plan(self, budget: float, *networks: Any, device: torch.device, **wishes: Any) -> NoReturn:
        self.check_memory(budget, device)


def load_engine(name: str = "auto") -> Engine:
    """`auto` is the fast path where it is installed. Raises UserError on another name."""
    if name not in ENGINES:
        raise UserError(f"engine '{name}' is unknown; choose one of {', '.join(ENGINES)}")
    if name == "auto" and find_spec(f"{__package__}.fast") is not None:
        engine: Engine = import_module(f"{__package__}.fast.engine").FastEngine()
        return engine
    return ReferenceEngine()


def on_layer(weights: str, on_progress: OnProgress, cancelled: IsCancelled) -> OnLayer:
    """A listener for `Engine.narrow` that reports progress and raises Cancelled."""

    def report(done: int, total: int) -> None:
        if cancelled():
            raise Cancelled("stopped by the user")
        on_progress(Progress(f"loading language model in {weights}", done, total))

    return report


def check_budget(budget: float) -> None:
    """Raise UserError unless `budget` can be gigabytes of memory."""
    if not 0 < budget <= 1000:  # also catches NaN
        raise UserError(f"memory of {budget:g} GB is none; give it in GB, such as 8")


def describe_memory(
    budget: float, config: LeLMConfig, *, dtype: torch.dtype, duration: float | None = None
) -> str:
    """How a song of `duration` seconds is made on a card of `budget` GB (1e9 bytes), in a few lines.

    Raises UserError on a duration that the model cannot make, a budget of nothing, or without the fast path.
    """
    check_budget(budget)
    if find_spec(f"{__package__}.fast") is None:
        raise UserError("memory plans are part of the fast engine, which is not installed here")
    plans = import_module(f"{__package__}.fast.memory_plan")
    plan = plans.make_plan(int(budget * 1e9), plans.Estimate(config, dtype=dtype, duration=duration))
    return str(plans.describe(plan))
