"""What reads recordings and stored prompts, loaded when it is first asked for."""

from contextlib import suppress

from torch import nn

from ..checkpoint.layout import SharedFiles
from ..checkpoint.load_model import load_prompt_encoders
from ..errors import CheckpointError
from ..progress import IsCancelled, OnProgress, ignore_progress, never_cancelled
from ..selftest import SELFTEST, selftest_encoders, selftest_presets
from .cache import fingerprint_of
from .load_separator import load_separator, selftest_separator
from .presets import GENRES, Presets, load_presets
from .prompt import Prompt, PromptEncoders


class PromptReaders:
    """The files that only prompts need, and what was loaded from them. No files: the self-test model."""

    def __init__(self, files: SharedFiles | None) -> None:
        self.files = files
        self._encoders: PromptEncoders | None = None
        self._separator: nn.Module | None = None
        self._presets: Presets | None = None
        self._fingerprint: str | None = None

    def encoders(
        self, on_progress: OnProgress = ignore_progress, cancelled: IsCancelled = never_cancelled
    ) -> PromptEncoders:
        """Codec encoders and the encoder of the VAE, on the CPU at first.

        Raises CheckpointError, Cancelled.
        """
        if self._encoders is None:
            loaded = (
                selftest_encoders()
                if self.files is None
                else load_prompt_encoders(self.files, on_progress, cancelled)
            )
            self._encoders = PromptEncoders(*loaded)
        return self._encoders

    def separator(self) -> nn.Module:
        """HTDemucs, on the CPU at first. Raises CheckpointError, UserError without the package demucs."""
        if self._separator is None:
            self._separator = (
                selftest_separator() if self.files is None else load_separator(self.files.find("separator"))
            )
        return self._separator

    def preset(self, genre: str, language: str, seed: int) -> Prompt:
        """A stored prompt of the genre. Raises CheckpointError, UserError."""
        if self._presets is None:
            if self.files is None:
                self._presets = Presets(selftest_presets(GENRES))
            else:
                self._presets = load_presets(self.files.find("presets"))
        codes = self._presets.choose(genre, language, seed)
        return Prompt(codes, about=f"stored prompt: {genre}, {language}")

    def fingerprint(self) -> str:
        """Tells in the cache which networks made a prompt. Raises CheckpointError.

        Taken once, as the networks are loaded once: files that are replaced later change neither.
        """
        if self._fingerprint is None:
            self._fingerprint = self._look_at_files()
        return self._fingerprint

    def _look_at_files(self) -> str:
        if self.files is None:
            return SELFTEST
        paths = [self.files.find("mixed_codec"), self.files.codec, self.files.vae]
        with suppress(CheckpointError):  # stems that are given need none
            paths.append(self.files.find("separator"))
        return fingerprint_of(paths)
