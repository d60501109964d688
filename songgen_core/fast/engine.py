"""The fast engine as `songgen_core.engine` knows it."""

import logging
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ..codec import RenderAudio
from ..configs import LeLMConfig, OobleckConfig, RendererConfig
from ..devices import free_memory, free_on
from ..engine import WEIGHTS, OnLayer, Planned, SingStreaming, check_budget
from ..errors import UserError
from ..generation.songs import SongLoop, one_by_one
from ..models.lelm import LeLM
from .memory_plan import GB, Estimate, MemoryPlan, describe, make_plan, refusal
from .options import FastOptions
from .quantize import KINDS, check_kind, quantize_
from .renderer import RendererTricks
from .rendering import RenderTricks, render_audio_fast
from .songs import write_together
from .streaming import sing_streaming
from .vae import VaeTricks

log = logging.getLogger("songgen")


class FastEngine:
    """Fast where the weights lie still on the device, the reference elsewhere."""

    def __init__(self, options: FastOptions = FastOptions(), tricks: RenderTricks = RenderTricks()) -> None:
        """Switches of the language model and of rendering."""
        self.options, self.tricks = options, tricks

    @property
    def render_audio(self) -> RenderAudio:
        return partial(render_audio_fast, tricks=self.tricks)

    @property
    def sing_streaming(self) -> SingStreaming | None:
        return partial(sing_streaming, chunk_frames=self.tricks.vae.chunk_frames)

    def song_loop(self, lm: LeLM, device: torch.device) -> SongLoop:
        """The fast loop, or the reference's if a part of `lm` is not on `device`."""
        if any(t.device.type != device.type for t in _read_at_every_step(lm)):
            log.info("fast engine: off, the language model is on %s only in part", device.type)
            return one_by_one
        if _on_another_card(device):
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

    def check_memory(self, budget: float, device: torch.device) -> None:
        """Says in the log if less than the budget is free."""
        check_budget(budget)
        if _on_another_card(device):
            raise UserError("memory is planned on the current card alone; choose it by CUDA_VISIBLE_DEVICES")
        free = free_on(device) if device.type == "cuda" else free_memory()
        if free is not None and free < budget * GB:
            log.warning("memory of %g GB is planned, but only %.1f GB are free", budget, free / GB)

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
        """`memory_plan.make_plan` as switches; they replace those of this engine that it decides on."""
        estimate = Estimate(lm, renderer, vae, dtype=dtype, duration=longest)
        asked = next((kind for kind in WEIGHTS if kind == weights), None)
        plan = make_plan(int(budget * GB), estimate, weights=asked, take_turns=low_memory, device=device.type)
        if not plan.works:
            raise UserError(refusal(plan, asked))
        return Planned(
            engine=FastEngine(*switches(plan)),
            budget=plan.budget,
            num_frames=estimate.num_frames,
            weights=plan.weights,
            low_memory=not plan.together,
            text_tables_in_ram=plan.text_tables_in_ram,
            summary=describe(plan),
        )


def switches(plan: MemoryPlan) -> tuple[FastOptions, RenderTricks]:
    """What makes songs as `plan` says. A CPU packs weights where there is room for a second copy of them."""
    spare = plan.budget - plan.peak
    options = FastOptions(
        kv=plan.kv,
        songs_at_once=plan.most_candidates,
        pack=spare >= plan.writing["language model"],
    )
    tricks = RenderTricks(
        renderer=RendererTricks(pack=spare >= plan.rendering["renderer"]),
        vae=VaeTricks(chunk_frames=plan.chunk_frames),
    )
    return options, tricks


def _on_another_card(device: torch.device) -> bool:
    return device.type == "cuda" and device.index not in (None, torch.cuda.current_device())


def _read_at_every_step(lm: LeLM) -> Iterator[Tensor]:
    """All weights but the text tables, which are read once per song."""
    for name, child in lm.named_children():
        if name != "conditioner":
            yield from child.parameters()
            yield from child.buffers()
