"""Attention of one new position per row to a cache, as Triton kernels for CUDA (flash decoding).

Each row and head is cut into parts that run side by side, as a single query would leave most of a card idle.
The kernels read the position from the device and the cache up to there alone, so that one CUDA graph serves
the whole song. 8-bit caches are widened in registers.

Letters: R rows, H heads, L positions, D head width, P parts.
"""

import logging

import torch
import triton
import triton.language as tl
from torch import Tensor

log = logging.getLogger("songgen")

_BLOCK = 64  # positions that a program reads at a time


@triton.jit
def _hear_part(
    q, k, v, k_scales, v_scales, at, tops, totals, heards, length, scale,
    WIDTH: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr, EIGHT_BIT: tl.constexpr,
):  # fmt: skip
    """One part of one row and head: the largest score, the sum of weights, the weighted sum of values."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    positions = tl.load(at).to(tl.int32) + 1
    share = tl.cdiv(tl.cdiv(positions, BLOCK), PARTS) * BLOCK
    begin = part * share
    end = tl.minimum(begin + share, positions)
    columns = tl.arange(0, WIDTH)
    query = tl.load(q + row * WIDTH + columns).to(tl.float32) * scale
    top = -float("inf")
    total = 0.0
    heard = tl.zeros([WIDTH], dtype=tl.float32)
    for start in range(begin, end, BLOCK):
        places = start + tl.arange(0, BLOCK)
        seen = places < end
        cells = (row * length + places)[:, None] * WIDTH + columns[None, :]
        keys = tl.load(k + cells, mask=seen[:, None], other=0).to(tl.float32)
        scores = tl.sum(keys * query[None, :], axis=1)
        if EIGHT_BIT:
            scores *= tl.load(k_scales + row * length + places, mask=seen, other=0).to(tl.float32)
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, axis=0))
        weights = tl.exp(scores - higher)
        decay = tl.exp(top - higher)
        total = total * decay + tl.sum(weights, axis=0)
        if EIGHT_BIT:
            weights *= tl.load(v_scales + row * length + places, mask=seen, other=0).to(tl.float32)
        values = tl.load(v + cells, mask=seen[:, None], other=0).to(tl.float32)
        heard = heard * decay + tl.sum(weights[:, None] * values, axis=0)
        top = higher
    place = row * PARTS + part
    tl.store(tops + place, top)
    tl.store(totals + place, total)
    tl.store(heards + place * WIDTH + columns, heard)


@triton.jit
def _join_parts(tops, totals, heards, out, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """Parts of one row and head, weighed by their largest scores; a part that saw nothing weighs nothing."""
    row = tl.program_id(0).to(tl.int64)
    parts = row * PARTS + tl.arange(0, PARTS)
    columns = tl.arange(0, WIDTH)
    top = tl.load(tops + parts)
    weights = tl.exp(top - tl.max(top, axis=0))
    total = tl.sum(weights * tl.load(totals + parts), axis=0)
    heard = tl.load(heards + parts[:, None] * WIDTH + columns[None, :])
    tl.store(out + row * WIDTH + columns, tl.sum(weights[:, None] * heard, axis=0) / total)


def decode_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    at: Tensor,
    scales: tuple[Tensor, Tensor] | None = None,
    parts: int | None = None,
) -> Tensor:
    """q [R, H, D] against k and v [R, H, L, D] up to position `at` [1] int64 -> [R, H, D] in q's dtype.

    All contiguous, D a power of two. With `scales`, two of [R, H, L, 1], k and v are int8. `parts` is a power
    of two; None chooses it by the number of rows.
    """
    rows, heads, width = q.shape
    programs = rows * heads
    parts = parts or parts_for(programs)
    tops, totals = (torch.empty(programs, parts, dtype=torch.float32, device=q.device) for _ in range(2))
    heards = torch.empty(programs, parts, width, dtype=torch.float32, device=q.device)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    k_scales, v_scales = scales if scales is not None else (k, v)
    _hear_part[(programs, parts)](
        q.contiguous(), k, v, k_scales, v_scales, at, tops, totals, heards, k.shape[2], width**-0.5,
        WIDTH=width, PARTS=parts, BLOCK=_BLOCK, EIGHT_BIT=scales is not None,
    )  # fmt: skip
    _join_parts[(programs,)](tops, totals, heards, out, WIDTH=width, PARTS=parts)
    return out


def parts_for(programs: int) -> int:
    """Parts that give a large card some thousand programs, 1 to 64."""
    parts = 1
    while parts < 64 and programs * parts < 1024:
        parts *= 2
    return parts


def works_here(width: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels compile and compute here; says so in the log if not."""
    if width & (width - 1) or width < 16:
        log.info("fast engine: attention kernel is off for heads of width %d", width)
        return False
    try:
        q = torch.linspace(-1, 1, 2 * width, device=device, dtype=dtype).view(1, 2, width)
        k = torch.linspace(1, -1, 2 * 96 * width, device=device, dtype=dtype).view(1, 2, 96, width)
        heard = decode_attention(q, k, k, torch.tensor([70], device=device))
        scores = q.float().unsqueeze(2) @ k[:, :, :71].float().transpose(-1, -2) / width**0.5
        expected = (scores.softmax(-1) @ k[:, :, :71].float()).squeeze(2)
        right = torch.allclose(heard.float(), expected, atol=5e-3)
    except Exception as error:  # compilers and drivers have no common error class
        log.warning("fast engine: attention kernel is off, it does not run here (%s)", error)
        return False
    if not right:
        log.warning("fast engine: attention kernel is off, its results are wrong on this card")
    return right
