"""KV caches for decoding one column at a time, each with the attention that reads it fastest.

All three have `load`, which takes over a prefix, k and v [U, H, P, D] (rows[n] of the cache gets row
source[n] of it), and `attend`, which stores k and v [R, H, D] at a position and returns what q [R, H, D]
hears up to there, [R, H, D].

Letters: R rows, H heads, L positions, D head width, P positions of the prefix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass
class Position:
    """Where the column at work stands: as a number for shapes, and as a tensor [1] int64 on the device.

    A step moves the tensor itself, as it does in a CUDA graph; who calls it moves the number.
    """

    number: int
    index: Tensor


# q [R, H, D], k and v [R, H, L, D], position [1], scales of int8 k and v or None -> [R, H, D]
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor] | None], Tensor]


class TransposedCache:
    """[R, H, D, L]: positions lie side by side, so that both products of attention are plain dot products
    with long rows. Two to three times as fast as [L, D] on a CPU; the shapes grow with the song."""

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """`shape` is (R, H, L, D)."""
        rows, heads, positions, width = shape
        turned = 2, rows, heads, width, positions
        self.blocks = [torch.empty(turned, dtype=dtype, device=device) for _ in range(num_layers)]

    def load(self, layer: int, k: Tensor, v: Tensor, rows: Tensor, source: Tensor) -> None:
        for block, new in zip(self.blocks[layer], (k, v)):
            block[..., : k.shape[2]][rows] = new.transpose(-1, -2)[source].to(block.dtype)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Position) -> Tensor:
        block = self.blocks[layer]
        block[0, ..., at.number] = k
        block[1, ..., at.number] = v
        keys, values = block[..., : at.number + 1]
        if block.dtype != torch.float32:  # whose scores could overflow; a fused kernel keeps them wide
            k, v = keys.transpose(-1, -2), values.transpose(-1, -2)
            return scaled_dot_product_attention(q.unsqueeze(2).to(k.dtype), k, v).squeeze(2).to(q.dtype)
        scores = q.float().unsqueeze(-2) @ keys / q.shape[-1] ** 0.5  # (R, H, 1, L)
        return (scores.softmax(-1) @ values.transpose(-1, -2)).squeeze(-2).to(q.dtype)

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)


class FixedCache:
    """[R, H, L, D], read up to a fixed `extent` behind a mask, or by a kernel that knows the position.

    No shape depends on the position.
    """

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        kernel: Kernel | None = None,
    ) -> None:
        """`shape` is (R, H, L, D)."""
        self.extent = self.max_seq_len = shape[2]
        self.kernel = kernel
        # Zeros: what lies behind the mask is multiplied by 0, which would not mend a NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self._places = torch.arange(shape[2], device=device)

    def load(self, layer: int, k: Tensor, v: Tensor, rows: Tensor, source: Tensor) -> None:
        for block, new in ((self.keys[layer], k), (self.values[layer], v)):
            block[:, :, : k.shape[2]][rows] = new[source].to(block.dtype)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Position) -> Tensor:
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, at.index, k.unsqueeze(2).to(keys.dtype))
        values.index_copy_(2, at.index, v.unsqueeze(2).to(values.dtype))
        if self.kernel is not None:
            return self.kernel(q, keys, values, at.index, None)
        keys, values = keys[:, :, : self.extent], values[:, :, : self.extent]
        seen = self._places[: self.extent] <= at.index
        return masked_attention(q.to(keys.dtype), keys, values, seen).to(q.dtype)

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in (*self.keys, *self.values))


class EightBitCache:
    """`FixedCache` in int8 with a float16 scale per head and position: half the memory of 16 bit.

    A kernel widens it in registers; without one the extent is widened at each use, which costs time.
    """

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int, int],
        device: torch.device,
        kernel: Kernel | None = None,
    ) -> None:
        """`shape` is (R, H, L, D)."""
        self.extent = self.max_seq_len = shape[2]
        self.kernel = kernel
        self.blocks = [torch.zeros((2, *shape), dtype=torch.int8, device=device) for _ in range(num_layers)]
        self.scales = [
            torch.zeros((2, *shape[:3], 1), dtype=torch.float16, device=device) for _ in range(num_layers)
        ]
        self._places = torch.arange(shape[2], device=device)

    def load(self, layer: int, k: Tensor, v: Tensor, rows: Tensor, source: Tensor) -> None:
        block, scales = narrow(torch.stack([k, v])[:, source])
        self.blocks[layer][..., : k.shape[2], :][:, rows] = block
        self.scales[layer][..., : k.shape[2], :][:, rows] = scales

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Position) -> Tensor:
        block, scales = self.blocks[layer], self.scales[layer]
        new_block, new_scales = narrow(torch.stack([k, v]).unsqueeze(-2))
        block.index_copy_(3, at.index, new_block)
        scales.index_copy_(3, at.index, new_scales)
        if self.kernel is not None:
            return self.kernel(q, block[0], block[1], at.index, (scales[0], scales[1]))
        keys, values = widen(block[..., : self.extent, :], scales[..., : self.extent, :], q.dtype)
        return masked_attention(q, keys, values, self._places[: self.extent] <= at.index)

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in (*self.blocks, *self.scales))


AnyCache = TransposedCache | FixedCache | EightBitCache


def masked_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """q [R, H, D], k and v [R, H, L, D], seen [L] bool -> [R, H, D]; float32 is written out."""
    if q.dtype == torch.float32:
        scores = q.unsqueeze(2) @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (R, H, 1, L)
        return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).squeeze(2)
    return scaled_dot_product_attention(q.unsqueeze(2), k, v, attn_mask=seen[None]).squeeze(2)


def narrow(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., D] -> int8 [..., D] and scales [..., 1] float16, such that their product is x, nearly."""
    largest = x.float().abs().amax(-1, keepdim=True)
    scales = (largest / 127).clamp(min=1e-6).to(torch.float16)
    return (x.float() / scales.float()).round().clamp(-127, 127).to(torch.int8), scales


def widen(values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype) * scales.to(dtype)
