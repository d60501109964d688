"""The codec encoders: recordings to the codes that mean what is heard, learned from the labels.

The mixed encoder hears phone and pulse of a mix, the two-track encoder phone and pitch of a voice, and chord,
drum and timbre of an accompaniment. Rows of a codebook are sums over labels, so that a code which was rarely
heard is near its like.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from songgen_core.checkpoint.load_encoder import DUAL_TAPS
from songgen_core.configs import CodecEncoderConfig
from songgen_core.layers.resample import sinc_kernel
from songgen_core.layers.rope import rope_frequencies
from songgen_core.models.codec_encoder import CodecEncoder

from .codes import heard_code
from .factors import bgm_labels, heard_labels, label_tables, share_labels, vocal_labels
from .loop import Loss, Measure
from .takes import HOP, Take, crop

_SHARPNESS = 8.0  # of the choice between codes while training
_LOUDEST = 0.9


def mel_filters(bins: int, n_fft: int, rate: int = 24000) -> Tensor:
    """Triangles of equal height on the mel scale, [n_fft / 2 + 1, bins]."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    edges = 700 * (10 ** (torch.linspace(mel(30), mel(rate / 2), bins + 2) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, n_fft // 2 + 1)[:, None]
    up = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(up, down).clamp(min=0)


def make_encoder(config: CodecEncoderConfig, seed: int = 0) -> CodecEncoder:
    """A new encoder; with two taps it is the two-track one."""
    torch.manual_seed(seed)
    encoder = CodecEncoder(config)
    encoder.resampling_kernel.copy_(sinc_kernel(2, 1))
    encoder.mel.window.copy_(torch.hann_window(config.n_fft))
    encoder.mel.filters.copy_(mel_filters(config.num_mel_bins, config.n_fft))
    encoder.conformer.inv_freq.copy_(rope_frequencies(config.head_dim, 10000.0))
    kinds = (vocal_labels(), bgm_labels()) if config.taps == DUAL_TAPS else (heard_labels(),)
    for quantizer, (labels, counts) in zip(encoder.quantizers, kinds):
        tables = label_tables(counts, config.codebook_dim)
        for table in tables:
            nn.init.normal_(table.weight[1:], std=0.5)
        share_labels(quantizer.get_submodule("codebook"), labels, tables)
    return encoder


def code_logits(encoder: CodecEncoder, audio: Tensor, stream: int) -> Tensor:
    """Minus the distances to the rows of the codebook, sharpened: audio [B, 2, N] -> [B, T, codes]."""
    heard = encoder.features(encoder.downsample(audio), encoder.config.taps[stream])
    quantizer: Any = encoder.quantizers[stream]
    return -_SHARPNESS * quantizer.distances(quantizer.in_proj(heard))


def labelled_pieces(
    takes: Sequence[Take], tracks: Sequence[str], count: int, frames: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Audio [B, 2, N] as loud as prompts are, and codes [B, T] of what is heard in it."""
    audio, codes = [], []
    for _ in range(count):
        take = takes[int(rng.integers(len(takes)))]
        start = crop(take, frames, rng)
        sound = take.sound(start, start + frames, tracks)
        audio.append(sound * (_LOUDEST / sound.abs().max().clamp(min=1e-3)).clamp(max=20))
        codes.append(codes_of(take, tracks)[start : start + frames])
    shortest = min(map(len, codes))
    return torch.stack([a[:, : shortest * HOP] for a in audio]), torch.stack([c[:shortest] for c in codes])


def codes_of(take: Take, tracks: Sequence[str]) -> Tensor:
    """What an encoder should write for `tracks` of a song, [T]."""
    score = take.score
    if len(tracks) == 2:
        return torch.from_numpy(heard_code(score.phone, score.pulse))
    return torch.from_numpy(score.codes[1 if tracks[0] == "vocal" else 2])


def tracks_of(encoder: CodecEncoder) -> tuple[tuple[str, ...], ...]:
    """What each stream of an encoder hears."""
    return (("vocal",), ("bgm",)) if len(encoder.config.taps) == 2 else (("vocal", "bgm"),)


def encoder_loss(encoder: CodecEncoder, takes: Sequence[Take], size: int, frames: int) -> Loss:
    """Cross entropy of the codes of all streams."""

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        total, right = torch.zeros(()), {}
        for stream, tracks in enumerate(tracks_of(encoder)):
            audio, codes = labelled_pieces(takes, tracks, size, frames, rng)
            logits = code_logits(encoder, audio, stream)
            total = total + cross_entropy(logits.flatten(0, 1), codes.flatten())
            right["_".join(tracks)] = (logits.argmax(-1) == codes).float().mean().item()
        return total, right

    return loss


def encoder_measure(encoder: CodecEncoder, takes: Sequence[Take], frames: int, seed: int = 1) -> Measure:
    """On held-out songs: how many frames get the very code they should, and the cross entropy."""

    def measure() -> dict[str, float]:
        figures = {}
        for stream, tracks in enumerate(tracks_of(encoder)):
            rng = np.random.default_rng(seed)
            audio, codes = labelled_pieces(takes, tracks, len(takes), frames, rng)
            logits, name = code_logits(encoder, audio, stream), "_".join(tracks)
            figures[name] = (logits.argmax(-1) == codes).float().mean().item()
            figures[f"{name}_loss"] = cross_entropy(logits.flatten(0, 1), codes.flatten()).item()
        return figures

    return measure
