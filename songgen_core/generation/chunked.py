"""Long sequences through a network of short reach, chunk by chunk, to bound memory."""

from collections.abc import Callable

import torch
from torch import Tensor


def chunk_starts(length: int, chunk_size: int, overlap: int) -> list[int]:
    """Starts of chunks of `chunk_size`; the last one is moved back so that it ends at `length`."""
    if length <= chunk_size:
        return [0]
    starts = list(range(0, length - chunk_size + 1, chunk_size - overlap))
    if starts[-1] + chunk_size < length:
        starts.append(length - chunk_size)
    return starts


def decode_chunked(
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    hop_length: int,
    *,
    chunk_size: int = 128,
    overlap: int = 32,
    on_chunk: Callable[[], None] = lambda: None,
) -> Tensor:
    """decode(latents [B, C, T]) -> audio [B, channels, T * hop_length] float32, in chunks of frames.

    Equal to decoding as a whole, up to rounding, when the decoder reaches less than overlap / 2 frames
    (the published VAE reaches 9). Sequences of one chunk or less are decoded whole.
    """
    return _chunked(decode, latents, 1, hop_length, chunk_size, overlap, on_chunk)


def encode_chunked(
    encode: Callable[[Tensor], Tensor],
    audio: Tensor,
    hop_length: int,
    *,
    chunk_size: int = 128,
    overlap: int = 32,
    on_chunk: Callable[[], None] = lambda: None,
) -> Tensor:
    """encode(audio [B, channels, N]) -> latents [B, C, N // hop_length]; sizes are in frames."""
    return _chunked(encode, audio, hop_length, 1, chunk_size, overlap, on_chunk)


def _chunked(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    hop_in: int,
    hop_out: int,
    chunk_size: int,
    overlap: int,
    on_chunk: Callable[[], None],
) -> Tensor:
    """Paste function(chunk) side by side; each inner border drops half the overlap, later chunks win."""
    length = x.shape[-1] // hop_in  # frames
    if length <= chunk_size:
        whole = function(x)
        on_chunk()
        return whole
    starts, trim = chunk_starts(length, chunk_size, overlap), overlap // 2
    out: Tensor | None = None
    for start in starts:
        piece = function(x[..., start * hop_in : (start + chunk_size) * hop_in])
        if out is None:
            out = torch.zeros(*piece.shape[:-1], length * hop_out, device=piece.device)
        left = 0 if start == starts[0] else trim
        right = chunk_size if start == starts[-1] else chunk_size - trim
        out[..., (start + left) * hop_out : (start + right) * hop_out] = piece[
            ..., left * hop_out : right * hop_out
        ]
        on_chunk()
    assert out is not None
    return out
