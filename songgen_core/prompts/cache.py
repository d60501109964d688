"""Prompts that were made before, by the content of what they were made from."""

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..atomic import complete_or_nothing
from .prompt import Prompt

log = logging.getLogger("songgen")

_FORMAT = "songgen-prompt-1"
_KEPT = 200  # files; 0.3 MB each
_HEAD = 1 << 20


class _Recording(Protocol):
    @property
    def samples(self) -> Tensor: ...
    @property
    def sample_rate(self) -> int: ...


def cache_key(recordings: Mapping[str, _Recording], options: Any, fingerprint: str) -> str:
    """Hexadecimal name of everything that a prompt depends on: samples, options, networks."""
    digest = hashlib.sha256(f"{_FORMAT} {fingerprint} {sorted(asdict(options).items())}".encode())
    for name, recording in sorted(recordings.items()):
        samples = recording.samples
        digest.update(f"{name} {recording.sample_rate} {tuple(samples.shape)}".encode())
        digest.update(np.ascontiguousarray(samples.numpy()).data)
    return digest.hexdigest()


def fingerprint_of(files: list[Path]) -> str:
    """Tells weight files apart without reading all of them: sizes and first megabytes."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.stat().st_size} ".encode() + file.read(_HEAD))
    return digest.hexdigest()[:16]


class PromptCache:
    """A folder of prompts; the oldest ones go when there are too many. It is made at the first save."""

    def __init__(self, folder: Path, kept: int = _KEPT) -> None:
        self.folder, self.kept = folder, kept

    def load(self, key: str) -> Prompt | None:
        """A prompt saved under this key; None if there is none that can be read."""
        path = self._path(key)
        try:
            if not path.is_file():
                return None
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                about = (file.metadata() or {}).get("about", "")
            prompt = Prompt(tensors.pop("codes"), tensors, about)
        except (SafetensorError, KeyError, OSError) as error:
            log.warning("%s cannot be read (%s); the prompt is made anew", path, error)
            return None
        with suppress(OSError):  # a folder that may only be read serves all the same
            os.utime(path)  # used now: the oldest are those that nobody asked for
        return prompt

    def save(self, key: str, prompt: Prompt) -> None:
        """Keep a prompt. A folder that cannot be written to costs a warning, not the prompt."""
        tensors = {"codes": prompt.codes.contiguous()}
        tensors |= {name: latents.contiguous() for name, latents in prompt.latents.items()}
        try:
            with complete_or_nothing(self._path(key)) as temporary:
                # Not save_file: what that writes is readable by its owner only.
                temporary.write_bytes(save(tensors, {"format": _FORMAT, "about": prompt.about}))
            self._forget_oldest()
        except (OSError, SafetensorError) as error:
            log.warning("the prompt was not kept for the next time: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _forget_oldest(self) -> None:
        ages = []
        for path in self.folder.glob("[0-9a-f]*.safetensors"):
            with suppress(OSError):  # another process may tidy up as well
                ages.append((path.stat().st_mtime, path))
        for _, path in sorted(ages)[: max(0, len(ages) - self.kept)]:
            with suppress(OSError):
                path.unlink()
