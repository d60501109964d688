"""The attention kernel against the formula; on the CPU through Triton's interpreter."""

import os

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("without a card Triton needs TRITON_INTERPRET=1", allow_module_level=True)

from songgen_core.fast.caches import narrow, widen
from songgen_core.fast.decode_attention import decode_attention, parts_for, works_here

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def formula(q: Tensor, k: Tensor, v: Tensor, position: int) -> Tensor:
    k, v = (t[:, :, : position + 1].float() for t in (k, v))
    scores = q.float().unsqueeze(2) @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ v).squeeze(2)


def example(rows: int, heads: int, length: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    q = torch.randn(rows, heads, width, device=DEVICE).to(dtype)
    k, v = (torch.randn(rows, heads, length, width, device=DEVICE).to(dtype) for _ in range(2))
    return q, 2 * k, v


@pytest.mark.parametrize("position", [0, 1, 63, 64, 65, 200, 299])
@pytest.mark.parametrize("parts", [1, 4, 16])
def test_equals_the_formula_at_every_position(position: int, parts: int) -> None:
    q, k, v = example(2, 3, 300, 16, torch.float32)
    k[:, :, position + 1 :], v[:, :, position + 1 :] = torch.nan, torch.nan  # must not be read
    actual = decode_attention(q, k, v, torch.tensor([position], device=DEVICE), parts=parts)
    torch.testing.assert_close(actual, formula(q, k, v, position), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    q, k, v = example(1, 2, 130, 64, dtype)
    actual = decode_attention(q, k, v, torch.tensor([129], device=DEVICE))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), formula(q, k, v, 129), atol=8e-3, rtol=8e-3)


def test_eight_bit_caches_are_widened_inside() -> None:
    q, k, v = example(2, 2, 150, 32, torch.float32)
    (k8, k_scales), (v8, v_scales) = narrow(k), narrow(v)
    actual = decode_attention(q, k8, v8, torch.tensor([140], device=DEVICE), scales=(k_scales, v_scales))
    wide = widen(k8, k_scales, torch.float32), widen(v8, v_scales, torch.float32)
    torch.testing.assert_close(actual, formula(q, *wide, 140), atol=2e-6, rtol=1e-5)


def test_scores_beyond_half_precision_do_not_overflow() -> None:
    q = torch.full((1, 1, 16), 200.0, device=DEVICE, dtype=torch.float16)
    k = torch.full((1, 1, 8, 16), 200.0, device=DEVICE, dtype=torch.float16)
    assert decode_attention(q, k, k, torch.tensor([7], device=DEVICE)).eq(200).all()


def test_more_rows_need_fewer_parts() -> None:
    assert [parts_for(n) for n in (1, 24, 128, 1024, 4096)] == [64, 64, 8, 1, 1]


def test_widths_that_it_cannot_do_are_told() -> None:
    assert works_here(64, torch.float32, DEVICE)
    assert not works_here(110, torch.float32, DEVICE)
