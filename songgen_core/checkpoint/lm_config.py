"""The sizes of a song model: from the `config.yaml` beside it, or from the table of published variants.

The file is plain YAML but for two interpolations, which are read as the constants they stand for; nothing
from it is ever evaluated.
"""

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..configs import FRAME_RATE, VARIANTS, LeLMConfig, TextVersion
from ..errors import CheckpointError
from ..text.bpe import MUSICALITY_TAGS, QWEN_TOKENS
from ..text.lyrics import STRUCTURE_TAGS
from .files import Shapes, check_file
from .layout import published_variant

_PREFIX_ORDER = ["description", "prompt_audio", "type_info"]
_PROMPT_LENGTH = "${eval:${prompt_len}*${audio_tokenizer_frame_rate}+2}"
_MAX_LAYERS, _MAX_SIZE = 1000, 1_000_000


@dataclass(frozen=True)
class _Section:
    """A mapping in the file, and its dotted name, so that an error can name the field."""

    path: Path
    name: str
    values: dict[str, Any]

    def section(self, key: str) -> "_Section":
        values = self.required(key)
        if not isinstance(values, dict):
            raise self.error(key, f"is {values!r}, not a section")
        return _Section(self.path, f"{self.name}{key}.", values)

    def required(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(key, "is missing")
        return self.values[key]

    def number(self, key: str, default: float | None = None) -> float:
        """A positive finite number; without a default the field must be there."""
        value = self.required(key) if default is None else self.values.get(key, default)
        try:
            number = float("nan" if isinstance(value, bool) else value)  # YAML reads 5e5 as a text
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not (isfinite(number) and number > 0):
            raise self.error(key, f"is {value!r}, not a positive number")
        return number

    def whole(self, key: str, default: int | None = None, limit: int = _MAX_SIZE) -> int:
        number = self.number(key, default)
        if number != int(number) or number > limit:
            raise self.error(key, f"is {number:g}, not a whole number from 1 to {limit}")
        return int(number)

    def error(self, key: str, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: field '{self.name}{key}' {problem}; use the config.yaml published with the model"
        )


class _Rows(NamedTuple):
    """Rows of the text tables."""

    lyrics: int
    structure: int
    description: int

    @classmethod
    def of(cls, shapes: Shapes, source: Path) -> "_Rows":
        tables = "description.output_proj", "description.structure_emb", "type_info.output_proj"
        names = [f"condition_provider.conditioners.{table}.weight" for table in tables]
        for name in names:
            if not shapes.get(name):
                raise CheckpointError(f"{source}: the weights lack {name}; download the model again")
        return cls(*(shapes[name][0] for name in names))


def read_lm_config(
    path: Path,
    shapes: Shapes,
    vocab_size: int,
    text_version: TextVersion | None = None,
) -> LeLMConfig:
    """Config of the model whose tensors have `shapes` (published names without `audiolm.`).

    Sizes of the text tables come from the file; `vocab_size` is that of the tokenizer beside it, without
    added tokens. `text_version` overrides the detected one. Raises CheckpointError that names the field.
    """
    root = _Section(path, "", _read_yaml(path))
    lm, conditioners = root.section("lm"), root.section("conditioners")
    if lm.required("lm_type") != "Llama":
        raise lm.error("lm_type", f"is {lm.values['lm_type']!r}; only 'Llama' is supported")
    if root.section("fuser").required("prepend") != _PREFIX_ORDER:
        raise root.error("fuser.prepend", f"is not {_PREFIX_ORDER}")
    prompt_frames = root.whole("prompt_len") * FRAME_RATE
    rows = _Rows.of(shapes, path)
    config = LeLMConfig(
        hidden_size=lm.whole("dim"),
        intermediate_size=lm.whole("intermediate_size", 4096),
        num_attention_heads=_num_heads(lm),
        num_hidden_layers=lm.whole("num_layers", 16, _MAX_LAYERS),
        num_hidden_layers_sub=lm.whole("num_layers_sub", 12, _MAX_LAYERS),
        rope_theta=lm.number("rope_theta", 100000),
        rope_theta_sub=lm.number("rope_theta_sub", 500000),
        max_position_embeddings=lm.whole("max_position_embeddings", 8196),
        max_position_embeddings_sub=lm.whole("max_position_embeddings_sub", 10000),
        lyrics_length=conditioners.section("description").section("QwTokenizer").whole("max_len", 300),
        description_length=conditioners.section("type_info").section("QwTextTokenizer").whole("max_len", 300),
        prompt_length=_prompt_length(conditioners, prompt_frames),
        prompt_frames=prompt_frames,
        max_duration=root.number("max_dur"),
        text_version=text_version or detect_text_version(path, rows.description, vocab_size),
        delays=_delays(root, lm),
        lyrics_vocab_size=rows.lyrics,
        description_vocab_size=rows.description,
        num_structures=rows.structure,
        codebook_size=lm.whole("code_size", 1024),
        cfg_scale=root.section("classifier_free_guidance").number("inference_coef", 1.5),
        **_sampling(root),
    )
    _check_tables(config, vocab_size, path)
    return config


def published_lm_config(variant: str, shapes: Shapes, vocab_size: int, source: Path) -> LeLMConfig:
    """Config of a published variant whose config.yaml is not at hand; text tables sized from the file."""
    rows = _Rows.of(shapes, source)
    config = replace(
        VARIANTS[variant].lm,
        lyrics_vocab_size=rows.lyrics,
        description_vocab_size=rows.description,
        num_structures=rows.structure,
    )
    _check_tables(config, vocab_size, source)
    return config


def detect_text_version(path: Path, description_rows: int, vocab_size: int) -> TextVersion:
    """By the rows of the description table; where they tell nothing, by a published folder name, else v2."""
    rows_v2 = vocab_size + len(QWEN_TOKENS) + len(MUSICALITY_TAGS)
    if description_rows <= rows_v2:
        return "v2" if description_rows == rows_v2 else "v1"
    variant = published_variant(path.absolute().parent.name)
    return VARIANTS[variant].lm.text_version if variant else "v2"


def _read_yaml(path: Path) -> dict[str, Any]:
    check_file(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} cannot be read as YAML ({reason}); download it again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is no table of settings; download it again")
    return raw


def _num_heads(lm: _Section) -> int:
    width, heads = lm.whole("dim"), lm.whole("num_heads", 8)
    if width % (2 * heads):
        raise lm.error(
            "num_heads", f"is {heads}, which does not divide lm.dim {width} into heads of even width"
        )
    return heads


def _prompt_length(conditioners: _Section, prompt_frames: int) -> int:
    """`max_len` of the prompt; the published files hold an expression that means prompt_frames + 2."""
    prompt = conditioners.section("prompt_audio").section("qt_embedding")
    is_expression = prompt.values.get("max_len", _PROMPT_LENGTH) == _PROMPT_LENGTH
    return prompt_frames + 2 if is_expression else prompt.whole("max_len")


def _delays(root: _Section, lm: _Section) -> tuple[int, ...]:
    pattern = root.section("codebooks_pattern")
    if pattern.required("modeling") != "delay":
        raise pattern.error("modeling", f"is {pattern.values['modeling']!r}; only 'delay' is supported")
    delay = pattern.section("delay")
    for key in ("flatten_first", "empty_initial"):
        if delay.values.get(key, 0) != 0:
            raise delay.error(key, f"is {delay.values[key]!r}; only 0 is supported")
    if lm.whole("code_depth") != 3:
        raise lm.error("code_depth", f"is {lm.values['code_depth']}; only 3 streams are supported")
    delays = delay.values.get("delays", [0, 1, 2])
    if not isinstance(delays, list) or len(delays) != 3 or not all(_is_delay(d) for d in delays):
        raise delay.error("delays", f"is {delays!r}, not three whole numbers of frames")
    return tuple(delays)


def _sampling(root: _Section) -> dict[str, Any]:
    """A section of our own, which published files lack: how the model is best drawn from."""
    if "sampling" not in root.values:
        return {}
    section = root.section("sampling")
    limits = {"temperature": 10.0, "top_k": _MAX_SIZE, "repetition_window": 10_000}
    for key, value in section.values.items():
        if key not in limits:
            raise section.error(key, f"is unknown; known are {', '.join(limits)}")
        kinds = (int, float) if key == "temperature" else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value <= limits[key]:
            raise section.error(key, f"is {value!r}, not a number from 0 to {limits[key]:g}")
    return dict(section.values)


def _is_delay(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE


def _check_tables(config: LeLMConfig, vocab_size: int, source: Path) -> None:
    """Every id that the tokenizer makes needs its row, and the structure tags must be those it knows."""
    own_tokens = vocab_size + len(QWEN_TOKENS)
    lyrics_tokens = own_tokens + len(STRUCTURE_TAGS)
    description_tokens = own_tokens + (len(MUSICALITY_TAGS) if config.text_version == "v2" else 0)
    if config.lyrics_vocab_size != lyrics_tokens:
        raise CheckpointError(
            f"{source}: the lyric table has {config.lyrics_vocab_size:,} rows, the tokenizer needs"
            f" {lyrics_tokens:,}: the model was made with another (older) structure vocabulary or another"
            " tokenizer; use the published pair"
        )
    if config.description_vocab_size < description_tokens:
        raise CheckpointError(
            f"{source}: the description table has {config.description_vocab_size:,} rows, texts of"
            f" {config.text_version} need {description_tokens:,}; choose the variant that the weights are of"
        )
    if config.num_structures <= len(STRUCTURE_TAGS):
        raise CheckpointError(
            f"{source}: the structure table has {config.num_structures} rows, the tags need"
            f" {len(STRUCTURE_TAGS) + 1}; use the published model"
        )
