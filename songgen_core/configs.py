"""Sizes of the networks, and the table of published song models.

Every network takes one frozen config. Sizes of a loaded checkpoint are read from its own files
(`checkpoint/`); the table below serves presets, memory estimates and tests.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

FRAME_RATE = 25  # frames (one token of each stream, one latent vector) per second
SAMPLE_RATE = 48000

TextVersion = Literal["v1", "v2"]
OutputType = Literal["mixed", "vocal", "bgm", "separate"]


@dataclass(frozen=True)
class LeLMConfig:
    """The hierarchical language model: a main and a sub Llama-style transformer over delayed code streams.

    Names follow Hugging Face; `_sub` belongs to the second transformer, which writes the vocal and the
    accompaniment stream.
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    num_hidden_layers_sub: int
    rope_theta: float
    rope_theta_sub: float
    max_position_embeddings: int
    max_position_embeddings_sub: int
    lyrics_length: int  # positions of the lyric prefix, padding included
    description_length: int  # positions of the description prefix
    prompt_length: int  # positions of the prompt prefix: prompt_frames + 2
    prompt_frames: int  # prompt codes per stream
    max_duration: float  # seconds
    lyrics_vocab_size: int
    description_vocab_size: int
    text_version: TextVersion
    delays: tuple[int, ...] = (0, 250, 250)
    codebook_size: int = 16384
    num_codebooks: int = 3
    num_structures: int = 200  # rows of the structure table; only the first 14 are ever read
    rms_norm_eps: float = 1e-5
    cfg_scale: float = 1.5
    # How it is best drawn from; None: as its generation is (`writing.default_sampling`).
    temperature: float | None = None
    top_k: int | None = None
    repetition_window: int | None = None

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide by {self.num_attention_heads} heads"
            )
        if self.num_codebooks != 3 or len(self.delays) != self.num_codebooks:
            raise ValueError(f"LeLM has 3 streams; got {self.num_codebooks} with delays {self.delays}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def eos_id(self) -> int:
        """End-of-stream code: predicted, and an input."""
        return self.codebook_size

    @property
    def special_id(self) -> int:
        """'Nothing here': start column, delay, padding. An input only, never predicted."""
        return self.codebook_size + 1

    @property
    def prefix_length(self) -> int:
        return self.lyrics_length + self.prompt_length + self.description_length

    @property
    def max_frames(self) -> int:
        return int(self.max_duration * FRAME_RATE)

    def max_seq_len(self, num_frames: int) -> int:
        """Positions that a song of `num_frames` occupies in the KV cache of either transformer."""
        return self.prefix_length + num_frames + max(self.delays)


@dataclass(frozen=True)
class RendererConfig:
    """Codes to latents: two codebooks and a GPT-2 style flow-matching transformer."""

    latent_dim: int = 64
    cond_dim: int = 1024
    codebook_dim: int = 32
    codebook_size: int = 16384
    mask_dim: int = 24
    num_hidden_layers: int = 16
    num_attention_heads: int = 20
    intermediate_size: int = 4400
    window_frames: int = 1000  # also the number of learned positions
    time_embedding_dim: int = 512
    layer_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    sigma_min: float = 1e-4
    silent_vocal_code: int = 3142
    silent_bgm_code: int = 9670

    @property
    def hidden_size(self) -> int:
        """mask embedding | context latent | vocal condition | bgm condition | state."""
        return self.mask_dim + 2 * self.latent_dim + 2 * self.cond_dim

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class OobleckConfig:
    """The waveform VAE (the Oobleck autoencoder of stable-audio-tools)."""

    audio_channels: int = 2
    channels: int = 128
    c_mults: tuple[int, ...] = (1, 2, 4, 8, 16)
    strides: tuple[int, ...] = (2, 4, 4, 6, 10)
    latent_dim: int = 64
    sample_rate: int = SAMPLE_RATE

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return prod(self.strides)


@dataclass(frozen=True)
class CodecEncoderConfig:
    """Recordings to codes: a MusicFM conformer; the codes of each stream come from one of its hidden states.

    The mixed codec reads hidden state 6, the two-track codec 7 for the vocal and 3 for the accompaniment.
    """

    taps: tuple[int, ...] = (6,)
    hidden_size: int = 1024
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    conv_kernel_size: int = 31
    subsampling_channels: int = 512
    num_mel_bins: int = 128
    codebook_size: int = 16384
    codebook_dim: int = 32
    n_fft: int = 2048
    layer_norm_eps: float = 1e-5

    @property
    def num_hidden_layers(self) -> int:
        return max(self.taps)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class Variant:
    """A published song model: what a user wants to know before a download, and its exact sizes."""

    name: str
    languages: tuple[str, ...]
    lm: LeLMConfig
    model_bytes: int  # size of the published model.pt, approximate where unpublished


_BASE = LeLMConfig(
    hidden_size=1536,
    intermediate_size=8960,
    num_attention_heads=12,
    num_hidden_layers=28,
    num_hidden_layers_sub=12,
    rope_theta=100000.0,
    rope_theta_sub=500000.0,
    max_position_embeddings=8196,
    max_position_embeddings_sub=10000,
    lyrics_length=300,
    description_length=50,
    prompt_length=252,
    prompt_frames=250,
    max_duration=150,
    lyrics_vocab_size=151659,
    description_vocab_size=151646,
    text_version="v1",
)
_FULL = replace(
    _BASE,
    rope_theta=500000.0,
    max_position_embeddings=10000,
    lyrics_length=600,
    description_length=100,
    max_duration=270,
)
_LARGE = replace(
    _FULL, hidden_size=2048, intermediate_size=11008, num_attention_heads=16, num_hidden_layers=36
)


def _v2(config: LeLMConfig) -> LeLMConfig:
    """v2 changed the description vocabulary (musicality tags) and the text treatment, not the network."""
    return replace(config, text_version="v2", description_vocab_size=151652)


VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        Variant("base", ("zh",), _BASE, 11_300_000_000),
        Variant("base-new", ("zh", "en"), _BASE, 11_318_000_000),
        Variant("base-full", ("zh", "en"), _FULL, 11_300_000_000),
        Variant("large", ("zh", "en"), _LARGE, 20_500_000_000),
        Variant("v2-medium", ("zh", "en", "es", "ja"), _v2(_FULL), 7_343_951_582),
        Variant("v2-large", ("zh", "en", "es", "ja"), _v2(_LARGE), 12_899_965_446),
    )
}
