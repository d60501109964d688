"""Log-mel spectrogram in decibels, with window and filter bank as the checkpoint stores them."""

import torch
from torch import Tensor, nn

HOP_LENGTH = 240  # samples at 24 kHz: 100 frames per second
_MEAN, _STD = 6.768444971712967, 18.417922652295623  # dB over the training set; not in the checkpoint
_FLOOR = 1e-10


class LogMel(nn.Module):
    """audio [B, N] at 24 kHz -> normalised mel [B, num_mel_bins, N // 240] (LeVo spec, codec encoder 5.2).

    Slim checkpoints hold window and bank rounded to float16; recomputing them would change codes.
    """

    def __init__(self, n_fft: int, num_mel_bins: int) -> None:
        super().__init__()
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", torch.empty(n_fft))
        self.register_buffer("filters", torch.empty(n_fft // 2 + 1, num_mel_bins))

    def forward(self, audio: Tensor) -> Tensor:
        return (self.decibels(audio)[..., :-1] - _MEAN) / _STD

    def decibels(self, audio: Tensor) -> Tensor:
        """[B, num_mel_bins, 1 + N // 240]. Silence is -100 dB; no band is lifted to 80 dB below the top."""
        n_fft = self.window.shape[0]
        spectrum = torch.stft(audio, n_fft, HOP_LENGTH, window=self.window, return_complex=True)
        power = spectrum.abs().square()  # (B, bins, frames)
        mel = (power.transpose(1, 2) @ self.filters).transpose(1, 2)
        return 10 * mel.clamp(min=_FLOOR).log10()
