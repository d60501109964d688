"""The `config.yaml` beside a song model -> LeLMConfig.

Plain YAML but for two interpolations, which are read as the constants they stand for; nothing from the
file is ever evaluated.
"""

from pathlib import Path
from typing import Any

import yaml

from ..configs import FRAME_RATE, LeLMConfig, TextVersion
from ..errors import CheckpointError

_PREFIX_ORDER = ["description", "prompt_audio", "type_info"]
_QWEN_TOKENS = 3  # <|endoftext|>, <|im_start|>, <|im_end|>
_STRUCTURE_TAGS = 13


def read_lm_config(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    vocab_size: int,
    text_version: TextVersion | None = None,
) -> LeLMConfig:
    """Config of the model whose tensors have `shapes` (published names without `audiolm.`).

    Sizes of the text tables come from the file; `vocab_size` is that of the tokenizer beside it, without
    added tokens. `text_version` overrides the detected one. Raises CheckpointError that names the field.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read as YAML ({error}); download it again") from error
    lm = _need(path, raw, "lm")
    if lm.get("lm_type") != "Llama":
        raise CheckpointError(f"{path}: lm.lm_type is {lm.get('lm_type')!r}; only 'Llama' models are supported")
    if _need(path, raw, "fuser", "prepend") != _PREFIX_ORDER:
        raise CheckpointError(f"{path}: fuser.prepend must be {_PREFIX_ORDER}")
    description_rows = _rows(path, shapes, "type_info.output_proj.weight")
    lyrics_rows = _rows(path, shapes, "description.output_proj.weight")
    _check_vocabulary(path, lyrics_rows, vocab_size + _QWEN_TOKENS + _STRUCTURE_TAGS)
    prompt_frames = int(_need(path, raw, "prompt_len") * FRAME_RATE)
    return LeLMConfig(
        hidden_size=_need(path, lm, "dim"),
        intermediate_size=lm.get("intermediate_size", 4096),
        num_attention_heads=lm.get("num_heads", 8),
        num_hidden_layers=lm.get("num_layers", 16),
        num_hidden_layers_sub=lm.get("num_layers_sub", 12),
        rope_theta=lm.get("rope_theta", 100000),
        rope_theta_sub=lm.get("rope_theta_sub", 500000),
        max_position_embeddings=lm.get("max_position_embeddings", 8196),
        max_position_embeddings_sub=lm.get("max_position_embeddings_sub", 10000),
        lyrics_length=_conditioner(raw, "description", "QwTokenizer").get("max_len", 300),
        description_length=_conditioner(raw, "type_info", "QwTextTokenizer").get("max_len", 300),
        prompt_length=_prompt_length(raw, prompt_frames),
        prompt_frames=prompt_frames,
        max_duration=_need(path, raw, "max_dur"),
        lyrics_vocab_size=lyrics_rows,
        description_vocab_size=description_rows,
        text_version=text_version or detect_text_version(path, description_rows, vocab_size),
        delays=_delays(path, raw),
        codebook_size=lm.get("code_size", 1024),
        num_codebooks=_need(path, lm, "code_depth"),
        num_structures=_rows(path, shapes, "description.structure_emb.weight"),
        cfg_scale=_need(path, raw, "classifier_free_guidance").get("inference_coef", 1.5),
    )


def detect_text_version(path: Path, description_rows: int, vocab_size: int) -> TextVersion:
    """v2 if the folder says so, v1 if the description table has room for Qwen's own tokens only, else v2."""
    if "v2" in path.parent.name.lower():
        return "v2"
    return "v1" if description_rows == vocab_size + _QWEN_TOKENS else "v2"


def _check_vocabulary(path: Path, rows: int, expected: int) -> None:
    if rows != expected:
        raise CheckpointError(
            f"the lyric table of the model beside {path} has {rows:,} rows, the tokenizer needs {expected:,}: the model "
            "was made with another (older) structure vocabulary or another tokenizer; use the published pair"
        )


def _need(path: Path, table: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            raise CheckpointError(f"{path}: field '{'.'.join(keys)}' is missing; use the config.yaml published with the model")
        table = table[key]
    return table


def _rows(path: Path, shapes: dict[str, tuple[int, ...]], name: str) -> int:
    full = f"condition_provider.conditioners.{name}"
    if full not in shapes:
        raise CheckpointError(f"the weights beside {path} lack {full}; this is not a LeVo song model")
    return shapes[full][0]


def _conditioner(raw: dict, name: str, model: str) -> dict:
    table = (raw.get("conditioners") or {}).get(name) or {}
    return table.get(model) or {}


def _prompt_length(raw: dict, prompt_frames: int) -> int:
    """`max_len` of the prompt; the published files hold an expression that means prompt_frames + 2."""
    value = _conditioner(raw, "prompt_audio", "qt_embedding").get("max_len")
    return value if isinstance(value, int) else prompt_frames + 2


def _delays(path: Path, raw: dict) -> tuple[int, ...]:
    pattern = _need(path, raw, "codebooks_pattern")
    delay = pattern.get("delay") or {}
    if pattern.get("modeling") != "delay" or delay.get("flatten_first", 0) or delay.get("empty_initial", 0):
        raise CheckpointError(f"{path}: only a plain delay pattern is supported, not {pattern}")
    return tuple(delay.get("delays", (0, 1, 2)))
