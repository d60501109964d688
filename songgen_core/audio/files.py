"""Write and read audio files with PyAV, the one audio library every ComfyUI has.

A file appears under its name only when it is complete: it is written under a hidden name beside the target
and then renamed. Letters: C channels, N audio samples.
"""

import errno
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..atomic import complete_or_nothing
from ..errors import AudioError, Cancelled
from ..progress import IsCancelled, OnProgress, count_progress, ignore_progress, never_cancelled
from .limiter import check_finite, limit_peaks, peak

# Samples per frame handed to the encoder, so that no second copy of the song is ever made and a stop never
# waits for more than one of them: MP3 takes a tenth of a second for each.
_BLOCK = 1 << 16

# A FLAC metadata block counts its bytes in 24 bits; more would damage the file silently.
_MAX_TAG_BYTES = 15_000_000

_LAYOUTS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class _Encoding:
    """How one format is written."""

    extension: str
    container: str
    codec: str
    sample_format: str  # FFmpeg's name; a trailing "p" means one plane per channel
    full_scale: bool  # True: samples beyond +-1 cannot be held and must be limited
    bit_rate: int | None = None
    sample_rates: tuple[int, ...] = ()  # empty: any


_ENCODINGS = {
    "flac": _Encoding(".flac", "flac", "flac", "s32", full_scale=True),
    "wav": _Encoding(".wav", "wav", "pcm_s24le", "s32", full_scale=True),
    "wav32": _Encoding(".wav", "wav", "pcm_f32le", "flt", full_scale=False),
    # The rates of MPEG-1; the lower ones of MPEG-2 end at 160 kbit/s.
    "mp3": _Encoding(
        ".mp3",
        "mp3",
        "libmp3lame",
        "fltp",
        full_scale=True,
        bit_rate=320_000,
        sample_rates=(32000, 44100, 48000),
    ),
}

FORMATS = tuple(_ENCODINGS)


@dataclass(frozen=True)
class SavedAudio:
    """What was written."""

    path: Path
    format: str
    seconds: float
    peak: float  # of the audio as given, before limiting
    limited: bool


def save_audio(
    path: str | os.PathLike[str],
    audio: torch.Tensor,
    sample_rate: int,
    *,
    audio_format: str | None = None,
    tags: Mapping[str, str] | None = None,
    on_progress: OnProgress = ignore_progress,
    cancelled: IsCancelled = never_cancelled,
) -> SavedAudio:
    """Write audio [C, N] or [1, C, N], mono or stereo, to a file; it is there complete or not at all.

    Peaks beyond full scale are limited, except in wav32, where float holds them. FLAC and MP3 keep every
    tag; WAV has fields for title, artist, comment and a few more and drops the others. Raises AudioError,
    Cancelled.
    """
    path = Path(os.path.abspath(path))
    name = format_name(path, audio_format)
    encoding = _ENCODINGS[name]
    _check_rate(sample_rate, name)
    samples, kept_tags = _plain_samples(audio), _clean_tags(tags or {})
    check_finite(samples, sample_rate)
    loudest = peak(samples)
    limited = encoding.full_scale and loudest > 1.0
    if limited:
        samples = limit_peaks(samples, sample_rate=sample_rate)
    with _readable_errors(path):
        if path.is_dir():
            raise AudioError(f"{path} is a folder; add a file name")
        with complete_or_nothing(path) as temporary:
            blocks = _blocks(samples, on_progress, cancelled)
            _encode(temporary, blocks, samples.shape[0], sample_rate, encoding, kept_tags)
    return SavedAudio(path, name, samples.shape[-1] / sample_rate, loudest, limited)


def load_audio(path: str | os.PathLike[str]) -> tuple[torch.Tensor, int]:
    """Audio [C, N] float32 and sample rate of the first audio stream of a sound or video file."""
    path = Path(os.path.abspath(path))
    av = _pyav()
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file; check the name and the folder")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes); copy or download it again")
    try:
        blocks, sample_rate = _decode(path)
    except PermissionError as error:
        raise AudioError(f"{path}: no permission to read it; change the rights of the file") from error
    except (av.error.FFmpegError, ValueError) as error:  # ValueError: the layout changes half-way
        raise AudioError(f"{path} is no readable audio file ({_reason(error)}); convert it to WAV") from error
    if not blocks:
        raise AudioError(f"{path} holds no sound; choose a file with an audio track")
    return torch.from_numpy(np.concatenate(blocks, axis=1)), sample_rate


def _pyav() -> Any:
    """The av module, asked for only where it is used: the rest of the core works without it."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise AudioError("audio files need the package PyAV; install it with: pip install av") from error


def format_name(path: Path, audio_format: str | None) -> str:
    """The format asked for, else the one of the extension; raise AudioError where they do not fit."""
    allowed = ", ".join(FORMATS)
    extension = path.suffix.lower()
    if audio_format is None:
        names = [name for name in FORMATS if _ENCODINGS[name].extension == extension]
        if not names:
            raise AudioError(f"{path.name}: unknown extension {extension!r}; use .flac, .wav or .mp3")
        return names[0]
    if audio_format not in _ENCODINGS:
        raise AudioError(f"unknown audio format {audio_format!r}; use one of {allowed}")
    expected = _ENCODINGS[audio_format].extension
    if extension != expected:
        raise AudioError(f"{path.name}: a file of format {audio_format} must end in {expected}; rename it")
    return audio_format


def _check_rate(sample_rate: int, name: str) -> None:
    rates = _ENCODINGS[name].sample_rates
    if sample_rate < 1:
        raise AudioError(f"sample_rate is {sample_rate}; it must be the number of samples per second")
    if rates and sample_rate not in rates:
        allowed = ", ".join(map(str, rates))
        raise AudioError(f"{name} holds {allowed} Hz, not {sample_rate}; resample, or save as flac or wav")


def _plain_samples(audio: torch.Tensor) -> torch.Tensor:
    """Float32 audio [C, N] on the CPU, from [C, N] or [1, C, N]."""
    shape = list(audio.shape)
    if not audio.is_floating_point():
        raise AudioError(f"audio must be float in -1..1, not {audio.dtype}; divide integers by full scale")
    if len(shape) == 3 and shape[0] > 1:
        raise AudioError(f"audio {shape} is a batch of {shape[0]} takes; save each one to its own file")
    if len(shape) not in (2, 3) or shape[-2] not in _LAYOUTS or shape[0] == 0:
        raise AudioError(f"audio must be [C, N] or [1, C, N] with 1 or 2 channels, not {shape}; fold it down")
    if shape[-1] == 0:
        raise AudioError("the audio is empty (0 samples); nothing to save, generate a longer piece")
    return audio.detach().reshape(shape[-2:]).to("cpu", torch.float32)


def _clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as FFmpeg can hold them: its strings end at a zero byte, and UTF-8 has no half characters."""
    clean = {key: value.replace("\0", "").encode("utf-8", "replace").decode() for key, value in tags.items()}
    size = sum(len(value.encode()) for value in clean.values())
    if size > _MAX_TAG_BYTES:
        limit = _MAX_TAG_BYTES // 1_000_000
        raise AudioError(f"the tags take {size / 1e6:.0f} MB, a file holds {limit} MB; leave some out")
    return clean


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turn what system and encoder report into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise AudioError(_advice(error, path)) from error
    except _pyav().error.FFmpegError as error:
        raise AudioError(f"{path}: the encoder failed ({_reason(error)}); try another format") from error


def _advice(error: OSError, path: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, {path} was not written; free some space or choose another folder"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return (
            f"no permission to write {path}; choose another folder, change the rights of this one, "
            "or close the program that has the file open"
        )
    return f"{path} cannot be written ({_reason(error)}); choose another name or folder"


def _reason(error: Any) -> str:
    return str(getattr(error, "strerror", None) or error)


def _blocks(
    samples: torch.Tensor, on_progress: OnProgress, cancelled: IsCancelled
) -> Iterator[tuple[int, torch.Tensor]]:
    """Start and samples [C, n] of each block of [C, N]; a block is told of when the next one is asked for."""
    starts = range(0, samples.shape[-1], _BLOCK)
    block_done = count_progress("saving", len(starts), on_progress)
    for start in starts:
        if cancelled():
            raise Cancelled("stopped by the user")
        yield start, samples[:, start : start + _BLOCK]
        block_done()


def _encode(
    path: Path,
    blocks: Iterable[tuple[int, torch.Tensor]],
    channels: int,
    sample_rate: int,
    how: _Encoding,
    tags: dict[str, str],
) -> None:
    """Write blocks of samples [C, n] to a new file."""
    layout = _LAYOUTS[channels]
    with _pyav().open(str(path), "w", format=how.container) as container:
        container.metadata.update(tags)
        stream = container.add_stream(how.codec, rate=sample_rate, layout=layout)
        stream.codec_context.format = how.sample_format
        if how.bit_rate is not None:
            stream.codec_context.bit_rate = how.bit_rate
        for start, samples in blocks:
            frame = _frame(samples, how.sample_format, layout)
            frame.sample_rate, frame.pts = sample_rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _frame(samples: torch.Tensor, sample_format: str, layout: str) -> Any:
    """An encoder frame of samples [C, n]."""
    values = samples.numpy()
    if sample_format == "s32":
        # 24 bits, in the upper part of 32. Only +1.0 itself meets the bound: it has no 24-bit value.
        values = np.minimum(np.round(values * np.float32(1 << 23)), (1 << 23) - 1).astype(np.int32) << 8
    if not sample_format.endswith("p"):
        values = values.T.reshape(1, -1)  # [1, n * C], channels interleaved
    return _pyav().AudioFrame.from_ndarray(np.ascontiguousarray(values), format=sample_format, layout=layout)


def _decode(path: Path) -> tuple[list[np.ndarray], int]:
    """Blocks [C, n] float32 and sample rate of the first audio stream; no blocks where there is none."""
    av = _pyav()
    # The whitelist keeps a playlist posing as a song from reaching into the network.
    with av.open(str(path), options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
        if not container.streams.audio:
            return [], 0
        stream = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp")
        frames = (out for frame in container.decode(stream) for out in to_float.resample(frame))
        blocks = [frame.to_ndarray() for frame in frames]
        return blocks, int(stream.codec_context.sample_rate)
