"""The fast flow renderer computes what the reference computes."""

import copy
import logging

import pytest
import torch
from tiny import RENDERER
from tiny import tiny_renderer as plain_renderer
from torch import Tensor

from songgen_core.errors import Cancelled
from songgen_core.fast import compiling
from songgen_core.fast import renderer as fast_renderer
from songgen_core.fast.renderer import FastRenderer, RendererTricks, rotate
from songgen_core.generation.flow import denoise
from songgen_core.layers.rope import rope_angles
from songgen_core.models.flow_renderer import FlowRenderer
from songgen_core.progress import interruptible

CPU = torch.device("cpu")
FLOAT32_PARTS = ("wpe", "mask_embedding", "scale_shift_table", ".ln_", "latent_norm")
TRICKS = {
    "default": RendererTricks(),
    "nothing": RendererTricks(share_times=False, fused_attention=False, pad_heads=False, pack=False),
    "share_times": RendererTricks(fused_attention=False, pack=False),
    "fused_attention": RendererTricks(share_times=False, pack=False),
    "pad_heads": RendererTricks(pad_heads=True, pack=False),
    "pad_heads without fused attention": RendererTricks(pad_heads=True, fused_attention=False),
}


def tiny_renderer() -> FlowRenderer:
    """With norms that do something of their own."""
    renderer = plain_renderer()
    for module in renderer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.normal_(1.0, 0.3), module.bias.normal_(0.0, 0.3)
    return renderer


def inputs(frames: int, known: int, rows: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [2, B, N], noise [B, N, C], context [B, C, n]."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(RENDERER.codebook_size, (2, rows, frames), generator=generator)
    noise = torch.randn(rows, frames, RENDERER.latent_dim, generator=generator)
    return codes, noise, torch.randn(rows, RENDERER.latent_dim, known, generator=generator)


@torch.inference_mode()
def latents(
    renderer, frames: int, known: int, *, steps: int = 4, guidance: float = 1.5, rows: int = 1
) -> Tensor:
    codes, noise, context = inputs(frames, known, rows)
    condition = renderer.condition(*codes)
    return denoise(renderer, condition, noise, context, num_steps=steps, guidance_scale=guidance)


def half(renderer: FlowRenderer, dtype: torch.dtype) -> FlowRenderer:
    renderer = copy.deepcopy(renderer)
    for name, parameter in renderer.named_parameters():
        if not any(part in name for part in FLOAT32_PARTS):
            parameter.data = parameter.data.to(dtype)
    renderer.compute_dtype = dtype
    return renderer


@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.parametrize(
    ("frames", "known", "guidance"), [(1, 0, 1.5), (20, 5, 1.5), (40, 0, 1.0), (40, 10, 3.0)]
)
def test_latents_are_those_of_the_reference(name: str, frames: int, known: int, guidance: float) -> None:
    reference = tiny_renderer()
    fast = FastRenderer(reference, CPU, TRICKS[name])
    exact = latents(reference, frames, known, guidance=guidance, rows=2)
    quick = latents(fast, frames, known, guidance=guidance, rows=2)
    torch.testing.assert_close(quick, exact, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("times", [(0.3, 0.3, 0.3), (0.0, 0.7, 0.3)])
def test_velocity_at_any_time_and_the_inputs_stay(times: tuple[float, ...]) -> None:
    reference, t = tiny_renderer(), torch.tensor(times)
    fast = FastRenderer(reference, CPU)
    codes, x, _ = inputs(12, 0, rows=3)
    condition, context = reference.condition(*codes), torch.zeros_like(x)
    context[:, :3] = 1.0
    before = [tensor.clone() for tensor in (x, t, condition, context)]
    quick = fast.velocity(x, t, condition, context, 3)
    assert all(map(torch.equal, before, (x, t, condition, context)))
    torch.testing.assert_close(quick, reference.velocity(x, t, condition, context, 3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("pad_heads", [False, True])
def test_half_precision_stays_as_close_to_float32_as_the_reference(
    dtype: torch.dtype, tolerance: float, pad_heads: bool
) -> None:
    reference = tiny_renderer()
    exact = latents(reference, 40, 10, steps=10)
    narrow = half(reference, dtype)
    fast = FastRenderer(narrow, CPU, RendererTricks(pad_heads=pad_heads))
    residual_dtypes = set()
    for block in fast.h:
        block.register_forward_hook(lambda module, args, out: residual_dtypes.add(out.dtype))
    quick = latents(fast, 40, 10, steps=10)
    assert residual_dtypes == {torch.float32} and quick.dtype == torch.float32
    torch.testing.assert_close(quick, exact, atol=tolerance, rtol=tolerance)
    error, usual = (
        (one - exact).square().mean().sqrt() for one in (quick, latents(narrow, 40, 10, steps=10))
    )
    assert error < 2 * usual, "coarser than the reference in the same precision"


def test_the_times_of_all_steps_are_computed_in_one_pass() -> None:
    reference = tiny_renderer()
    passes: list[int] = []
    reference.estimator.time.register_forward_hook(lambda module, args, out: passes.append(len(args[0])))
    fast = FastRenderer(reference, CPU)
    with torch.inference_mode():
        fast.prepare(4)
    latents(fast, 8, 0), latents(fast, 40, 3, guidance=1.0)
    assert passes == [4]
    latents(fast, 8, 0, steps=3)  # 0 is known
    assert passes == [4, 1, 1]


def test_a_stop_takes_effect_within_one_block() -> None:
    reference = tiny_renderer()
    fast, asked, done = FastRenderer(reference, CPU), [], []
    fast.h[1].register_forward_hook(lambda *_: done.append(1))

    def cancelled() -> bool:
        asked.append(1)
        return (
            len(asked) == 1 + 2 * 2 + 1 + 1
        )  # the start, two steps of two blocks, the first block of the third

    with pytest.raises(Cancelled), interruptible(cancelled, fast):
        latents(fast, 8, 0)
    assert len(done) == 2
    assert not [m for m in fast.modules() if m._forward_pre_hooks], "no trace on the networks"


def test_the_reference_is_not_changed() -> None:
    reference = tiny_renderer()
    before = copy.deepcopy(reference.state_dict())
    latents(FastRenderer(reference, CPU), 20, 4)
    after = reference.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_both_ways_to_turn_agree() -> None:
    fast = FastRenderer(tiny_renderer(), CPU)
    qk = torch.randn(2, 7, 2, RENDERER.num_attention_heads, RENDERER.head_dim)
    angles = rope_angles(torch.arange(7), RENDERER.head_dim, RENDERER.rope_theta)
    turns = torch.complex(angles.cos(), angles.sin())[:, None, None]
    real = rotate(qk.clone(), angles, fast._style._replace(real_rotation=True))
    torch.testing.assert_close(rotate(qk.clone(), turns, fast._style), real, atol=1e-6, rtol=1e-6)


def test_packing_steps_aside_where_memory_is_short(monkeypatch, caplog) -> None:
    reference = tiny_renderer()
    monkeypatch.setattr(fast_renderer, "free_memory", lambda: 1000)
    with caplog.at_level(logging.INFO, "songgen"):
        fast = FastRenderer(reference, CPU)
    assert "pack is off" in caplog.text
    assert fast.h[0]._products.qkv is reference.estimator.h[0].attn.c_attn


def test_weights_that_come_at_each_use_are_neither_packed_nor_compiled() -> None:
    reference = tiny_renderer()
    reference.estimator.h[1].to("meta")
    fast = FastRenderer(reference, CPU, RendererTricks(compile=True))
    assert fast._style.in_place, "the style of blocks that are not compiled"
    assert fast.h[0]._products.qkv is reference.estimator.h[0].attn.c_attn


@pytest.fixture
def fresh_compiler():
    fast_renderer.compiled_block.cache_clear()
    yield
    fast_renderer.compiled_block.cache_clear()


def test_a_compiler_that_fails_steps_aside(monkeypatch, caplog, fresh_compiler) -> None:
    def fails(function, **_):
        def run(x, *_):
            raise RuntimeError("no compiler\nand many more lines")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    reference = tiny_renderer()
    fast = FastRenderer(reference, CPU, RendererTricks(compile=True))
    quick = latents(fast, 20, 4)
    torch.testing.assert_close(quick, latents(reference, 20, 4), atol=1e-5, rtol=1e-5)
    lines = [r.getMessage() for r in caplog.records if "compile is off" in r.getMessage()]
    assert lines == ["fast engine: compile is off for run_block (no compiler)"]


def test_what_the_compiler_compiles_is_right(monkeypatch, fresh_compiler) -> None:
    """With the compiler's own interpreter, which needs no C++; a block must not change what it is given."""
    compile_real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: compile_real(f, backend="aot_eager", **k))
    reference = tiny_renderer()
    fast = FastRenderer(reference, CPU, RendererTricks(compile=True, pad_heads=True))
    torch.testing.assert_close(latents(fast, 20, 4), latents(reference, 20, 4), atol=1e-5, rtol=1e-5)
    x = torch.randn(2, 20, RENDERER.hidden_size)
    before = x.clone()
    with torch.inference_mode():
        at = fast._at(0.0, torch.zeros(1))
        fast.h[0](x, at.blocks[0], fast._position_tables(20)[1])
    assert torch.equal(x, before)


def test_where_to_compile(monkeypatch, caplog) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(compiling, "find_spec", lambda name: object())
    assert [compiling.can_compile(w, cuda) for w in (None, True, False)] == [True, True, False]
    assert [compiling.can_compile(w, CPU) for w in (None, True, False)] == [False, True, False]
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO, "songgen"):
        assert [compiling.can_compile(w, cuda) for w in (None, True, False)] == [False] * 3
    assert caplog.text.count("triton is not installed") == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compile_blocks", [False, None])
def test_on_cuda(compile_blocks: bool | None) -> None:
    reference, cuda = tiny_renderer(), torch.device("cuda")
    exact = latents(reference, 40, 10)
    narrow = half(reference, torch.float16).to(cuda)
    fast = FastRenderer(narrow, cuda, RendererTricks(compile=compile_blocks))
    codes, noise, context = (tensor.to(cuda) for tensor in inputs(40, 10))
    with torch.inference_mode():
        condition = fast.condition(*codes)
        quick = denoise(fast, condition, noise, context, num_steps=4, guidance_scale=1.5).cpu()
    torch.testing.assert_close(quick, exact, atol=0.02, rtol=0.02)
