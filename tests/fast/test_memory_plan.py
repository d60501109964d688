"""Memory plans: counted bytes are those of real networks and caches, counted peaks are those of real runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from tiny import LM, RENDERER, random_conditions, tiny_lm, tiny_renderer
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import fill
from songgen_core import UserError
from songgen_core.checkpoint import loader
from songgen_core.configs import VARIANTS, LeLMConfig, OobleckConfig, RendererConfig
from songgen_core.devices import exact_float32
from songgen_core.fast import memory_plan
from songgen_core.fast.memory_plan import (
    GB,
    Estimate,
    MemoryPlan,
    describe,
    make_codec,
    make_lm,
    make_plan,
    nbytes,
    rendering_bytes,
    reserve,
)
from songgen_core.fast.options import FastOptions
from songgen_core.fast.peak_memory import PeakMemory
from songgen_core.fast.quantize import quantize_
from songgen_core.fast.songs import make_caches, write_together
from songgen_core.generation.autoregressive import prefill
from songgen_core.generation.chunked import decode_chunked
from songgen_core.generation.flow import denoise
from songgen_core.generation.sampling import SamplingOptions
from songgen_core.generation.songs import SongTask
from songgen_core.layers.kv_cache import KVCache
from songgen_core.models.oobleck import OobleckVAE

CPU, META = torch.device("cpu"), torch.device("meta")
VAE = OobleckConfig(
    channels=2, c_mults=(1, 2), strides=(2, 2), latent_dim=RENDERER.latent_dim, sample_rate=100
)
LARGE = VARIANTS["v2-large"].lm


# --- counting live tensors ---------------------------------------------------------------------------------


def true_peak(function: Callable[[], object]) -> int:
    """Most bytes that torch's CPU allocator held at a time for `function`, what kernels take included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert events and kept is not None
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def test_live_tensors_are_counted_once_and_forgotten() -> None:
    before = torch.ones(1000)
    with PeakMemory() as memory:
        a = torch.zeros(1000)
        views = [a[:10], a.view(10, 100), before[1:], before.mul_(2), a.add_(1)]
        assert memory.live == memory.peak == 4000, "neither views nor what was there before"
        b = a + before
        del a, views
        assert memory.live == 4000 and memory.peak == 8000
        c = torch.empty(500, device="meta")
        assert memory.live == 6000
    del b, c
    assert memory.live == 0 and memory.peak == 8000


def test_counted_peaks_are_those_of_the_allocator() -> None:
    lm, renderer = tiny_lm(hidden_size=64, intermediate_size=200, lyrics_length=200), tiny_renderer()
    conditions, column = random_conditions(lm), torch.zeros(3, dtype=torch.int64)
    codes = torch.zeros(1, 40, dtype=torch.int64)

    def prefix() -> torch.Tensor:
        cache = lm.make_cache(2, lm.config.prefix_length + 1, torch.float32, CPU)
        return prefill(lm, conditions, column, cache)

    def window() -> torch.Tensor:
        condition, noise = renderer.condition(codes, codes), torch.randn(1, 40, 4)
        return denoise(renderer, condition, noise, torch.zeros(1, 4, 3), num_steps=2, guidance_scale=1.5)

    for function in (prefix, window):
        with torch.inference_mode():
            function()
            with PeakMemory() as memory:
                function()
            assert memory.peak == true_peak(function)


def test_what_an_operation_copies_for_another_is_counted() -> None:
    """A product of unlike batches widens one of them first; inference mode shows both as one operation."""
    a, b = torch.zeros(2, 1, 50, 40), torch.zeros(2, 15, 40, 60)
    with torch.inference_mode():
        with PeakMemory() as memory:
            product = a @ b
        widened = 2 * 15 * 50 * 40 * 4
        assert memory.peak == product.nbytes + widened == true_peak(lambda: a @ b)


def test_a_network_without_data_takes_as_much() -> None:
    lm = tiny_lm()
    peaks = []
    for network, device in ((lm, CPU), (make_lm(lm.config, torch.float32), META)):
        with torch.inference_mode(), PeakMemory() as memory:
            cache = network.make_cache(2, lm.config.prefix_length + 1, torch.float32, device)
            column = torch.zeros(3, dtype=torch.int64, device=device)
            prefill(network, random_conditions(lm).to(device), column, cache)
        peaks.append(memory.peak)
    assert peaks[0] == peaks[1]


# --- weights, caches, working memory -----------------------------------------------------------------------


def estimate_of(config: LeLMConfig = LM, dtype: torch.dtype = torch.float32) -> Estimate:
    return Estimate(config, RENDERER, VAE, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_are_those_of_real_networks(dtype: torch.dtype) -> None:
    lm = tiny_lm().to(dtype)
    counted = estimate_of(lm.config, dtype).writing("native", "native", 1)
    assert nbytes(lm) == sum(t.numel() * t.element_size() for t in lm.state_dict().values())
    assert counted.layers + counted.others + counted.text_tables == nbytes(lm)
    assert counted.text_tables == nbytes(lm.conditioner)
    assert counted.layer == nbytes(lm.main.layers[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_renderer_and_vae_are_those_that_are_loaded(dtype: torch.dtype) -> None:
    """The loader's rule by names against ours by kinds of layers."""
    renderer, vae = make_codec(RENDERER, VAE, dtype)
    loaded = tiny_renderer()
    expected = 0
    for name, tensor in loaded.state_dict().items():
        half = dtype == torch.float16 and not loader._RENDERER_FLOAT32.search(name)
        expected += tensor.numel() * (2 if half else 4)
    assert nbytes(renderer) == expected
    assert nbytes(vae) == nbytes(OobleckVAE(VAE, with_encoder=False))


@pytest.mark.parametrize("candidates", [1, 3])
def test_caches_are_those_that_are_allocated(candidates: int) -> None:
    lm, dtype = tiny_lm(), torch.float16
    estimate, length = estimate_of(dtype=dtype), LM.max_seq_len(LM.max_frames)
    for kv in ("native", "int8"):
        options = FastOptions(fixed_shapes=True, kv=kv)
        caches = make_caches(lm, 2 * candidates, length, dtype, CPU, options)
        held = sum(t.numel() * t.element_size() for cache in caches for t in tensors_of(cache))
        assert estimate.writing("native", kv, candidates).caches == held
    shape = 2 * candidates, LM.num_attention_heads, length, LM.head_dim
    stacks = LM.num_hidden_layers, LM.num_hidden_layers_sub
    reference = [KVCache(n, shape, dtype, "cpu") for n in stacks]
    allocated = sum(t.nbytes for cache in reference for t in (*cache.keys, *cache.values))
    ours = estimate.writing("native", "native", candidates).caches
    assert allocated <= ours < 1.1 * allocated, "the same, but for positions rounded up"


def tensors_of(cache: object) -> list[torch.Tensor]:
    return [t for value in vars(cache).values() if isinstance(value, list) for t in value]


def test_writing_takes_no_more_than_was_counted() -> None:
    """The fast loop itself, on the CPU, in the layout that the card has."""
    lm = tiny_lm(hidden_size=64, intermediate_size=200)
    counted = estimate_of(lm.config).writing("native", "native", 1)
    task = SongTask(random_conditions(lm), LM.max_frames, torch.Generator().manual_seed(0))
    options = FastOptions(fixed_shapes=True, pack=False, kv="native")
    with PeakMemory() as memory:
        for _ in write_together(
            lm, [task], SamplingOptions(), dtype=torch.float32, device=CPU, options=options
        ):
            pass
    needed = counted.caches + counted.buffers + counted.working
    assert 0.8 * needed < memory.peak <= 1.02 * needed


def test_rendering_takes_what_was_counted() -> None:
    renderer, latents = tiny_renderer(), torch.randn(1, 4, 40)
    vae = OobleckVAE(VAE, with_encoder=False).requires_grad_(False)
    with torch.inference_mode():
        with PeakMemory() as euler:
            codes = torch.zeros(1, 40, dtype=torch.int64)
            condition, noise = renderer.condition(codes, codes), torch.randn(1, 40, 4)
            denoise(renderer, condition, noise, latents[..., :10], num_steps=3, guidance_scale=1.5)
        with PeakMemory() as decoding:
            decode_chunked(vae.decode, latents, VAE.hop_length, chunk_size=40)
        counted = rendering_bytes(*make_codec(RENDERER, VAE, torch.float32), 40)
    peak = max(euler.peak, decoding.peak)
    assert 0.9 * peak < counted.working < 1.1 * peak
    assert (
        true_peak(partial(decode_chunked, vae.decode, latents, VAE.hop_length, chunk_size=40))
        >= decoding.peak
    )


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_narrow_weights_are_those_of_real_networks(kind: str) -> None:
    lm = tiny_lm()
    linears = [m for stack in (lm.main, lm.sub) for m in stack.modules() if isinstance(m, nn.Linear)]
    rest = nbytes(lm) - nbytes(*linears)
    by_hand = 0
    for outputs, inputs in (layer.weight.shape for layer in linears):
        groups = -(-inputs // 64)
        by_hand += outputs * (inputs + 4 if kind == "int8" else groups * (32 + 2 + 2))
    counted = estimate_of().writing(kind, "native", 1)
    assert nbytes(quantize_(lm, kind)) == by_hand + rest
    assert counted.layers + counted.others + counted.text_tables == by_hand + rest
    assert counted.layer == nbytes(lm.main.layers[0])


# --- plans -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan_of() -> Callable[..., MemoryPlan]:
    """Plans of a model of few layers: quick, but with every choice to make. Measured once for all budgets."""
    config = replace(LARGE, num_hidden_layers=4, num_hidden_layers_sub=2)
    renderer, vae = RendererConfig(num_hidden_layers=4), replace(OobleckConfig(), channels=32)
    measured = cache(lambda dtype, duration: Estimate(config, renderer, vae, dtype=dtype, duration=duration))

    def make(
        budget: float, candidates: int = 1, dtype: torch.dtype = torch.float16, duration: float | None = None
    ) -> MemoryPlan:
        return make_plan(int(budget * GB), measured(dtype, duration), candidates=candidates)

    return make


def test_a_larger_budget_never_gives_a_worse_plan(plan_of: Callable[..., MemoryPlan]) -> None:
    plans = [plan_of(budget / 8) for budget in range(8, 60)]
    order = memory_plan.PRECISIONS[::-1]
    ranks = [
        (p.fits, -p.layers_in_ram, order.index((p.weights, p.kv)), not p.layers_in_ram and p.most_candidates)
        for p in plans
    ]
    precisions = [rank[:3] for rank in ranks]
    assert precisions == sorted(precisions)
    assert {(p.weights, p.kv) for p in plans} >= {("native", "native"), ("native", "int8"), ("int4", "int8")}
    for weights in ("native", "int8"):  # with the same precision more room is for staying together
        chosen = [p for p in plans if (p.weights, p.kv, p.fits) == (weights, "native", True)]
        assert [p.together for p in chosen] == sorted(p.together for p in chosen)
    assert not plans[0].fits and plans[-1].fits and plans[-1].together
    assert plans[-1].most_candidates > 1 and not plans[-1].text_tables_in_ram


def test_plans_stay_within_their_budgets(plan_of: Callable[..., MemoryPlan]) -> None:
    for budget in range(8, 60, 3):
        plan = plan_of(budget / 8)
        if plan.fits:
            assert plan.peak <= plan.budget
            for stage in (plan.writing, plan.rendering):
                assert sum(stage.values()) + reserve(plan.budget) <= plan.peak
        assert ("renderer" in plan.writing) == ("KV cache" in plan.rendering) == plan.together
        assert ("text tables" in plan.writing) != plan.text_tables_in_ram


def test_what_would_fit_does_fit(plan_of: Callable[..., MemoryPlan]) -> None:
    tight = next(p for b in range(8, 60) if (p := plan_of(b / 16)).fits)
    assert tight.layers_in_ram and (tight.weights, tight.kv) == ("int4", "int8")
    assert tight.longest_seconds is None or tight.longest_seconds < tight.seconds
    enough = plan_of(tight.needed / GB)
    assert enough.fits and not enough.layers_in_ram
    assert plan_of(tight.needed / GB - 0.01).layers_in_ram
    for budget in range(8, 60):
        plan = plan_of(budget / 16)
        if plan.longest_seconds is not None:
            assert not plan_of(budget / 16, duration=plan.longest_seconds).layers_in_ram
            break
    else:
        pytest.fail("no budget has a shorter song as its remedy")


def test_songs_side_by_side_take_memory(plan_of: Callable[..., MemoryPlan]) -> None:
    one, four = plan_of(8), plan_of(8, candidates=4)
    assert one.most_candidates >= 4 and four.candidates == 4
    assert four.writing["KV cache"] == 4 * one.writing["KV cache"]


def test_in_bfloat16_the_renderer_is_in_float32(plan_of: Callable[..., MemoryPlan]) -> None:
    half, brain = (plan_of(16, dtype=dtype) for dtype in (torch.float16, torch.bfloat16))
    assert brain.writing["renderer"] > 1.9 * half.writing["renderer"]
    assert brain.writing["language model"] == half.writing["language model"]


def test_a_duration_beyond_the_model_is_refused() -> None:
    with pytest.raises(UserError, match="this model makes 1 to 40 s"):
        Estimate(LM, RENDERER, VAE, duration=50)


def test_plans_are_told_in_a_few_lines(plan_of: Callable[..., MemoryPlan]) -> None:
    roomy, tight, hopeless = (plan_of(b) for b in (7, 1.75, 0.25))
    text = describe(roomy)
    assert text.startswith("7.0 GB of card memory, a song of 270 s: ") and "float16" in text
    assert "while the song is written" in text and "songs can be written in one pass" in text
    assert "take turns" in describe(tight) and "stay in RAM" in describe(tight)
    assert "does not fit" in describe(hopeless) and f"{hopeless.needed / GB:.1f} GB" in describe(hopeless)
    for plan in (roomy, tight, hopeless):
        lines = describe(plan).splitlines()
        assert 1 <= len(lines) <= 9 and all(len(line) <= 140 for line in lines)


def test_plans_of_published_models() -> None:
    """The promise: v2-large within 12 GB, v2-medium within 8 GB, both without layers in RAM."""
    for name, budget in (("v2-large", 12), ("v2-medium", 8)):
        plan = make_plan(budget * GB, Estimate(VARIANTS[name].lm))
        assert plan.fits and not plan.layers_in_ram and plan.weights != "int4"
        assert 0.6 * plan.budget < plan.peak <= plan.budget


# --- on a card ---------------------------------------------------------------------------------------------


def tight_plan(dtype: torch.dtype, frames: int) -> tuple[LeLMConfig, MemoryPlan]:
    """A model of a few GB, and a budget that holds all of it in 16 bit and hardly more."""
    config = replace(VARIANTS["v2-medium"].lm, num_hidden_layers=6, num_hidden_layers_sub=2)
    estimate = Estimate(config, dtype=dtype, duration=frames / 25)
    roomy = make_plan(100 * GB, estimate)
    tensors = roomy.peak - reserve(roomy.budget)
    return config, make_plan(int((tensors + memory_plan._LIBRARIES) / (1 - memory_plan._GAPS)) + 2, estimate)


def test_a_tight_budget_holds_all() -> None:
    _, plan = tight_plan(torch.float16, 1000)
    assert plan.together and not plan.text_tables_in_ram and (plan.weights, plan.kv) == ("native", "native")
    assert 0.999 * plan.budget < plan.peak <= plan.budget < 6 * GB


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kv", ["native", "int8"])
def test_a_plan_is_kept_on_a_card(kv: str) -> None:
    """Writing and rendering side by side while torch may take no more than the budget."""
    device, dtype, frames = torch.device("cuda", 0), torch.float16, 1000
    config, plan = tight_plan(dtype, frames)
    lm = fill(make_lm(config, dtype), device)
    renderer, vae = (
        fill(network, device, gain=0.3) for network in make_codec(RendererConfig(), OobleckConfig(), dtype)
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.set_per_process_memory_fraction(
        plan.budget / torch.cuda.get_device_properties(device).total_memory, device
    )
    try:
        task = SongTask(memory_plan._conditions(config), frames, torch.Generator().manual_seed(0))
        options = FastOptions(kv=kv)  # 8 bit needs less
        for written in write_together(
            lm, [task], SamplingOptions(), dtype=dtype, device=device, options=options
        ):
            if written[0].written >= 64:
                break
        with torch.inference_mode(), exact_float32(device):
            codes = torch.zeros(1, frames, dtype=torch.int64, device=device)
            latents = denoise(
                renderer,
                renderer.condition(codes, codes),
                torch.randn(1, frames, 64).to(device),
                torch.zeros(1, 64, 0, device=device),
                num_steps=2,
                guidance_scale=1.5,
            )
            decode_chunked(vae.decode, latents, vae.config.hop_length, chunk_size=plan.chunk_frames)
        torch.cuda.synchronize(device)
        assert torch.cuda.max_memory_reserved(device) <= plan.budget
        assert torch.cuda.max_memory_allocated(device) <= plan.peak
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        del lm, renderer, vae
        torch.cuda.empty_cache()
