"""What a run of the training trains, and how long: read from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from songgen_core.checkpoint.load_encoder import DUAL_TAPS, MIXED_TAPS
from songgen_core.configs import CodecEncoderConfig, LeLMConfig, OobleckConfig, RendererConfig
from songgen_core.text.bpe import TextTokenizers

from .codes import CODEBOOK_SIZE
from .dpo import PreferenceOptions
from .loop import Schedule
from .preferences import PairOptions

STAGES = ("vae", "mixed_encoder", "dual_encoder", "renderer", "pretrain", "extend", "dpo")
Config = TypeVar("Config")


@dataclass(frozen=True)
class Stage:
    """size: songs (as many of the shortest) or pieces in a step. seconds: shortest and longest."""

    schedule: Schedule
    size: int
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """Sizes by network as their configs name them, and the stages by name.

    corpus_minutes of songs of take_seconds with sound for the codec; held_out songs for measuring, of
    measured_seconds where the language model writes them.
    """

    sizes: Mapping[str, Mapping[str, Any]]
    stages: Mapping[str, Stage]
    corpus_minutes: float = 30
    take_seconds: float = 20.0
    held_out: int = 16
    measured_seconds: float = 12.0
    seed: int = 0
    name: str = "mini"  # of the checkpoint's folder
    pairs: PairOptions = field(default_factory=PairOptions)
    preference: PreferenceOptions = field(default_factory=PreferenceOptions)
    file: str = ""  # that all this was read from

    def vae(self) -> OobleckConfig:
        return _config(OobleckConfig, self.sizes["vae"])

    def encoder(self, dual: bool) -> CodecEncoderConfig:
        taps = DUAL_TAPS if dual else MIXED_TAPS
        return _config(
            CodecEncoderConfig, {**self.sizes["encoder"], "taps": taps, "codebook_size": CODEBOOK_SIZE}
        )

    def renderer(self) -> RendererConfig:
        return _config(
            RendererConfig,
            {
                **self.sizes["renderer"],
                "latent_dim": self.vae().latent_dim,
                "codebook_size": CODEBOOK_SIZE,
                "silent_vocal_code": 0,
                "silent_bgm_code": 0,
            },
        )

    def lm(self, tokenizers: TextTokenizers) -> LeLMConfig:
        return _config(
            LeLMConfig,
            {
                **self.sizes["lm"],
                "codebook_size": CODEBOOK_SIZE,
                "lyrics_vocab_size": tokenizers.lyrics.size,
                "description_vocab_size": tokenizers.description.size,
                "text_version": "v2",
            },
        )


def read_settings(path: Path) -> Settings:
    """Raises ValueError that names a stage which is missing or unknown."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    stages = raw.pop("stages")
    if set(stages) != set(STAGES):
        raise ValueError(f"{path}: the stages are {', '.join(stages)}; needed are {', '.join(STAGES)}")
    seed = raw.get("seed", 0)
    made = {}
    for name, values in stages.items():
        values = dict(values)
        size, seconds = values.pop("size"), values.pop("seconds")
        made[name] = Stage(Schedule(seed=seed, **values), size, (float(seconds[0]), float(seconds[1])))
    options = {"pairs": PairOptions, "preference": PreferenceOptions}
    raw |= {name: _config(make, raw[name]) for name, make in options.items() if name in raw}
    return _config(Settings, {**raw, "stages": made, "file": path.name})


def _config(make: type[Config], values: Mapping[str, Any]) -> Config:
    known = {f.name for f in fields(make)}  # type: ignore[arg-type]
    if unknown := values.keys() - known:
        raise ValueError(f"{make.__name__} has no {', '.join(sorted(unknown))}")
    return make(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
