"""Rotary position embeddings in the two layouts of the model.

Letters: B batch, H heads, S positions, D head width.
"""

import torch
from torch import Tensor


def rope_frequencies(head_dim: int, theta: float, device: torch.device | str = "cpu") -> Tensor:
    """Angular step per position of each pair of channels, [D/2] float32."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    return 1.0 / theta**exponent


def rope_angles(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Angles of integer `positions` [S] -> [S, D/2] float32.

    Kept in float32 throughout: float64 angles differ by up to 6e-4 near position 8000, and the model
    was trained with the float32 ones.
    """
    return positions.float()[:, None] * rope_frequencies(head_dim, theta, positions.device)


def rotary_table(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin for `rotate_half_split`, each [S, D] in `dtype` (the angles repeat twice)."""
    angles = rope_angles(positions, head_dim, theta)
    angles = torch.cat([angles, angles], dim=-1)  # [S, D]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate_half_split(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Llama layout: channel j turns with channel j + D/2. x [B, H, S, D]; cos, sin [S, D]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def rotate_interleaved(x: Tensor, angles: Tensor) -> Tensor:
    """Layout of the flow transformer: channel 2j turns with 2j+1. x [B, H, S, D]; angles [S, D/2].

    Computed in float32 and cast back to x's dtype.
    """
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # [B, H, S, D/2] each
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2).to(x.dtype)
