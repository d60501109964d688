"""Normalisations: by root mean square with statistics in float32, and by the statistics of a training set."""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


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


class FrozenBatchNorm(nn.Module):
    """Batch norm by stored statistics; x [B, C, ...]. Unlike torch's it has no step counter to load."""

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
