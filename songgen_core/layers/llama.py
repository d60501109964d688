"""A Llama decoder stack: the building block of both transformers of the language model.

Letters: B batch rows, S positions, D width, H heads.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .attention import attention
from .kv_cache import KVCache
from .norm import RMSNorm
from .rope import rotary_table, rotate_half_split


class LlamaAttention(nn.Module):
    """Causal self-attention with rotary positions; key/value heads equal query heads."""

    def __init__(self, hidden_size: int, num_heads: int, layer_index: int) -> None:
        super().__init__()
        self.num_heads, self.layer_index = num_heads, layer_index
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: KVCache | None) -> Tensor:
        q, k, v = (self._split(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))  # (B, H, S, D/H)
        q, k = rotate_half_split(q, *rotary), rotate_half_split(k, *rotary)
        if cache is not None:
            k, v = cache.append(self.layer_index, k, v)
        out = attention(q, k, v, causal=True)  # (B, H, S, D/H)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # (B, S, D)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class LlamaMLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaDecoderLayer(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, num_heads: int, eps: float, layer_index: int
    ) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(hidden_size, eps)
        self.self_attn = LlamaAttention(hidden_size, num_heads, layer_index)
        self.post_attention_layernorm = RMSNorm(hidden_size, eps)
        self.mlp = LlamaMLP(hidden_size, intermediate_size)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: KVCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaStack(nn.Module):
    """`num_layers` decoder layers and the final norm; embeddings and heads live with the caller."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        num_heads: int,
        num_layers: int,
        rope_theta: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.head_dim, self.num_heads, self.rope_theta = hidden_size // num_heads, num_heads, rope_theta
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(hidden_size, intermediate_size, num_heads, eps, i) for i in range(num_layers)
        )
        self.norm = RMSNorm(hidden_size, eps)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states x [B, S, D] at the positions behind the cache -> [B, S, D] after the final norm."""
        start = cache.length if cache is not None else 0
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        rotary = rotary_table(positions, self.head_dim, self.rope_theta, x.dtype)
        for layer in self.layers:
            x = layer(x, rotary, cache)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.norm(x)

    def make_cache(self, rows: int, max_seq_len: int, dtype: torch.dtype, device: torch.device) -> KVCache:
        return KVCache(len(self.layers), (rows, self.num_heads, max_seq_len, self.head_dim), dtype, device)
