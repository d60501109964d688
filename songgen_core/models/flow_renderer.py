"""Codes to latents: the conditions of both streams and the flow-matching transformer.

The transformer is GPT-2 shaped and bidirectional, with learned *and* rotary positions and AdaLN-single time
modulation (LeVo spec, renderer 3-6). The residual stream, norms and modulation stay in float32; the matrix
products run in `compute_dtype`.

Letters: B batch, N frames of a window, C latent channels, D width, H heads.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from ..configs import RendererConfig
from ..layers.attention import attention
from ..layers.latent_norm import LatentNorm
from ..layers.rope import rope_angles, rotate_interleaved
from ..layers.rvq import CodebookDecoder

MASK_CONTEXT, MASK_GENERATE = 1, 2  # class 0, padding, never occurs when rendering


def time_sinusoid(t: Tensor, dim: int) -> Tensor:
    """Flow times t [B] in [0, 1) -> [B, dim] float32, cosines first.

    The order of the products matters: angles reach 1000 rad, where float32 rounding shows.
    """
    half = dim // 2
    frequencies = torch.exp(
        -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    )
    angles = (t.float()[:, None] * frequencies) * 1000
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Flow time to the embedding `e` [B, D] and the modulation `m` [B, 6, D] that all blocks share."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.dim = config.time_embedding_dim
        self.linear_1 = nn.Linear(self.dim, width)
        self.linear_2 = nn.Linear(width, width)
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, t: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        e = self.linear_2(silu(self.linear_1(time_sinusoid(t, self.dim).to(dtype))))
        return e, self.linear(silu(e)).unflatten(-1, (6, -1))


class FlowAttention(nn.Module):
    """Bidirectional self-attention with interleaved rotary positions."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.c_attn = nn.Linear(hidden_size, 3 * hidden_size)
        self.c_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        qkv = self.c_attn(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, H, D/H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, N, D/H) each
        q, k = rotate_interleaved(q, angles), rotate_interleaved(k, angles)
        out = attention(q, k, v, causal=False)
        return self.c_proj(out.transpose(1, 2).flatten(2))  # (B, N, D)


class FlowMLP(nn.Module):
    """c_proj(gelu_new(c_fc(x))), the tanh approximation evaluated in float32."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(hidden_size, intermediate_size)
        self.c_proj = nn.Linear(intermediate_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(gelu(self.c_fc(x).float(), approximate="tanh").to(x.dtype))


class FlowBlock(nn.Module):
    """Pre-norm attention and MLP, each shifted, scaled and gated by the time modulation."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.ln_1 = nn.LayerNorm(width, eps)
        self.attn = FlowAttention(width, config.num_attention_heads)
        self.ln_2 = nn.LayerNorm(width, eps)
        self.mlp = FlowMLP(width, config.intermediate_size)
        self.scale_shift_table = nn.Embedding(6, width)

    def forward(self, x: Tensor, modulation: Tensor, angles: Tensor, dtype: torch.dtype) -> Tensor:
        """x [B, N, D] float32, modulation [B, 6, D], angles [N, D/H/2]."""
        rows = self.scale_shift_table(torch.arange(6, device=x.device)) + modulation  # (B, 6, D)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = (
            rows.float().unsqueeze(2).unbind(1)
        )
        u = self.ln_1(x) * (1 + scale_attn) + shift_attn
        x = x + gate_attn * self.attn(u.to(dtype), angles)
        w = self.ln_2(x) * (1 + scale_mlp) + shift_mlp
        return x + gate_mlp * self.mlp(w.to(dtype))


class FlowTransformer(nn.Module):
    """The estimator: input frames [B, N, D] at flow time t [B] -> output frames [B, N, D]."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = config.head_dim, config.rope_theta
        width = config.hidden_size
        self.wpe = nn.Embedding(config.window_frames, width)
        self.time = TimeEmbedding(config)
        self.h = nn.ModuleList(FlowBlock(config) for _ in range(config.num_hidden_layers))
        self.scale_shift_table = nn.Embedding(2, width)
        self.ln_f = nn.LayerNorm(width, config.layer_norm_eps)
        self.proj_out = nn.Linear(width, width)

    def forward(self, frames: Tensor, t: Tensor, dtype: torch.dtype) -> Tensor:
        positions = torch.arange(frames.shape[1], device=frames.device)
        angles = rope_angles(positions, self.head_dim, self.rope_theta)  # (N, D/H/2)
        e, modulation = self.time(t, dtype)
        x = frames + self.wpe(positions)
        for block in self.h:
            x = block(x, modulation, angles, dtype)
        rows = self.scale_shift_table(torch.arange(2, device=x.device)) + e[:, None]  # (B, 2, D)
        shift, scale = rows.float().unsqueeze(2).unbind(1)
        return self.proj_out((self.ln_f(x) * (1 + scale) + shift).to(dtype))


class FlowRenderer(nn.Module):
    """Everything between code streams and VAE latents that has weights."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.codebook_size, config.codebook_dim, config.cond_dim
        self.vocal_codebook = CodebookDecoder(*sizes)
        self.bgm_codebook = CodebookDecoder(*sizes)
        self.mask_embedding = nn.Embedding(3, config.mask_dim)
        self.estimator = FlowTransformer(config)
        self.latent_norm = LatentNorm(config.latent_dim)
        self.compute_dtype = torch.float32

    def condition(self, vocal_codes: Tensor, bgm_codes: Tensor) -> Tensor:
        """Codes [B, N] of both streams -> condition [B, N, 2 * cond_dim] float32, vocal first."""
        return torch.cat([self.vocal_codebook(vocal_codes), self.bgm_codebook(bgm_codes)], dim=-1).float()

    def velocity(
        self, x: Tensor, t: Tensor, condition: Tensor, context: Tensor, context_frames: int
    ) -> Tensor:
        """Velocity [B, N, C] of state x [B, N, C] at flow time t [B].

        `context` [B, N, C] is normalised and zero from `context_frames` on.
        """
        mask = torch.full(x.shape[:2], MASK_GENERATE, device=x.device)
        mask[:, :context_frames] = MASK_CONTEXT
        frames = torch.cat([self.mask_embedding(mask).float(), context, condition, x], dim=-1)  # (B, N, D)
        return self.estimator(frames, t, self.compute_dtype)[..., -self.config.latent_dim :]
