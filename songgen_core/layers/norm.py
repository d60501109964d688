"""Root mean square normalisation with its statistics in float32."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = weight * cast(x / rms(x)); the cast back to x's dtype comes before the weight (LeVo spec 6.2)."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight.to(x.device, x.dtype) * normed.to(x.dtype)
