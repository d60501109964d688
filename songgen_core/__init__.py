"""Whole songs from lyrics: the library behind the ComfyUI nodes and the `songgen` command.

Works without ComfyUI. Importing it does nothing but define names.
"""

from .configs import FRAME_RATE, SAMPLE_RATE, VARIANTS, LeLMConfig, OobleckConfig, OutputType, RendererConfig
from .errors import AudioError, Cancelled, CheckpointError, LyricsError, UserError
from .generation.sampling import SamplingOptions
from .pipeline import OUTPUTS, RenderOptions, SongPipeline, SongResult, render_audio, write_codes
from .progress import Progress

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
    "RenderOptions",
    "RendererConfig",
    "SamplingOptions",
    "SongPipeline",
    "SongResult",
    "UserError",
    "render_audio",
    "write_codes",
]
__version__ = "0.1.0"
