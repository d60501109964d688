"""The sizes of a song model: from the `config.yaml` beside it, or from the table of published variants.

The file is plain YAML but for two interpolations, which are read as the constants they stand for; nothing
from it is ever evaluated.
"""

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from ..configs import FRAME_RATE, VARIANTS, LeLMConfig, TextVersion
from ..errors import CheckpointError
from .files import Shapes, check_file
from .layout import published_variant

_PREFIX_ORDER = ["description", "prompt_audio", "type_info"]
_PROMPT_LENGTH = "${eval:${prompt_len}*${audio_tokenizer_frame_rate}+2}"
_QWEN_TOKENS, _MUSICALITY_TAGS = 3, 6  # <|endoftext|>, <|im_start|>, <|im_end|>; of v2 descriptions
_STRUCTURE_TAGS = 13
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
    prompt_frames = int(root.number("prompt_len") * FRAME_RATE)
    tables = _table_rows(shapes, path)
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
        text_version=text_version or detect_text_version(path, tables["description_vocab_size"], vocab_size),
        delays=_delays(root, lm),
        codebook_size=lm.whole("code_size", 1024),
        cfg_scale=root.section("classifier_free_guidance").number("inference_coef", 1.5),
        **tables,
    )
    _check_tables(config, vocab_size, path)
    return config


def published_lm_config(variant: str, shapes: Shapes, vocab_size: int, source: Path) -> LeLMConfig:
    """Config of a published variant whose config.yaml is not at hand; text tables sized from the file."""
    config = replace(VARIANTS[variant].lm, **_table_rows(shapes, source))
    _check_tables(config, vocab_size, source)
    return config


def detect_text_version(path: Path, description_rows: int, vocab_size: int) -> TextVersion:
    """v1 if the description table has no room for the words of v2 or the folder is a published v1 model's."""
    if description_rows < vocab_size + _QWEN_TOKENS + _MUSICALITY_TAGS:
        return "v1"
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
        raise lm.error("num_heads", f"is {heads}, which does not divide lm.dim {width} into heads of even width")
    return heads


def _prompt_length(conditioners: _Section, prompt_frames: int) -> int:
    """`max_len` of the prompt; the published files hold an expression that means prompt_frames + 2."""
    prompt = conditioners.section("prompt_audio").section("qt_embedding")
    is_expression = prompt.values.get("max_len", _PROMPT_LENGTH) == _PROMPT_LENGTH
    return prompt_frames + 2 if is_expression else prompt.whole("max_len")


def _delays(root: _Section, lm: _Section) -> tuple[int, ...]:
    pattern = root.section("codebooks_pattern")
    delay = pattern.section("delay")
    if pattern.required("modeling") != "delay":
        raise pattern.error("modeling", f"is {pattern.values['modeling']!r}; only 'delay' is supported")
    for key in ("flatten_first", "empty_initial"):
        if delay.values.get(key, 0) != 0:
            raise delay.error(key, f"is {delay.values[key]!r}; only 0 is supported")
    if lm.whole("code_depth") != 3:
        raise lm.error("code_depth", f"is {lm.values['code_depth']}; only 3 streams are supported")
    delays = delay.values.get("delays", [0, 1, 2])
    if not isinstance(delays, list) or len(delays) != 3 or not all(_is_delay(d) for d in delays):
        raise delay.error("delays", f"is {delays!r}, not three whole numbers of frames")
    return tuple(delays)


def _is_delay(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE


def _table_rows(shapes: Shapes, source: Path) -> dict[str, int]:
    """Rows of the three text tables, under their names in LeLMConfig."""
    names = {
        "lyrics_vocab_size": "description.output_proj.weight",
        "description_vocab_size": "type_info.output_proj.weight",
        "num_structures": "description.structure_emb.weight",
    }
    rows = {}
    for ours, theirs in names.items():
        name = f"condition_provider.conditioners.{theirs}"
        if not shapes.get(name):
            raise CheckpointError(f"the weights of {source} lack {name}; download the song model again")
        rows[ours] = shapes[name][0]
    return rows


def _check_tables(config: LeLMConfig, vocab_size: int, source: Path) -> None:
    """Every id that the tokenizer makes must have its row, and the structure tags must be the ones it knows."""
    own_tokens = vocab_size + _QWEN_TOKENS
    if config.lyrics_vocab_size != own_tokens + _STRUCTURE_TAGS:
        raise CheckpointError(
            f"the lyric table of {source} has {config.lyrics_vocab_size:,} rows, the tokenizer needs"
            f" {own_tokens + _STRUCTURE_TAGS:,}: the model was made with another (older) structure vocabulary or"
            " another tokenizer; use the published pair"
        )
    description_tokens = own_tokens + (_MUSICALITY_TAGS if config.text_version == "v2" else 0)
    if config.description_vocab_size < description_tokens:
        raise CheckpointError(
            f"the description table of {source} has {config.description_vocab_size:,} rows, {config.text_version}"
            f" texts need {description_tokens:,}; is this a model of the other generation (v1, v2)?"
        )
    if config.num_structures <= _STRUCTURE_TAGS:
        raise CheckpointError(
            f"the structure table of {source} has {config.num_structures} rows, the {_STRUCTURE_TAGS} tags need"
            " one more than that; use the published model"
        )
