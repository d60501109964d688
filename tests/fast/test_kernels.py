"""Triton kernels for narrow weights: on a card where there is one, in Triton's interpreter on every machine
that has triton, and compiled for cards that are not there.

The interpreter is chosen when triton is imported, so these tests run once more in a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

try:
    from songgen_core.fast import kernels
except RuntimeError as error:  # old releases look for a card when a kernel is defined
    pytest.skip(f"triton {triton.__version__}: {error}", allow_module_level=True)

from songgen_core.fast.quantize import KINDS, narrow, widen  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_CARD = torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED else "cuda"
TUNED = (kernels.vector_8bit, kernels.tile_8bit, kernels.vector_4bit, kernels.tile_4bit)
HALVES = [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16]  # it multiplies bits of bfloat16
runs = pytest.mark.skipif(not INTERPRETED and not HAS_CARD, reason="needs a card or the interpreter")
compiles = pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")


@pytest.mark.skipif(INTERPRETED, reason="is what runs now")
def test_all_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout + run.stderr


@pytest.fixture(params=range(6))
def one_way(request, monkeypatch) -> None:
    """Each of the ways that are tried for a shape, by itself; where a kernel has fewer, its last."""
    for kernel in TUNED:
        config = kernel.configs[min(request.param, len(kernel.configs) - 1)]
        monkeypatch.setattr(kernel, "configs", [config])


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


def check(kind: str, rows: int, inputs: int, outputs: int, dtype: torch.dtype, most: float) -> None:
    generator = torch.Generator().manual_seed(rows)
    numbers = narrow(torch.randn(outputs, inputs, generator=generator), kind)
    numbers = type(numbers)(*(t if t is None else t.to(DEVICE) for t in numbers))
    x = torch.randn(rows, inputs, generator=generator).to(DEVICE, dtype)
    y = kernels.few_rows(x, *numbers)
    assert y.shape == (rows, outputs) and y.dtype == dtype
    assert distance(y, x.double() @ widen(numbers)[:, :inputs].double().T) < most


@runs
@pytest.mark.parametrize("rows", [1, 2, 3, 16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("one_way")
def test_products(kind, rows) -> None:
    """Sizes that no block divides, and ones that some do."""
    for inputs, outputs in ((24, 5), (1088, 6)):
        check(kind, rows, inputs, outputs, torch.float32, 1e-6)
    for dtype in HALVES:
        check(kind, rows, 200, 9, dtype, 8e-3 if dtype == torch.bfloat16 else 1e-3)


@runs
@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.usefixtures("one_way")
def test_every_number_of_fp8(rows) -> None:
    """All 254 that are finite, the smallest and both zeros among them; each is the weight of one output."""
    bits = torch.arange(256, dtype=torch.uint8)
    weight = bits[(bits & 0x7F) != 0x7F].view(torch.float8_e4m3fn)[:, None].to(DEVICE)  # (254, 1)
    y = kernels.few_rows(torch.ones(rows, 1, device=DEVICE), weight, torch.ones(254, device=DEVICE))
    assert torch.equal(y, weight.float().T.expand(rows, -1))


def test_shapes_are_known_without_running() -> None:
    with torch.device("meta"):
        x, scale = torch.empty(3, 64, dtype=torch.float16), torch.empty(8)
        y = kernels.few_rows(x, torch.empty(8, 64, dtype=torch.int8), scale)
    assert y.shape == (3, 8) and y.dtype == torch.float16 and y.is_meta


def test_more_rows_are_refused() -> None:
    with pytest.raises(AssertionError):
        kernels.few_rows(torch.zeros(17, 64), torch.zeros(8, 64, dtype=torch.int8), torch.ones(8))


# --- compiled -----------------------------------------------------------------------------------------------


def machine_code(kernel, config, dtype: str, is_fp8: bool, capability: int):
    """`kernel` for a card that need not be there, for sizes that divide by 16."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.fn.arg_names
    types = {
        "x_ptr": f"*{dtype}",
        "out_ptr": f"*{dtype}",
        "w_ptr": "*u8",
        "scale_ptr": "*bf16",
        "zero_ptr": "*bf16",
    }
    constants = dict(config.kwargs)
    if "IS_FP8" in names:
        constants["IS_FP8"] = is_fp8
        types |= {"w_ptr": "*u8" if is_fp8 else "*i8", "scale_ptr": "*fp32"}
    source = ASTSource(
        fn=kernel.fn,
        signature={n: "constexpr" if n in constants else types.get(n, "i32") for n in names},
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={
            (names.index(n),): [["tt.divisibility", 16]]
            for n in names
            if n.endswith("_ptr") or n in ("N", "K")
        },
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": config.num_warps})


@compiles
@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize("kernel", TUNED, ids=lambda kernel: kernel.fn.__name__)
def test_compiles_for_cards(kernel, capability, monkeypatch, tmp_path) -> None:
    """Turing (without bfloat16), Ampere and Hopper; the first way in float32 too, all of them on Hopper."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    half = "fp16" if capability < 80 else "bf16"
    for number, config in enumerate(kernel.configs if capability == 90 else kernel.configs[:2]):
        for dtype in (half, "fp32") if number == 0 else (half,):
            code = machine_code(kernel, config, dtype, is_fp8=number % 2 == 1, capability=capability)
            assert code.asm["cubin"]


@compiles
@pytest.mark.parametrize("kernel", [kernels.vector_8bit, kernels.vector_4bit], ids=lambda k: k.fn.__name__)
def test_two_rows_read_wide_and_keep_out_of_shared_memory(kernel, monkeypatch, tmp_path) -> None:
    """What the speed of a step stands on: 16 bytes per load, nothing carried between threads in the loop."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for config in kernel.configs:
        if config.kwargs["BLOCK_N"] == 1:
            code = machine_code(kernel, config, "bf16", is_fp8=False, capability=90)
            assert "ld.global.v4.b32" in code.asm["ptx"]
            assert code.metadata.shared <= 8 * config.num_warps  # the sums of the warps, at the end
