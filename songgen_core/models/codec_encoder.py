"""Recordings to codes: MusicFM conformer and one codebook per stream, in float32.

Half precision and TF32 change codes. Letters: B batch, N samples, T frames (25 per second).
"""

import torch
from torch import Tensor, nn

from ..configs import CodecEncoderConfig
from ..layers.conformer import Conformer, ConformerLayer
from ..layers.mel import HOP_LENGTH, LogMel
from ..layers.resample import apply_kernel
from ..layers.rvq import CodebookEncoder
from ..layers.subsampling import ConvSubsampling

_TAPS = 28  # of the resampling kernel
_FRAME = 4 * HOP_LENGTH  # samples at 24 kHz of one frame


class CodecEncoder(nn.Module):
    """The prompt encoder of a codec file (LeVo spec, codec encoder 5)."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.resampling_kernel: Tensor
        self.register_buffer("resampling_kernel", torch.empty(1, 1, _TAPS))
        self.mel = LogMel(config.n_fft, config.num_mel_bins)
        self.conv = ConvSubsampling(config.num_mel_bins, config.subsampling_channels, config.hidden_size)
        self.conformer = Conformer(
            [conformer_layer(config) for _ in range(config.num_hidden_layers)], config.head_dim
        )
        self.quantizers = nn.ModuleList(
            CodebookEncoder(config.codebook_size, config.codebook_dim, config.hidden_size)
            for _ in config.taps
        )

    def forward(self, audio: Tensor, stream: int = 0) -> Tensor:
        """audio [B, 2, N] float32 at 48 kHz -> codes [B, T] int64 of the stream (its place in `taps`)."""
        return self.quantizers[stream](self.features(self.downsample(audio), self.config.taps[stream]))

    def downsample(self, audio: Tensor) -> Tensor:
        """audio [B, 2, N] at 48 kHz -> [B, N / 2] mono at 24 kHz."""
        half = apply_kernel(audio.mean(1), self.resampling_kernel, 2)
        return half[..., : -(-audio.shape[-1] // 2)]

    def features(self, audio: Tensor, tap: int) -> Tensor:
        """audio [B, N] at 24 kHz -> hidden state number `tap`, [B, T, hidden_size]."""
        whole = audio.shape[-1] // _FRAME * _FRAME
        states = self.conformer.hidden_states(self.conv(self.mel(audio[..., :whole])))
        return next(state for k, state in enumerate(states) if k == tap)


def conformer_layer(config: CodecEncoderConfig) -> ConformerLayer:
    return ConformerLayer(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.conv_kernel_size,
        config.layer_norm_eps,
    )
