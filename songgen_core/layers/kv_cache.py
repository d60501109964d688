"""Keys and values of past positions, in one preallocated block per layer.

Letters: B batch rows, H heads, S new positions, D head width.
"""

import torch
from torch import Tensor


class KVCache:
    """Rotated keys and plain values of one transformer, [layers, B, H, max_seq_len, D]."""

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """`shape` is (B, H, max_seq_len, D)."""
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.max_seq_len = shape[2]
        self.length = 0  # positions that every layer has seen

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v [B, H, S, D] behind the past of `layer`; returns past and new together.

        The new positions count only after `advance`, so that all layers of one pass write the same place.
        """
        end = self.length + k.shape[2]
        assert end <= self.max_seq_len, f"KV cache of {self.max_seq_len} positions is full at {end}"
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, num_positions: int) -> None:
        self.length += num_positions
