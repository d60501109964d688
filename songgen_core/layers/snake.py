"""The Snake activation of the Oobleck autoencoder."""

import torch
from torch import Tensor, nn


class SnakeBeta(nn.Module):
    """y = x + sin(x * exp(alpha))^2 / (exp(beta) + 1e-9), per channel; x [B, C, N].

    The epsilon is added before the reciprocal: beta reaches values where it matters (LeVo spec, VAE 2).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = (p.to(x.device, x.dtype)[:, None].exp() for p in (self.alpha, self.beta))  # (C, 1)
        return x + (beta + 1e-9).reciprocal() * torch.sin(x * alpha).square()
