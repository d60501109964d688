"""The wav2vec2-conformer encoder with rotary positions; layer names are those of Hugging Face.

Letters: B batch, S positions, D width, H heads.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, silu

from .attention import attention
from .norm import FrozenBatchNorm
from .rope import rotate_half_split


class FeedForward(nn.Module):
    """x [B, S, D] -> [B, S, D]."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(hidden_size, intermediate_size)
        self.output_dense = nn.Linear(intermediate_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(silu(self.intermediate_dense(x)))


class SelfAttention(nn.Module):
    """Quirk: the rotation is applied before the projections of query and key, and not to the value."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear_q = nn.Linear(hidden_size, hidden_size)
        self.linear_k = nn.Linear(hidden_size, hidden_size)
        self.linear_v = nn.Linear(hidden_size, hidden_size)
        self.linear_out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rotated = self._merge(rotate_half_split(self._split(x), cos, sin))
        q, k, v = self.linear_q(rotated), self.linear_k(rotated), self.linear_v(x)
        out = attention(self._split(q), self._split(k), self._split(v), causal=False)
        return self.linear_out(self._merge(out))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, S, D/H)

    def _merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)  # (B, S, D)


class ConvolutionModule(nn.Module):
    """x [B, S, D] -> [B, S, D]; no bias anywhere."""

    def __init__(self, hidden_size: int, kernel_size: int, eps: float) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(hidden_size, eps)
        self.pointwise_conv1 = nn.Conv1d(hidden_size, 2 * hidden_size, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(
            hidden_size, hidden_size, kernel_size, padding=kernel_size // 2, groups=hidden_size, bias=False
        )
        self.batch_norm = FrozenBatchNorm(hidden_size)
        self.pointwise_conv2 = nn.Conv1d(hidden_size, hidden_size, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = glu(self.pointwise_conv1(self.layer_norm(x).transpose(1, 2)), dim=1)  # (B, D, S)
        return self.pointwise_conv2(silu(self.batch_norm(self.depthwise_conv(x)))).transpose(1, 2)


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(
        self, hidden_size: int, num_heads: int, intermediate_size: int, kernel_size: int, eps: float
    ) -> None:
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(hidden_size, eps)
        self.ffn1 = FeedForward(hidden_size, intermediate_size)
        self.self_attn_layer_norm = nn.LayerNorm(hidden_size, eps)
        self.self_attn = SelfAttention(hidden_size, num_heads)
        self.conv_module = ConvolutionModule(hidden_size, kernel_size, eps)
        self.ffn2_layer_norm = nn.LayerNorm(hidden_size, eps)
        self.ffn2 = FeedForward(hidden_size, intermediate_size)
        self.final_layer_norm = nn.LayerNorm(hidden_size, eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.self_attn(self.self_attn_layer_norm(x), cos, sin)
        x = x + self.conv_module(x)
        x = x + 0.5 * self.ffn2(self.ffn2_layer_norm(x))
        return self.final_layer_norm(x)


class Conformer(nn.Module):
    """A stack of layers over one set of rotary angles; no input norm, no mask, no positional convolution."""

    def __init__(self, layers: list[ConformerLayer], head_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        # Stored, because slim checkpoints round it: at position 999 that turns by 0.16 rad.
        self.inv_freq: Tensor
        self.register_buffer("inv_freq", torch.empty(head_dim // 2))

    def hidden_states(self, x: Tensor) -> Iterator[Tensor]:
        """x [B, S, D], then the output of every layer."""
        angles = torch.arange(x.shape[1], device=x.device).float()[:, None] * self.inv_freq
        cos, sin = (f(angles).repeat(1, 2) for f in (torch.cos, torch.sin))  # (S, D/H)
        yield x
        for layer in self.layers:
            x = layer(x, cos, sin)
            yield x
