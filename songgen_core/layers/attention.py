"""The one place where attention is computed.

Letters: B batch, H heads, S queries, L keys, D head width.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Scaled dot-product attention; q [B, H, S, D], k and v [B, H, L, D] -> [B, H, S, D].

    `causal` aligns the last query with the last key, so that a single query sees every key. float32 takes
    the written-out formula, which agrees with the reference ten times closer than the fused CPU kernel does;
    half precisions take a fused kernel, whose scores stay in float32 where the formula would overflow.
    """
    mask = causal_mask(q.shape[-2], k.shape[-2], q.device) if causal and q.shape[-2] > 1 else None
    if q.dtype != torch.float32:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, H, S, L)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """True where a query may look, [S, L] bool."""
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)
