"""Whole songs from lyrics: the library behind the ComfyUI nodes and the `songgen` command.

Works without ComfyUI. Importing it does nothing but define names; torch is loaded with the first name that
needs it, so that `songgen --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .codec import RenderOptions, SongCodec, render_audio
    from .configs import (
        FRAME_RATE,
        SAMPLE_RATE,
        VARIANTS,
        LeLMConfig,
        OobleckConfig,
        OutputType,
        RendererConfig,
    )
    from .errors import AudioError, Cancelled, CheckpointError, LyricsError, UserError
    from .generation.sampling import SamplingOptions
    from .pipeline import OUTPUTS, SongPipeline, SongResult
    from .progress import Progress
    from .prompts.prompt import Prompt
    from .prompts.recording import PromptOptions, Recording, Source
    from .writing import SongRequest, WrittenSong, write_codes, write_songs

__all__ = [
    "FRAME_RATE",
    "OUTPUTS",
    "SAMPLE_RATE",
    "VARIANTS",
    "AudioError",
    "Cancelled",
    "CheckpointError",
    "LeLMConfig",
    "LyricsError",
    "OobleckConfig",
    "OutputType",
    "Progress",
    "Prompt",
    "PromptOptions",
    "Recording",
    "RenderOptions",
    "RendererConfig",
    "SamplingOptions",
    "SongCodec",
    "SongPipeline",
    "SongRequest",
    "SongResult",
    "Source",
    "UserError",
    "WrittenSong",
    "render_audio",
    "write_codes",
    "write_songs",
]
__version__ = "0.1.0"
# The light ones first.
_MODULES = (
    *("configs", "errors", "generation.sampling", "progress"),
    *("prompts.prompt", "prompts.recording", "codec", "writing", "pipeline"),
)


def __getattr__(name: str) -> object:
    """A public name at its first use (PEP 562)."""
    if name in __all__:
        for module in _MODULES:
            home = import_module(f".{module}", __name__)
            if hasattr(home, name):
                return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
