"""The config.yaml beside a song model: read field by field, never evaluated."""

from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_cases import (
    GOLDENS,
    TINY_VOCAB,
    lm_settings,
    lm_state,
    needs_goldens,
    one_line,
    save_settings,
    shapes_of,
)

from songgen_core.checkpoint.lm_config import detect_text_version, published_lm_config, read_lm_config
from songgen_core.configs import VARIANTS
from songgen_core.errors import CheckpointError
from songgen_core.generation.sampling import SamplingOptions
from songgen_core.writing import default_sampling

pytestmark = needs_goldens
QWEN_VOCAB = 151643


def read_settings(tmp_path: Path, settings: dict, version: str = "v2", **sizes: int):
    shapes = shapes_of(lm_state(version))
    for table, rows in sizes.items():
        shapes[f"condition_provider.conditioners.{table}.weight"] = (rows, 48)
    path = save_settings(tmp_path / "config.yaml", settings)
    return read_lm_config(path, shapes, TINY_VOCAB)


def test_the_published_interpolations_are_constants(tmp_path: Path) -> None:
    config = read_settings(tmp_path, lm_settings())
    assert (config.prompt_frames, config.prompt_length) == (25, 27)
    settings = lm_settings()
    settings["prompt_len"] = 10
    assert read_settings(tmp_path, settings).prompt_length == 252
    settings["conditioners"]["prompt_audio"]["qt_embedding"]["max_len"] = 77
    assert read_settings(tmp_path, settings).prompt_length == 77


@pytest.mark.parametrize("where", ["prompt_audio.qt_embedding", "description.QwTokenizer"])
def test_expressions_are_never_evaluated(where: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    settings = lm_settings()
    name, model = where.split(".")
    attack = f"${{eval:__import__('os').system('touch {marker}')}}"
    settings["conditioners"][name][model]["max_len"] = attack
    with pytest.raises(CheckpointError, match=f"conditioners.{where}.max_len"):
        read_settings(tmp_path, settings)
    (tmp_path / "config.yaml").write_text(f"!!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(CheckpointError, match="cannot be read as YAML") as caught:
        read_lm_config(tmp_path / "config.yaml", shapes_of(lm_state()), TINY_VOCAB)
    assert one_line(caught.value)
    assert not marker.exists()


BROKEN_FIELDS = [
    ("lm.dim", "abc"),
    ("lm.dim", -48),
    ("lm.dim", 0),
    ("lm.dim", None),
    ("lm.dim", True),
    ("lm.dim", 48.5),
    ("lm.dim", [48]),
    ("lm.dim", float("nan")),
    ("lm.dim", float("inf")),
    ("lm.dim", 10**30),
    ("lm.dim", "${eval:48}"),
    ("lm.intermediate_size", {}),
    ("lm.num_heads", 5),
    ("lm.num_heads", 48),
    ("lm.num_heads", "three"),
    ("lm.num_layers", 10**9),
    ("lm.num_layers_sub", "x"),
    ("lm.rope_theta", "fast"),
    ("lm.rope_theta_sub", -1),
    ("lm.max_position_embeddings", "all"),
    ("lm.code_size", []),
    ("lm.code_depth", 4),
    ("lm.code_depth", "3 streams"),
    ("lm.lm_type", "GPT"),
    ("lm", "Llama"),
    ("lm", None),
    ("max_dur", "long"),
    ("max_dur", -1),
    ("prompt_len", 0),
    ("prompt_len", {}),
    ("codebooks_pattern", 3),
    ("codebooks_pattern.modeling", "parallel"),
    ("codebooks_pattern.delay", [0, 5, 5]),
    ("codebooks_pattern.delay.delays", [0, 5]),
    ("codebooks_pattern.delay.delays", [0, -5, 5]),
    ("codebooks_pattern.delay.delays", [0, "5", 5]),
    ("codebooks_pattern.delay.delays", 5),
    ("codebooks_pattern.delay.flatten_first", 1),
    ("codebooks_pattern.delay.empty_initial", "no"),
    ("classifier_free_guidance", 1.5),
    ("classifier_free_guidance.inference_coef", "strong"),
    ("fuser", None),
    ("fuser.prepend", ["type_info", "description", "prompt_audio"]),
    ("fuser.prepend", "description"),
    ("conditioners", []),
    ("conditioners.description", None),
    ("conditioners.description.QwTokenizer", 3),
    ("conditioners.description.QwTokenizer.max_len", "long"),
    ("conditioners.type_info.QwTextTokenizer.max_len", 0),
    ("conditioners.prompt_audio.qt_embedding.max_len", {}),
]


def set_field(settings: dict, field: str, *value: object) -> dict:
    *sections, last = field.split(".")
    table = settings
    for section in sections:
        table = table[section]
    table.pop(last, None)
    if value:
        (table[last],) = value
    return settings


@pytest.mark.parametrize(("field", "value"), BROKEN_FIELDS, ids=str)
def test_a_wrong_field_is_named(field: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_settings(tmp_path, set_field(lm_settings(), field, value))
    assert f"'{field}'" in one_line(caught.value)
    assert str(tmp_path / "config.yaml") in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [
        "max_dur",
        "prompt_len",
        "lm",
        "lm.lm_type",
        "lm.dim",
        "lm.code_depth",
        "codebooks_pattern",
        "codebooks_pattern.modeling",
        "classifier_free_guidance",
        "fuser",
        "fuser.prepend",
        "conditioners",
        "conditioners.type_info",
    ],
)
def test_a_missing_field_is_named(field: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_settings(tmp_path, set_field(lm_settings(), field))
    assert f"'{field}' is missing" in one_line(caught.value)


def test_optional_fields_have_the_defaults_of_the_reference(tmp_path: Path) -> None:
    settings = lm_settings()
    for key in lm_settings()["lm"].keys() - {"lm_type", "dim", "code_depth"}:
        del settings["lm"][key]
    settings["codebooks_pattern"]["delay"] = {}
    settings["conditioners"]["description"]["QwTokenizer"] = {}
    settings["conditioners"]["type_info"]["QwTextTokenizer"] = {}
    config = read_settings(tmp_path, settings)
    assert (config.num_attention_heads, config.num_hidden_layers) == (8, 16)
    assert (config.num_hidden_layers_sub, config.intermediate_size) == (12, 4096)
    assert (config.rope_theta, config.rope_theta_sub) == (100000, 500000)
    assert (config.max_position_embeddings, config.max_position_embeddings_sub) == (8196, 10000)
    assert (config.lyrics_length, config.description_length) == (300, 300)
    assert (config.delays, config.codebook_size, config.cfg_scale) == ((0, 1, 2), 1024, 1.5)


def test_a_model_may_say_how_it_is_drawn_from(tmp_path: Path) -> None:
    own = {"temperature": 0.5, "top_k": 40, "repetition_window": 0}
    config = read_settings(tmp_path, {**lm_settings(), "sampling": own})
    cfg_scale = lm_settings()["classifier_free_guidance"]["inference_coef"]
    assert default_sampling(config) == SamplingOptions(cfg_scale=cfg_scale, **own)
    config = read_settings(tmp_path, {**lm_settings(), "sampling": {"temperature": 0}})
    assert default_sampling(config) == SamplingOptions(temperature=0, top_k=5000, cfg_scale=cfg_scale)


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", -1), ("temperature", "hot"), ("top_k", 2.5), ("repetition_window", True), ("top_q", 1)],
)
def test_sampling_that_is_none(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"'sampling\.{key}' is ") as caught:
        read_settings(tmp_path, {**lm_settings(), "sampling": {key: value}})
    one_line(caught.value)


def test_numbers_that_yaml_takes_for_texts(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = (GOLDENS / "lelm" / "model_tiny_v2" / "config.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("rope_theta: 500000.0", "rope_theta: 5e5"), encoding="utf-8")
    assert read_lm_config(path, shapes_of(lm_state()), TINY_VOCAB).rope_theta == 500000.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"just a text", "no table of settings"),
        (b"- a\n- b\n", "no table of settings"),
        (b"a: [1, 2\nb: }", "YAML"),
        (b"\xff\xfe\x00junk", "YAML"),
        (b"day: 2001-99-99\n", "YAML"),
        (b"[" * 5000, "YAML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS pointer"),
    ],
)
def test_settings_that_are_none(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_lm_config(path, {}, TINY_VOCAB)
    assert str(path) in one_line(caught.value)


# --- text version and vocabulary ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "rows", "vocab_size", "version"),
    [
        ("songgeneration_base", 151646, QWEN_VOCAB, "v1"),
        ("songgeneration_v2_large", 151652, QWEN_VOCAB, "v2"),
        ("mine", 151646, QWEN_VOCAB, "v1"),
        ("mine", 151652, QWEN_VOCAB, "v2"),
        ("my-v2", 151652, QWEN_VOCAB, "v2"),
        ("my-v2", 151646, QWEN_VOCAB, "v1"),  # the words of v2 would have no rows
        ("mine", 523, TINY_VOCAB, "v1"),
        ("mine", 529, TINY_VOCAB, "v2"),
        ("mine", 152064, QWEN_VOCAB, "v2"),  # rows that tell nothing
        ("songgeneration_base_new", 152064, QWEN_VOCAB, "v1"),
        ("SongGeneration-v2-large", 152064, QWEN_VOCAB, "v2"),
    ],
)
def test_text_version(folder: str, rows: int, vocab_size: int, version: str, tmp_path: Path) -> None:
    assert detect_text_version(tmp_path / folder / "config.yaml", rows, vocab_size) == version


def test_text_version_of_the_recorded_models(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        settings = lm_settings(version)
        assert read_settings(tmp_path, settings, version).text_version == version


def test_an_older_structure_vocabulary_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"2,536 rows, .* 536: .*older\) structure vocabulary"
    ) as caught:
        read_settings(tmp_path, lm_settings(), **{"description.output_proj": 2536})
    assert one_line(caught.value)
    shapes = {
        f"condition_provider.conditioners.{n}.weight": (rows, 1536)
        for n, rows in {
            "description.output_proj": 153659,
            "description.structure_emb": 200,
            "type_info.output_proj": 151646,
        }.items()
    }
    with pytest.raises(CheckpointError, match=r"153,659 rows"):
        published_lm_config("base", shapes, QWEN_VOCAB, tmp_path / "model.pt")


def test_tables_that_are_too_small_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"description table .* 100 rows"):
        read_settings(tmp_path, lm_settings(), **{"type_info.output_proj": 100})
    with pytest.raises(CheckpointError, match=r"structure table .* 13 rows"):
        read_settings(tmp_path, lm_settings(), **{"description.structure_emb": 13})
    with pytest.raises(CheckpointError, match=r"lack condition_provider.*description.output_proj.weight"):
        read_lm_config(save_settings(tmp_path / "config.yaml", lm_settings()), {}, TINY_VOCAB)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_settings_the_named_variant_counts(variant: str, tmp_path: Path) -> None:
    published = VARIANTS[variant].lm
    shapes = {
        "condition_provider.conditioners.description.output_proj.weight": (151659, 1),
        "condition_provider.conditioners.description.structure_emb.weight": (200, 1),
        "condition_provider.conditioners.type_info.output_proj.weight": (151700, 1),  # sized from the file
    }
    config = published_lm_config(variant, shapes, QWEN_VOCAB, tmp_path / "model.pt")
    assert config == replace(published, description_vocab_size=151700)
    shapes["condition_provider.conditioners.type_info.output_proj.weight"] = (151646, 1)
    if published.text_version == "v2":
        with pytest.raises(CheckpointError, match=r"v2 need 151,652"):
            published_lm_config(variant, shapes, QWEN_VOCAB, tmp_path / "model.pt")
