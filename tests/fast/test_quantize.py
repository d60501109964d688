"""Layers with narrow weights: what they stand for, what they compute, and songs written with them."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from tiny import random_conditions, tiny_lm
from torch import nn
from torch.nn.functional import linear

from songgen_core.configs import VARIANTS
from songgen_core.errors import UserError
from songgen_core.fast import quantize
from songgen_core.fast.kernels_cpu import Int8Product, int4_works, int8_works
from songgen_core.fast.quantize import KINDS, QuantizedLinear, narrow, quantize_, widen
from songgen_core.fast.songs import write_together
from songgen_core.generation.autoregressive import decode_one_frame, generate, prefill
from songgen_core.generation.sampling import SamplingOptions
from songgen_core.generation.songs import SongTask, one_by_one
from songgen_core.models.lelm import LeLM
from songgen_core.selftest import selftest_networks

# Root mean square of what a kind loses of normal weights, relative: measured 0.9, 2.6 and 8 to 9 %.
LOSS = {"int8": 0.012, "fp8": 0.03, "int4": 0.1}
SIZES = [(64, 48), (200, 37), (23, 16), (1536, 64)]  # inputs, outputs
CPU = {"dtype": torch.float32, "device": torch.device("cpu")}

HAS_BYTE_PRODUCTS = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()


def layer(inputs: int, outputs: int, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    made = nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
    made.weight.normal_().div_(inputs**0.5)
    made.weight[0] = 0
    made.weight[1, :3] = torch.tensor([1.0, -1e-9, 0.5])
    return made


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    expected = expected.double()
    return ((found.double() - expected).norm() / expected.norm()).item()


def wide_weight(narrow_layer: QuantizedLinear) -> torch.Tensor:
    """The weight that the numbers stand for, exactly: float32 [O, I]."""
    return widen(narrow_layer.numbers)[:, : narrow_layer.in_features]


@pytest.fixture(autouse=True)
def no_memory():
    """What works here and what was logged is found out anew in each test."""
    for known in (int8_works, int4_works, quantize._log_slow):
        known.cache_clear()
    yield
    for known in (int8_works, int4_works, quantize._log_slow):
        known.cache_clear()


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_lie_within_half_a_step_of_the_weight(kind, dtype) -> None:
    weight = layer(200, 37).weight.to(dtype)
    numbers = narrow(weight, kind)
    wide = widen(numbers)[:, :200]
    assert distance(wide, weight) < LOSS[kind]
    error, w = (wide - weight.float()).abs(), weight.float()
    scale = numbers.scale.float()
    if kind == "int8":
        # Rounding the scale to bfloat16 costs the largest number of a row another quarter of a step.
        assert (error <= 0.76 * scale[:, None]).all() and (
            error <= 0.501 * scale[:, None]
        ).float().mean() > 0.99
    elif kind == "fp8":
        assert (error <= w.abs() / 15.9 + scale[:, None] * 2**-10).all()  # 3 bits behind the leading one
    else:
        steps = scale.repeat_interleave(64, dim=1)[:, :200]
        assert (error <= 0.6 * steps + w.abs() * 2**-8).all()
    assert (wide[0] == 0).all() if kind != "int4" else wide[0].abs().max() < 1e-30


def test_scales_are_numbers_of_bfloat16() -> None:
    """The kernels that want them in bfloat16 must not lose anything."""
    for kind in KINDS:
        scale = narrow(layer(200, 37).weight, kind).scale
        assert torch.equal(scale.to(torch.bfloat16).float(), scale.float()), kind


def test_two_inputs_per_byte_lie_half_a_group_apart() -> None:
    weight = torch.arange(16.0).repeat(8)[None]  # 0 to 15, again and again
    numbers = narrow(weight, "int4")
    assert numbers.weight.shape == (1, 64) and numbers.weight.dtype == torch.uint8
    assert torch.equal(numbers.weight[0, :16].int(), torch.arange(16) * 17)  # input j + 32 is the same number
    assert torch.equal(widen(numbers), weight)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_finite_are_refused(kind) -> None:
    for bad in (float("nan"), float("inf")):
        broken = layer(64, 16)
        broken.weight[3, 5] = bad
        with pytest.raises(UserError, match="not finite"):
            QuantizedLinear.from_linear(broken, kind)


# --- the layer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 4, 16, 700])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_the_widened_weight(kind, inputs, outputs, rows) -> None:
    narrow_layer = QuantizedLinear.from_linear(layer(inputs, outputs), kind)
    weight = wide_weight(narrow_layer)
    assert weight.shape == (outputs, inputs) and weight.dtype == torch.float32
    # int8 sees 16 bits of x, int4 sees bfloat16
    tolerances = {"int8": 1e-4, "fp8": 1e-6, "int4": 3e-3}
    for dtype, rounding in ((torch.float32, 0.0), (torch.bfloat16, 4e-3), (torch.float16, 6e-4)):
        x = torch.randn(rows, inputs).to(dtype)
        y = narrow_layer(x)
        assert y.dtype == dtype and y.shape == (rows, outputs)
        assert distance(y, x.double() @ weight.double().T) < tolerances[kind] + rounding, dtype


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_leading_axes(kind) -> None:
    narrow_layer = QuantizedLinear.from_linear(layer(70, 16), kind)
    x = torch.randn(2, 3, 70)
    y = narrow_layer(x)
    assert y.shape == (2, 3, 16)
    assert (
        torch.equal(y[1, 2], narrow_layer(x[1, 2][None])[0])
        or distance(y[1, 2], narrow_layer(x)[1, 2]) < 1e-5
    )
    assert narrow_layer(x[0, 0]).shape == (16,)


@pytest.mark.parametrize("kind", KINDS)
def test_joined_layers_are_the_layers_side_by_side(kind) -> None:
    parts = [QuantizedLinear.from_linear(layer(96, outputs, outputs), kind) for outputs in (32, 16, 48)]
    x = torch.randn(2, 96)
    many = torch.randn(40, 96)
    separate = torch.cat([part(x) for part in parts], dim=-1)
    wide = torch.cat([wide_weight(part) for part in parts])
    size = sum(part.nbytes for part in parts)
    joined = QuantizedLinear.joined(parts)
    assert joined.out_features == 96 and joined.nbytes == size
    assert torch.equal(wide_weight(joined), wide)
    assert distance(joined(x), separate) < 1e-6
    assert distance(joined(many), many @ wide.T) < 1e-6
    # One memory for both, found again the next time.
    store = joined.weight.untyped_storage()
    assert store.nbytes() == joined.weight.nbytes
    assert all(part.weight.untyped_storage().data_ptr() == store.data_ptr() for part in parts)
    assert QuantizedLinear.joined(parts) is joined
    assert distance(torch.cat([part(x) for part in parts], dim=-1), separate) < 1e-6
    assert QuantizedLinear.joined(parts[::-1]) is not joined


def test_moved_parts_are_joined_anew() -> None:
    parts = [QuantizedLinear.from_linear(layer(64, 16, seed), "int8") for seed in (1, 2)]
    joined = QuantizedLinear.joined(parts)
    parts[1].to(torch.bfloat16)
    again = QuantizedLinear.joined(parts)
    assert again is not joined and torch.equal(again.weight, joined.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_survive_what_is_done_to_modules(kind) -> None:
    model = nn.Sequential(QuantizedLinear.from_linear(layer(200, 48), kind), nn.LayerNorm(48))
    x, weight = torch.randn(2, 200), wide_weight(model[0])
    expected, before = model[0](x), {name: b.clone() for name, b in model[0].named_buffers()}
    for change in (lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.float(), copy.deepcopy):
        model = change(model)
        for name, buffer in model[0].named_buffers():
            assert buffer.dtype == before[name].dtype, name
            assert torch.equal(buffer.view(torch.uint8), before[name].view(torch.uint8)), name
        assert torch.equal(wide_weight(model[0]), weight)
        assert torch.equal(model[0](x), expected)
    other = QuantizedLinear.from_linear(layer(200, 48, seed=9), kind)
    other.load_state_dict(model[0].state_dict())
    assert torch.equal(wide_weight(other), weight)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind) -> None:
    size = QuantizedLinear.from_linear(layer(200, 48), kind).nbytes
    groups = 4  # of 64 inputs, for 200
    assert size == (48 * groups * (32 + 2 + 2) if kind == "int4" else 48 * (200 + 4))
    with torch.device("meta"):
        empty = QuantizedLinear.from_linear(nn.Linear(200, 48, bias=False), kind)
        assert empty(torch.empty(2, 5, 200)).shape == (2, 5, 48)
    assert empty.nbytes == size and empty.weight.is_meta


def test_a_bias_and_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="bias"):
        QuantizedLinear.from_linear(nn.Linear(4, 4), "int8")
    with pytest.raises(UserError, match="'int3' are unknown; choose one of native, int8, fp8, int4"):
        QuantizedLinear.from_linear(layer(16, 16), "int3")
    with pytest.raises(UserError, match="Apple"):
        quantize.check_kind("fp8", torch.device("mps"))


# --- CPU kernels --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_BYTE_PRODUCTS, reason="this processor has no exact products of bytes")
def test_whole_numbers_see_16_bits_of_each_row() -> None:
    assert int8_works()
    weight = torch.randint(-127, 128, (48, 512), dtype=torch.int8)
    product = Int8Product(weight, torch.rand(48))
    x = torch.randn(4, 512)
    x[0, 7], x[1], x[2] = 300.0, 0.0, x[2] * 1e-6  # an outlier, nothing, something small
    y, exact = product(x), x.double() @ weight.double().T * product.scale.double()
    for row in (0, 2, 3):
        step = x[row].abs().max() / 32767
        error = (y[row] - exact[row]).abs() / (weight.double().norm(dim=1) * product.scale)
        assert error.max() < 2 * step  # each value of x is half a step off at most, 0.3 on average
    assert distance(y[3], exact[3]) < 1e-4 and y[1].abs().max() < 1e-20


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="measured with AVX512")
def test_4_bit_products_work_here() -> None:
    assert int4_works()


def test_values_that_are_not_finite_are_not_hidden() -> None:
    """The loop that writes songs finds overflows by them."""
    narrow_layer = QuantizedLinear.from_linear(layer(64, 16), "int8")
    for bad in (float("nan"), float("inf"), -float("inf")):
        x = torch.randn(2, 64)
        x[0, 3] = bad
        y = narrow_layer(x)
        assert not y[0].isfinite().any() and y[1].isfinite().all()


def test_extreme_numbers_do_not_overflow() -> None:
    big = nn.Linear(4096, 16, bias=False).requires_grad_(False)
    big.weight.fill_(1.0)
    x = torch.full((2, 4096), 3.0)
    x[1] = -3.0
    y = QuantizedLinear.from_linear(big, "int8")(x)
    assert torch.allclose(y, linear(x, big.weight), rtol=1e-2)
    assert torch.allclose(y[0], -y[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_without_kernels_weights_are_widened(kind, dtype, monkeypatch, caplog) -> None:
    monkeypatch.setattr(quantize, "int8_works", lambda: False)
    monkeypatch.setattr(quantize, "int4_works", lambda: False)
    monkeypatch.setattr(quantize, "_PART", 3 * 200)  # three outputs at a time
    caplog.set_level(logging.INFO, "songgen")
    narrow_layer = QuantizedLinear.from_linear(layer(200, 37), kind)
    x = torch.randn(2, 200, dtype=dtype)
    rounding = 1e-6 if dtype == torch.float32 else 5e-3
    for _ in range(2):
        assert distance(narrow_layer(x), x.double() @ wide_weight(narrow_layer).double().T) < rounding
    assert len(caplog.messages) == 1 and f"multiplies {kind} weights on cpu" in caplog.messages[0]
    assert narrow_layer._packed is None


def test_int8_without_its_kernel_takes_the_next_one_in_bfloat16(monkeypatch, caplog) -> None:
    monkeypatch.setattr(quantize, "int8_works", lambda: False)
    caplog.set_level(logging.INFO, "songgen")
    narrow_layer = QuantizedLinear.from_linear(layer(208, 37), "int8")
    x = torch.randn(2, 208, dtype=torch.bfloat16)
    assert distance(narrow_layer(x), x.double() @ wide_weight(narrow_layer).double().T) < 5e-3
    assert not caplog.messages


def test_a_wrong_kernel_is_not_used(monkeypatch) -> None:
    """Processors that add pairs of products in 16 bits give something else than the sum."""
    whole = Int8Product._product
    monkeypatch.setattr(Int8Product, "_product", lambda self, x: whole(self, x).clamp(-4e6, 4e6))
    assert not int8_works()

    def missing(self, x):
        raise NotImplementedError("no such operator")

    int8_works.cache_clear()
    monkeypatch.setattr(Int8Product, "_product", missing)
    assert not int8_works()


@pytest.mark.parametrize("kind", KINDS)
def test_layers_can_be_compiled(kind) -> None:
    narrow_layer = QuantizedLinear.from_linear(layer(128, 32), kind)
    compiled = torch.compile(lambda x: narrow_layer(x).relu() + 1, backend="eager", dynamic=False)
    with torch.inference_mode():
        for rows in (2, 200):
            x = torch.randn(rows, 128)
            assert torch.equal(compiled(x), narrow_layer(x).relu() + 1)


# --- the model ----------------------------------------------------------------------------------------------


def logits_of(lm: LeLM, columns: torch.Tensor) -> torch.Tensor:
    """[S + 1, 2, K, V] of the prefix and the given columns [S, K]."""
    cache = lm.make_cache(2, 60, torch.float32, torch.device("cpu"))
    start = torch.full((3,), lm.config.special_id)
    with torch.inference_mode():
        logits = [prefill(lm, random_conditions(lm), start, cache)]
        return torch.stack(logits + [decode_one_frame(lm, column, cache) for column in columns])


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.03), ("fp8", 0.08), ("int4", 0.25)])
def test_logits_stay_close(kind, most) -> None:
    lm = tiny_lm()
    columns = torch.randint(lm.config.codebook_size, (12, 3), generator=torch.Generator().manual_seed(1))
    expected = logits_of(lm, columns)
    found = logits_of(quantize_(lm, kind), columns)
    assert 0 < distance(found, expected) < most


def test_a_song_with_narrow_weights() -> None:
    """int8 begins a song as the wide weights do, and writes all of it as its own weights do when widened."""
    wide, *_ = selftest_networks()
    wide.config = replace(
        wide.config, delays=(0, 2, 2), lyrics_length=20, description_length=8, prompt_length=6
    )
    narrow_lm = quantize_(copy.deepcopy(wide), "int8")
    widened = copy.deepcopy(wide)
    for name, module in narrow_lm.named_modules():
        if isinstance(module, QuantizedLinear):
            widened.get_submodule(name).weight.copy_(wide_weight(module))
    conditions = random_conditions(wide)
    greedy = SamplingOptions(temperature=0, top_k=0)
    songs = []
    for lm in (wide, widened, narrow_lm):
        *_, streams = generate(lm, conditions, 24, greedy, **CPU)
        assert streams.written == 26 and not streams.ended.any()
        songs.append(streams.codes())
    assert torch.equal(songs[1], songs[2])
    assert (songs[0] == songs[2])[..., :3].all()


@pytest.mark.parametrize("kind", KINDS)
def test_both_loops_write_the_same_songs(kind) -> None:
    """The fast one joins layers and runs several songs at once."""
    lm = quantize_(tiny_lm(delays=(0, 1, 2)), kind)
    sampling = SamplingOptions(temperature=1.0, top_k=5)
    songs = []
    for loop in (one_by_one, write_together):
        tasks = [SongTask(random_conditions(lm, n), 30, torch.Generator().manual_seed(n)) for n in range(3)]
        *_, written = loop(lm, tasks, sampling, **CPU)
        songs.append([song.codes() for song in written])
    assert all(torch.equal(*pair) for pair in zip(*songs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_quantize_swaps_the_layers_of_both_transformers(dtype) -> None:
    lm = tiny_lm().to(dtype)
    kept = {n: p for n, p in lm.named_parameters() if not n.startswith(("main.layers", "sub.layers"))}
    heard = []
    assert quantize_(lm, "int8", lambda done, of: heard.append((done, of))) is lm
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    narrow_layers = [m for m in lm.modules() if isinstance(m, QuantizedLinear)]
    assert len(narrow_layers) == 4 * 7
    assert not any(isinstance(m, nn.Linear) for stack in (lm.main, lm.sub) for m in stack.modules())
    left = dict(lm.named_parameters())
    assert all(left[name] is parameter for name, parameter in kept.items())
    assert left.keys() - kept.keys() == {n for n in left if n.endswith("layernorm.weight")}
    with torch.inference_mode():
        assert lm(torch.zeros(2, 3, 4, dtype=torch.int64)).dtype == dtype


def test_originals_are_freed_layer_by_layer() -> None:
    """After each layer the model holds no wide weight of it."""
    lm = tiny_lm()
    sizes = []
    quantize_(lm, "int8", lambda done, of: sizes.append(sum(p.numel() for p in lm.main.layers.parameters())))
    assert sizes[0] > sizes[1] == sizes[2]
    assert sizes[1] == 2 * 2 * lm.config.hidden_size  # the norms


def test_quantizing_twice_is_refused() -> None:
    lm = quantize_(tiny_lm(), "int8")
    before = lm.main.layers[0].mlp.up_proj
    with pytest.raises(UserError, match="already in int8; load it again to have it in int4"):
        quantize_(lm, "int4")
    assert lm.main.layers[0].mlp.up_proj is before
    lm = tiny_lm()
    with pytest.raises(UserError, match="unknown"):
        quantize_(lm, "int2")
    assert isinstance(lm.main.layers[0].mlp.up_proj, nn.Linear)


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8.01), ("fp8", 8.01), ("int4", 4.5)])
def test_full_size_without_data(kind, bits) -> None:
    with torch.device("meta"):
        lm = LeLM(VARIANTS["v2-large"].lm)
    wide = [m.weight.numel() for s in (lm.main, lm.sub) for m in s.modules() if isinstance(m, nn.Linear)]
    quantize_(lm, kind)
    size = sum(m.nbytes for m in lm.modules() if isinstance(m, QuantizedLinear))
    assert 8 * size / sum(wide) == pytest.approx(bits, rel=1e-3)


# --- GPUs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gpu_kernels_that_fail_or_are_wrong_are_not_used(kind, monkeypatch, caplog) -> None:
    def right(x, numbers):
        return linear(x, widen(numbers).to(x.dtype))

    def wrong(x, numbers):
        return right(x, numbers) * 1.05

    def failing(x, numbers):
        raise RuntimeError("Failed to find C compiler\nat length")

    caplog.set_level(logging.INFO, "songgen")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for product, works in ((right, True), (wrong, False), (failing, False)):
            monkeypatch.setattr(quantize, "_gpu_product", product)
            quantize._try_gpu_kernel.cache_clear()
            assert quantize._try_gpu_kernel("cpu", kind, dtype, 2) is works
    quantize._try_gpu_kernel.cache_clear()
    assert caplog.messages[:2] == [
        f"fast engine: kernels for {kind} weights are off, their result is wrong here",
        f"fast engine: kernels for {kind} weights are off (Failed to find C compiler)",
    ]
    assert len(caplog.messages) == 6


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [1, 2, 3, 16, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_products_on_a_card(kind, dtype, rows) -> None:
    narrow_layer = QuantizedLinear.from_linear(layer(200, 37), kind).to("cuda")
    x = torch.randn(rows, 200).to("cuda", dtype)
    rounding = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
    assert distance(narrow_layer(x), x.double() @ wide_weight(narrow_layer).double().T) < rounding


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_products_in_a_cuda_graph(kind) -> None:
    narrow_layer = QuantizedLinear.from_linear(layer(1536, 512), kind).to("cuda")
    x = torch.randn(2, 1536, device="cuda", dtype=torch.bfloat16)
    narrow_layer(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = narrow_layer(x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    assert torch.equal(y, narrow_layer(x))
