"""What of a song model lies on a card of a given size, and in which precision.

Quality comes first. The plan is the first of these that fits, the song's stages taking turns on the card:

    layers of the language model    16 bit   16 bit   int8     int8    int4     int4    int4, some in RAM
    KV cache                        16 bit   8 bit    16 bit   8 bit   16 bit   8 bit   8 bit

Before each step down the text tables go to RAM: they are read once per song, so that this costs nothing.
Then, as far as there is room, language model and renderer stay on the card together, which streaming needs.
A CPU and Apple's GPUs have one memory for all: there everything stays, and the budget bounds all of it.

A GB is 1e9 bytes, and a budget is what torch's allocator may take. A card that is sold with 8 GB has 8.6e9
bytes; what the driver and the desktop take comes out of the difference.

Weights, caches and buffers are counted on networks that hold no data (the meta device). Working memory is the
peak of live tensors of a prefill, a decoding step, an Euler step and a decoded window, run on such networks.
What kernels take inside is not seen there, nor what the allocator loses to gaps: `reserve` allows for both.

Letters: R rows (two per song), L positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import nn

from ..codec import CHUNK_FRAMES, CHUNK_OVERLAP
from ..configs import FRAME_RATE, LeLMConfig, OobleckConfig, RendererConfig
from ..generation.chunked import decode_chunked
from ..generation.flow import guided_velocity
from ..generation.sampling import SamplingOptions
from ..generation.songs import SongTask
from ..layers.rvq import CodebookDecoder
from ..models.flow_renderer import FlowRenderer
from ..models.lelm import Conditions, LeLM
from ..models.oobleck import OobleckVAE
from ..writing import check_duration
from .options import FastOptions
from .peak_memory import PeakMemory
from .quantize import quantize_
from .songs import DecodingSession

Weights = Literal["native", "int8", "fp8", "int4"]
Cache = Literal["native", "int8"]

GB = 10**9
PRECISIONS: tuple[tuple[Weights, Cache], ...] = (  # from the best to the smallest
    *(("native", "native"), ("native", "int8")),
    *(("int8", "native"), ("int8", "int8")),
    *(("int4", "native"), ("int4", "int8")),
)
_CACHES: tuple[Cache, ...] = ("native", "int8")
MOST_CANDIDATES = 8
_SMALL_CHUNK = 64  # frames of VAE decoding where the usual chunk does not fit
_LIBRARIES = 192 << 20  # bytes of workspaces of cuBLAS and cuDNN, which lie in torch's allocator
_GAPS = 0.04  # share of the budget that the allocator may lose between tensors
_META = torch.device("meta")


@dataclass(frozen=True)
class MemoryPlan:
    """What lies where, in bytes.

    weights, kv: precision of the language model's layers and of its KV cache, "native" being `dtype`.
    candidates: songs that are written in one pass; most_candidates: how many could be, all else being equal.
    text_tables_in_ram: the conditioner stays in RAM; prefixes are made there. together: language model,
    renderer and VAE stay on the card side by side; otherwise each stage leaves it to the next.
    one_memory: there is no card with a memory of its own. chunk_frames: of VAE decoding. layers_in_ram: of
    the language model, which have no room and would have to be copied at every step. fits: whether the song
    can be made at all. longest_seconds: of a song that does without layers in RAM, where this one does not.
    needed: the smallest budget in which it would, too. writing, rendering: what lies on the card in either
    stage; peak: the most of all, `reserve` included.
    """

    budget: int
    dtype: torch.dtype
    seconds: float
    weights: Weights
    kv: Cache
    candidates: int
    most_candidates: int
    text_tables_in_ram: bool
    together: bool
    one_memory: bool
    chunk_frames: int
    layers_in_ram: int
    fits: bool
    longest_seconds: float | None
    needed: int
    writing: Mapping[str, int]
    rendering: Mapping[str, int]
    peak: int

    @property
    def works(self) -> bool:
        """Whether the engine can make the song so: it copies no layers at every step."""
        return self.fits and not self.layers_in_ram


@dataclass(frozen=True)
class WritingBytes:
    """What the first stage needs."""

    layers: int  # both transformers
    layer: int  # the largest of their layers
    others: int  # code embeddings, bridge, heads
    text_tables: int
    working: int
    caches: int = 0
    buffers: int = 0


@dataclass(frozen=True)
class RenderingBytes:
    """What the second stage needs."""

    renderer: int
    vae: int
    working: int


def nbytes(*modules: nn.Module) -> int:
    return sum(t.nbytes for module in modules for t in (*module.parameters(), *module.buffers()))


def make_lm(config: LeLMConfig, dtype: torch.dtype) -> LeLM:
    """A language model that holds no data."""
    with _META:
        return LeLM(config).to(dtype).requires_grad_(False)


class Estimate:
    """Counts what songs of one model and length take; each measurement runs once."""

    def __init__(
        self,
        lm_config: LeLMConfig,
        renderer_config: RendererConfig = RendererConfig(),
        vae_config: OobleckConfig = OobleckConfig(),
        *,
        dtype: torch.dtype = torch.float16,
        duration: float | None = None,
    ) -> None:
        """`duration` in seconds; None is the model's limit. Raises UserError on one that it cannot make."""
        self.dtype, self.num_frames = dtype, check_duration(duration, lm_config)
        self.lm = make_lm(lm_config, dtype)
        self.codec = make_codec(renderer_config, vae_config, dtype)
        self._weights: dict[Weights, WritingBytes] = {}
        self._sessions: dict[tuple[Cache, int], tuple[int, int, int]] = {}
        self._rendering: dict[int, RenderingBytes] = {}

    def rendering(self, chunk_frames: int) -> RenderingBytes:
        """For one song, with chunks of so many frames."""
        if chunk_frames not in self._rendering:
            self._rendering[chunk_frames] = rendering_bytes(*self.codec, chunk_frames)
        return self._rendering[chunk_frames]

    def writing(self, weights: Weights, kv: Cache, candidates: int) -> WritingBytes:
        """For `candidates` songs in one pass."""
        if weights not in self._weights:
            self._weights[weights] = self._measure_weights(weights)
        if (kv, candidates) not in self._sessions:
            self._sessions[kv, candidates] = self._measure_session(kv, candidates)
        counted, (caches, buffers, step) = self._weights[weights], self._sessions[kv, candidates]
        return replace(counted, caches=caches, buffers=buffers, working=max(counted.working, step))

    def _measure_weights(self, weights: Weights) -> WritingBytes:
        """Weights, and the working memory of a prefill."""
        lm = self.lm
        if weights != "native":
            lm = quantize_(make_lm(lm.config, self.dtype), weights)
        layers = [nbytes(layer) for stack in (lm.main, lm.sub) for layer in stack.layers]
        return WritingBytes(
            layers=sum(layers),
            layer=max(layers),
            others=nbytes(lm) - nbytes(lm.conditioner, lm.main.layers, lm.sub.layers),
            text_tables=nbytes(lm.conditioner),
            working=self._measure_prefill(lm),
        )

    @torch.inference_mode()
    def _measure_prefill(self, lm: LeLM) -> int:
        """Peak of one song's prefix: `FastLM.prefill` runs them one by one."""
        config = lm.config
        with PeakMemory() as memory:
            cache = lm.make_cache(2, config.prefix_length + 1, self.dtype, _META)
            start = torch.zeros(2, config.num_codebooks, 1, dtype=torch.int64, device=_META)
            lm(start, cache, lm.conditioner(_conditions(config).to(_META)))
        return memory.peak

    @torch.inference_mode()
    def _measure_session(self, kv: Cache, candidates: int) -> tuple[int, int, int]:
        """Bytes of the caches and of all other buffers, and the peak of the last step, which reads most."""
        config = self.lm.config
        tasks = [SongTask(_conditions(config), self.num_frames, torch.Generator())] * candidates
        options = FastOptions(kv=kv, fixed_shapes=True, fuse=False, pack=False)
        with PeakMemory() as memory:
            session = DecodingSession(self.lm, tasks, SamplingOptions(), self.dtype, _META, options)
            noise = torch.empty(session.batch.noise_shape, device=_META)
            held, caches = memory.live, sum(cache.nbytes for cache in session.caches)
            session.at.number = config.max_seq_len(self.num_frames) - 1
            session.step(noise)
        return caches, held - caches, memory.peak - held


def _conditions(config: LeLMConfig) -> Conditions:
    lyrics = torch.zeros(2, config.lyrics_length, dtype=torch.int64)
    description = torch.zeros(2, config.description_length, dtype=torch.int64)
    prompt = torch.zeros(2, config.num_codebooks, config.prompt_length - 1, dtype=torch.int64)
    return Conditions(lyrics, lyrics, description, prompt)


def make_codec(
    renderer: RendererConfig, vae: OobleckConfig, dtype: torch.dtype
) -> tuple[FlowRenderer, OobleckVAE]:
    """Renderer and VAE decoder that hold no data, as they are loaded beside a language model in `dtype`."""
    with _META:
        networks = FlowRenderer(renderer), OobleckVAE(vae, with_encoder=False)
    if dtype == torch.float16:  # with others the renderer stays in float32
        for module in networks[0].modules():
            if isinstance(module, nn.Linear | CodebookDecoder):
                module.to(dtype)
        networks[0].compute_dtype = dtype
    return networks


@torch.inference_mode()
def rendering_bytes(renderer: FlowRenderer, vae: OobleckVAE, chunk_frames: int) -> RenderingBytes:
    """Count for one window; both networks are on the meta device."""
    config = renderer.config
    window = 1, config.window_frames
    with PeakMemory() as euler:
        state, _noise, context = (torch.empty(*window, config.latent_dim, device=_META) for _ in range(3))
        condition = torch.empty(*window, 2 * config.cond_dim, device=_META)
        time = torch.zeros((), device=_META)
        state = state + time * guided_velocity(renderer, state, time, condition, context, 0, 1.5)
    with PeakMemory() as decoding:
        latents = torch.empty(1, config.latent_dim, config.window_frames, device=_META)
        hop = vae.config.hop_length
        decode_chunked(vae.decode, latents, hop, chunk_size=chunk_frames, overlap=CHUNK_OVERLAP)
    return RenderingBytes(nbytes(renderer), nbytes(vae), max(euler.peak, decoding.peak))


def reserve(budget: int) -> int:
    """Bytes of a budget that no tensor may count on."""
    return _LIBRARIES + int(_GAPS * budget)


def make_plan(
    budget: int,
    estimate: Estimate,
    *,
    candidates: int = 1,
    weights: Weights | None = None,
    take_turns: bool = False,
    device: str = "cuda",
) -> MemoryPlan:
    """The best way to make `candidates` songs within `budget` bytes. Takes seconds, and next to no memory.

    `weights` are what they are to be, whatever would fit. `take_turns`: language model and renderer are not
    to stay on the card together. `device` is the type of one; all but "cuda" have one memory for everything.
    """
    room, one_memory = budget - reserve(budget), device != "cuda"
    precisions = PRECISIONS if weights is None else tuple((weights, kv) for kv in _CACHES)
    count = partial(_written, estimate, device)
    chunks = {chunk: estimate.rendering(chunk) for chunk in (CHUNK_FRAMES, _SMALL_CHUNK)}
    small = chunks[_SMALL_CHUNK]

    def least(writing: WritingBytes) -> int:
        """What must have room while a song is written."""
        return _side_by_side(writing, small, True) if one_memory else _on_card(writing, text_tables=False)

    for kind, kv in precisions:
        writing = count(kind, kv, candidates)
        missing = least(writing) - room
        if missing <= 0:
            break
    layers_in_ram = 0 if one_memory else _layers_in_ram(writing, missing)
    # Text tables on the card and the usual chunk if that leaves room for all, else what saves memory.
    ways = [(tables, chunk) for chunk in chunks for tables in (True, False) if tables or not one_memory]
    together = [way for way in ways if _side_by_side(writing, chunks[way[1]], way[0]) <= room]
    apart = [
        (tables, chunk)
        for tables, chunk in ways
        if _on_card(writing, tables) - layers_in_ram <= room and _rendered(chunks[chunk]) <= room
    ]
    if one_memory:
        apart = []
    elif take_turns:
        together = []
    tables, chunk = (together or apart or ways[-1:])[0]

    def taken(songs: int) -> int:
        """What so many songs take while they are written, all else being as it was chosen."""
        several = count(kind, kv, songs)
        return _side_by_side(several, chunks[chunk], tables) if together else _on_card(several, tables)

    stages = _stages(writing, chunks[chunk], tables, layers_in_ram, bool(together))
    smallest = count(*precisions[-1], candidates)
    shorter_helps = missing > 0 and _rendered(small) <= room
    return MemoryPlan(
        budget=budget,
        dtype=estimate.dtype,
        seconds=estimate.num_frames / FRAME_RATE,
        weights=kind,
        kv=kv,
        candidates=candidates,
        most_candidates=_most_candidates(taken, candidates, room),
        text_tables_in_ram=not tables,
        together=bool(together),
        one_memory=one_memory,
        chunk_frames=chunk,
        layers_in_ram=layers_in_ram,
        fits=bool(together or apart),
        longest_seconds=_longest(writing, missing, estimate) if shorter_helps else None,
        needed=int((max(least(smallest), _rendered(small)) + _LIBRARIES) / (1 - _GAPS)) + 1,
        writing=stages[0],
        rendering=stages[1],
        peak=max(sum(stage.values()) for stage in stages) + reserve(budget),
    )


def _written(estimate: Estimate, device: str, weights: Weights, kv: Cache, songs: int) -> WritingBytes:
    """On a CPU narrow layers keep a copy of themselves, see `QuantizedLinear`."""
    writing = estimate.writing(weights, kv, songs)
    if device == "cpu" and weights != "native":
        return replace(writing, layers=2 * writing.layers)
    return writing


def _on_card(writing: WritingBytes, text_tables: bool) -> int:
    tables = writing.text_tables if text_tables else 0
    return writing.layers + writing.others + tables + writing.caches + writing.buffers + writing.working


def _rendered(rendering: RenderingBytes) -> int:
    return rendering.renderer + rendering.vae + rendering.working


def _side_by_side(writing: WritingBytes, rendering: RenderingBytes, text_tables: bool) -> int:
    idle = min(writing.working, rendering.working)  # only one of them works at a time
    return _on_card(writing, text_tables) + _rendered(rendering) - idle


def _layers_in_ram(writing: WritingBytes, missing: int) -> int:
    """Bytes of layers that must stay in RAM: those without room, and two for the buffer they pass through."""
    if missing <= 0:
        return 0
    count = -(-missing // writing.layer) + 2
    return min(count * writing.layer, max(0, writing.layers - 2 * writing.layer))


def _stages(
    writing: WritingBytes, rendering: RenderingBytes, tables: bool, layers_in_ram: int, together: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """What lies on the card while writing, and while rendering."""
    lm = {"language model": writing.layers + writing.others - layers_in_ram}
    lm |= {"text tables": writing.text_tables} if tables else {}
    lm |= {"KV cache": writing.caches, "buffers": writing.buffers}
    codec = {"renderer": rendering.renderer, "VAE": rendering.vae}
    both = lm | codec
    return (
        {**(both if together else lm), "working memory": writing.working},
        {**(both if together else codec), "working memory": rendering.working},
    )


def _most_candidates(taken: Callable[[int], int], candidates: int, room: int) -> int:
    most = candidates
    for songs in range(candidates + 1, MOST_CANDIDATES + 1):
        if taken(songs) > room:
            break
        most = songs
    return most


def _longest(writing: WritingBytes, missing: int, estimate: Estimate) -> float | None:
    """Seconds of the longest song whose cache leaves room for what is missing; None below one second."""
    per_position = writing.caches / estimate.lm.config.max_seq_len(estimate.num_frames)
    frames = estimate.num_frames - int(missing / per_position) - FRAME_RATE  # caches grow in steps
    return float(frames // FRAME_RATE) if frames >= FRAME_RATE else None


def refusal(plan: MemoryPlan, weights: Weights | None = None) -> str:
    """Why a plan that does not work is none, and what would help; `weights` are those that were asked for."""
    least = -(-plan.needed // (GB // 100)) / 100  # rounded up
    ways = [f"give {least:g} GB"]
    if plan.longest_seconds is not None:
        ways.append(f"make songs of {plan.longest_seconds:g} s at most")
    if weights not in (None, "int4"):
        ways.append("leave the choice of weights to the plan")
    return f"{plan.budget / GB:g} GB are too few to make songs of {plan.seconds:g} s; {' or '.join(ways)}"


def describe(plan: MemoryPlan) -> str:
    """A few lines for the user."""
    memory = "memory" if plan.one_memory else "card memory"
    title = f"{_gb(plan.budget)} GB of {memory}, a song of {plan.seconds:g} s"
    if not plan.fits:
        return f"{title}: does not fit; it needs {_gb(plan.needed)} GB"
    kept = _gb(reserve(plan.budget))
    lines = [
        f"{title}: takes {_gb(plan.peak)} GB at most, {kept} GB of it for libraries and gaps",
        f"  weights {_WEIGHTS[plan.weights].format(_name(plan.dtype))}, KV cache in "
        + ("8 bit" if plan.kv == "int8" else _name(plan.dtype)),
        f"  writing: {_parts(plan.writing)}",
        f"  rendering: {_parts(plan.rendering)}",
    ]
    if not plan.one_memory:
        lines.append(f"  language model and renderer {_TOGETHER if plan.together else _IN_TURN}")
    if plan.text_tables_in_ram:
        lines.append("  the text tables stay in RAM; they are read once per song")
    if plan.chunk_frames != CHUNK_FRAMES:
        lines.append(f"  the VAE decodes {plan.chunk_frames / FRAME_RATE:g} s at a time")
    if plan.most_candidates > 1:
        lines.append(f"  up to {plan.most_candidates} songs can be written in one pass")
    if plan.layers_in_ram:
        lines.append(
            f"  {_gb(plan.layers_in_ram)} GB of layers have no room: --memory refuses this, ComfyUI copies"
            f" them at every step, which is slow; all fits in {_gb(plan.needed)} GB"
            + (f", or for {plan.longest_seconds:g} s of song" if plan.longest_seconds else "")
        )
    return "\n".join(lines)


_TOGETHER = "share the card: audio can come while the song is written"
_IN_TURN = "take turns on the card: audio comes when the song is written"
_WEIGHTS = {
    "native": "in {}",
    "int8": "in int8, all but layers in {}",
    "fp8": "in fp8, all but layers in {}",
    "int4": "in int4 (some quality is lost), all but layers in {}",
}


def _parts(parts: Mapping[str, int]) -> str:
    return f"{_gb(sum(parts.values()))} GB = " + " + ".join(f"{name} {_gb(n)}" for name, n in parts.items())


def _gb(size: int) -> str:
    return f"{size / GB:.1f}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
