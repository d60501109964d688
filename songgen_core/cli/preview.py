"""A WAV file that grows while a song is made, and is whole at every moment."""

import logging
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from ..errors import AudioError

log = logging.getLogger("songgen")

_HEADER = "<4sI4s4sIHHIIHH4sI"  # RIFF, one fmt chunk of 16 bytes, one data chunk
_UNKNOWN = 0xFFFFFFFF  # sizes of a stream that nobody can correct later
_WIDTH, _CHANNELS = 2, 2


class PreviewFile:
    """16 bit stereo PCM; peaks above full scale are clipped, since nobody knows the song's loudest place yet.

    A regular file can be opened, played and copied at any time: the sizes in its header are those of what it
    holds. Into a pipe (a player that reads along) the sizes are written as unknown. A preview that cannot go
    on, as its player was closed or the disk is full, ends with a warning: the song matters more.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        """Raises AudioError for a file that cannot be written."""
        self._path, self._rate, self._bytes, self._works = path, sample_rate, 0, True
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise AudioError(f"{path}: {error.strerror}; choose another file for the preview") from error
        self._seekable = self._file.seekable()
        self._file.write(self._header(0 if self._seekable else _UNKNOWN))

    @property
    def kept_seconds(self) -> float | None:
        """Seconds of sound in the file; None where there is none, as a pipe keeps nothing."""
        return self._bytes / (_CHANNELS * _WIDTH * self._rate) if self._path.is_file() else None

    def add(self, piece: Tensor) -> None:
        """The next samples [1, 2, n] float32."""
        if not self._works:
            return
        samples = (piece[0].clamp(-1, 1) * 32767).round().T.contiguous().numpy().astype(np.dtype("<i2"))
        try:
            self._write(samples.tobytes())
        except OSError as error:
            self._works = False
            log.warning("the preview %s ends here (%s); the song goes on", self._path, error.strerror)

    def _write(self, samples: bytes) -> None:
        self._file.write(samples)
        self._bytes += len(samples)
        if self._seekable:
            self._file.seek(0)
            self._file.write(self._header(self._bytes))
            self._file.seek(0, 2)
        self._file.flush()

    def __enter__(self) -> "PreviewFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # what could not be written was told
            self._file.close()

    def _header(self, size: int) -> bytes:
        frame = _CHANNELS * _WIDTH
        riff = size if size == _UNKNOWN else size + 36
        form = (b"fmt ", 16, 1, _CHANNELS, self._rate, self._rate * frame, frame, 8 * _WIDTH)
        return struct.pack(_HEADER, b"RIFF", riff, b"WAVE", *form, b"data", size)
