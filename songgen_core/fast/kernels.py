"""Few rows times narrow weights on a GPU, by Triton. Import it only where triton is installed.

A decoding step reads every weight once and hardly computes, so its time is the bytes it reads. Here weights
are read as they are stored and widened in registers; sums are float32; scales per output enter after the sum.

Letters: M rows of x, N outputs, K inputs, G groups of K.
"""

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_ROWS = 16  # one tile of the tensor cores
_VECTOR_ROWS = 2  # a song and its unconditional twin; a tile of 16 rows would mostly multiply padding

# What is tried for each shape: outputs and inputs (or groups of 64 inputs) of one program, and its warps.
_KEY = ["M", "N", "K"]
_VECTOR_8BIT = [(1, 512, 1), (1, 1024, 2), (1, 2048, 4), (2, 512, 1), (2, 1024, 2), (2, 2048, 4)]
_TILE_8BIT = [(16, 128, 2), (16, 256, 4), (32, 128, 4), (32, 256, 8)]
_VECTOR_4BIT = [(1, 16, 1), (1, 32, 2), (1, 64, 4), (2, 16, 1), (2, 32, 2), (2, 64, 4)]
_TILE_4BIT = [(16, 2, 2), (16, 4, 4), (32, 2, 4), (32, 4, 8)]


def few_rows(x: Tensor, weight: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """x [M, K] times the weight that stands behind the numbers -> [M, N] in x's dtype.

    M is at most MAX_ROWS. `weight` is int8 or float8_e4m3fn [N, K] with `scale` [N], or uint8 [N, G * 32]
    with `scale` and `zero` [N, G]: w = (q - 8) * scale + zero, where byte j of a group holds its input j in
    the low bits and its input j + 32 in the high ones. The first call of a shape tries a few ways and waits
    for the device; later calls only launch, so that they can be captured in a CUDA graph.
    """
    assert x.shape[0] <= MAX_ROWS, x.shape
    out: Tensor = torch.ops.songgen.few_rows(x.contiguous(), weight, scale, zero)
    return out


@torch.library.custom_op(
    "songgen::few_rows",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor scale, Tensor? zero) -> Tensor",
)
def _few_rows(x: Tensor, weight: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    sizes = x.shape[0], weight.shape[0], x.shape[1]
    out = x.new_empty(sizes[:2])
    is_vector = x.shape[0] <= _VECTOR_ROWS

    def grid(config: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(sizes[1], config["BLOCK_N"]),)

    card = torch.cuda.device(x.device) if x.is_cuda else nullcontext()  # triton launches on the current one
    with card:
        if zero is None:
            is_fp8 = weight.dtype == torch.float8_e4m3fn
            bits = weight.view(torch.uint8) if is_fp8 else weight
            (vector_8bit if is_vector else tile_8bit)[grid](x, bits, scale, out, *sizes, IS_FP8=is_fp8)
        else:
            groups = scale.shape[1]
            (vector_4bit if is_vector else tile_4bit)[grid](x, weight, scale, zero, out, *sizes, groups)
    return out


@_few_rows.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _configs(sizes: list[tuple[int, int, int]], block: str) -> list[triton.Config]:
    return [triton.Config({"BLOCK_N": n, block: k}, num_warps=warps) for n, k, warps in sizes]


# --- 8 bit ----------------------------------------------------------------------------------------------


@triton.jit
def _numbers(bits: tl.tensor, dtype: tl.constexpr, IS_FP8: tl.constexpr) -> tl.tensor:
    """int8 numbers, or those of e4m3 bits / 256, in `dtype`; both are exact in any float of 16 bits or more.

    e4m3 by hand, because cards before Ada cannot convert it: exponent and mantissa, put where float16 has
    them, are the same number but for the bias of the exponent, 2 ** (15 - 7).
    """
    if IS_FP8:
        wide = bits.to(tl.uint16)
        half = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        out = half.to(tl.float16, bitcast=True).to(dtype)
    else:
        out = bits.to(dtype)
    return out


@triton.jit
def _scales(scale_ptr: tl.tensor, n: tl.tensor, N: tl.tensor, IS_FP8: tl.constexpr) -> tl.tensor:
    scale = tl.load(scale_ptr + n, n < N, 0.0).to(tl.float32)
    if IS_FP8:
        scale = scale * 256.0
    return scale


@triton.autotune(_configs(_VECTOR_8BIT, "BLOCK_K"), key=_KEY)
@triton.jit
def vector_8bit(
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_FP8: tl.constexpr,
) -> None:
    """One or two rows. Products are summed element by element over the blocks of K; lanes meet once, at the
    end. Each row has a sum of its own, and x is loaded in the shape of the weights: with an axis for rows, or
    x [BLOCK_K], the compiler would carry weights or x through shared memory to change their layout."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # a second row is there where n < (M - 1) * N
    sum_0 = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    sum_1 = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = (n < N)[:, None] & (k < K)[None, :]
        bits = tl.load(w_ptr + n[:, None] * K + k[None, :], inside, 0)
        at = x_ptr + k[None, :] + 0 * n[:, None]  # as large as the weights, see above
        x_0 = tl.load(at, inside, 0.0).to(tl.float32)
        x_1 = tl.load(at + K, inside & (k < (M - 1) * K)[None, :], 0.0).to(tl.float32)
        w = _numbers(bits, tl.float32, IS_FP8)
        sum_0 += w * x_0
        sum_1 += w * x_1
    scale = _scales(scale_ptr, n, N, IS_FP8)
    tl.store(out_ptr + n, tl.sum(sum_0, 1) * scale, n < N)
    tl.store(out_ptr + N + n, tl.sum(sum_1, 1) * scale, n < (M - 1) * N)


@triton.autotune(_configs(_TILE_8BIT, "BLOCK_K"), key=_KEY)
@triton.jit
def tile_8bit(
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_FP8: tl.constexpr,
) -> None:
    """Up to 16 rows, on the tensor cores."""
    m = tl.arange(0, 16)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    y = tl.zeros((16, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        bits = tl.load(w_ptr + n[:, None] * K + k[None, :], (n < N)[:, None] & (k < K)[None, :], 0)
        x = tl.load(x_ptr + m[:, None] * K + k[None, :], (m < M)[:, None] & (k < K)[None, :], 0.0)
        y = tl.dot(x, tl.trans(_numbers(bits, x.dtype, IS_FP8)), y, input_precision="ieee")
    y = y * _scales(scale_ptr, n, N, IS_FP8)[None, :]
    tl.store(out_ptr + m[:, None] * N + n[None, :], y, (m < M)[:, None] & (n < N)[None, :])


# --- 4 bit ----------------------------------------------------------------------------------------------


@triton.jit
def _weights(
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    n: tl.tensor,
    g: tl.tensor,
    N: tl.tensor,
    G: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """The first and the second half of each group, float32 [BLOCK_N, BLOCK_G, 32]; zero behind the end."""
    inside = (n < N)[:, None] & (g < G)[None, :]
    at = n[:, None] * G + g[None, :]
    byte = tl.arange(0, 32)[None, None, :]
    both = tl.load(w_ptr + (at * 32)[:, :, None] + byte, inside[:, :, None], 0)
    scale = tl.load(scale_ptr + at, inside, 0.0).to(tl.float32)
    lowest = tl.load(zero_ptr + at, inside, 0.0).to(tl.float32) - 8 * scale
    low = (both & 15).to(tl.float32) * scale[:, :, None] + lowest[:, :, None]
    high = (both >> 4).to(tl.float32) * scale[:, :, None] + lowest[:, :, None]
    return low, high


@triton.autotune(_configs(_VECTOR_4BIT, "BLOCK_G"), key=_KEY)
@triton.jit
def vector_4bit(
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    out_ptr: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    G: tl.tensor,
    BLOCK_N: tl.constexpr,
    BLOCK_G: tl.constexpr,
) -> None:
    """As `vector_8bit`, with two inputs in every byte."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    sum_0 = tl.zeros((BLOCK_N, BLOCK_G, 32), tl.float32)
    sum_1 = tl.zeros((BLOCK_N, BLOCK_G, 32), tl.float32)
    for start in range(0, G, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        low, high = _weights(w_ptr, scale_ptr, zero_ptr, n, g, N, G)
        k = (g[:, None] * 64 + tl.arange(0, 32)[None, :])[None, :, :] + 0 * n[:, None, None]
        sum_0 += low * tl.load(x_ptr + k, k < K, 0.0).to(tl.float32)
        sum_0 += high * tl.load(x_ptr + k + 32, k + 32 < K, 0.0).to(tl.float32)
        sum_1 += low * tl.load(x_ptr + K + k, k < (M - 1) * K, 0.0).to(tl.float32)
        sum_1 += high * tl.load(x_ptr + K + k + 32, k + 32 < (M - 1) * K, 0.0).to(tl.float32)
    tl.store(out_ptr + n, tl.sum(tl.sum(sum_0, 2), 1), n < N)
    tl.store(out_ptr + N + n, tl.sum(tl.sum(sum_1, 2), 1), n < (M - 1) * N)


@triton.autotune(_configs(_TILE_4BIT, "BLOCK_G"), key=_KEY)
@triton.jit
def tile_4bit(
    x_ptr: tl.tensor,
    w_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    zero_ptr: tl.tensor,
    out_ptr: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    G: tl.tensor,
    BLOCK_N: tl.constexpr,
    BLOCK_G: tl.constexpr,
) -> None:
    """Up to 16 rows, on the tensor cores, with weights rounded to x's dtype."""
    m = tl.arange(0, 16)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.arange(0, BLOCK_G * 32)
    y = tl.zeros((16, BLOCK_N), tl.float32)
    for start in range(0, G, BLOCK_G):
        low, high = _weights(w_ptr, scale_ptr, zero_ptr, n, start + tl.arange(0, BLOCK_G), N, G)
        k = (start + j // 32) * 64 + j % 32
        at = x_ptr + m[:, None] * K + k[None, :]
        x_low = tl.load(at, (m < M)[:, None] & (k < K)[None, :], 0.0)
        x_high = tl.load(at + 32, (m < M)[:, None] & (k + 32 < K)[None, :], 0.0)
        low = tl.reshape(low.to(x_low.dtype), (BLOCK_N, BLOCK_G * 32))
        high = tl.reshape(high.to(x_low.dtype), (BLOCK_N, BLOCK_G * 32))
        y = tl.dot(x_low, tl.trans(low), y, input_precision="ieee")
        y = tl.dot(x_high, tl.trans(high), y, input_precision="ieee")
    tl.store(out_ptr + m[:, None] * N + n[None, :], y, (m < M)[:, None] & (n < N)[None, :])
