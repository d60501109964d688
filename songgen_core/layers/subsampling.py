"""Mel spectrogram to conformer frames: two residual blocks of strided 2-d convolutions.

Letters: B batch, C channels, F mel bins, T frames.
"""

from math import ceil

import torch
from torch import Tensor, nn

from .norm import FrozenBatchNorm


class SubsamplingBlock(nn.Module):
    """Halves bins and frames (odd sizes round up): x [B, C, F, T] -> [B, C', ceil(F/2), ceil(T/2)]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.bn1 = FrozenBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = FrozenBatchNorm(channels)
        self.conv3 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.bn3 = FrozenBatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        main = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(main + self.bn3(self.conv3(x)))


class ConvSubsampling(nn.Module):
    """mel [B, F, T] -> frames [B, T/4, hidden_size] (LeVo spec, codec encoder 5.3)."""

    def __init__(self, num_mel_bins: int, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([SubsamplingBlock(1, channels), SubsamplingBlock(channels, channels)])
        bins = ceil(ceil(num_mel_bins / 2) / 2)
        self.linear = nn.Linear(channels * bins, hidden_size)

    def forward(self, mel: Tensor) -> Tensor:
        x = mel[:, None]
        for block in self.blocks:
            x = block(x)
        return self.linear(x.permute(0, 3, 1, 2).flatten(2))  # (B, T/4, C * F/4)
