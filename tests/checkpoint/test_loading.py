"""Files of every published form give the same networks, and only what is used of them is read."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from checkpoint_cases import (
    GOLDENS,
    RENDERER_HEADS,
    TINY_VOCAB,
    assert_same_network,
    codec_state,
    lm_state,
    mixed_codec_state,
    needs_goldens,
    one_line,
    save,
    save_codec,
    save_song_model,
    save_vae,
    shapes_of,
    vae_weights,
    without_prefix,
)

from songgen_core.checkpoint.files import read_metadata, read_state_dict, tensor_shapes
from songgen_core.checkpoint.layout import find_model
from songgen_core.checkpoint.lm_config import read_lm_config
from songgen_core.checkpoint.load_model import load_language_model, load_networks
from songgen_core.checkpoint.loader import load_lelm, load_renderer, load_vae
from songgen_core.errors import Cancelled, CheckpointError

pytestmark = needs_goldens
QWEN_VOCAB = 151643


@pytest.fixture(scope="module")
def lm_config():
    folder = GOLDENS / "lelm" / "model_tiny_v2"
    return read_lm_config(folder / "config.yaml", shapes_of(lm_state()), TINY_VOCAB)


@pytest.fixture(scope="module")
def lm(lm_config):
    return load_lelm(GOLDENS / "lelm" / "model_tiny_v2" / "weights.safetensors", lm_config)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    return load_renderer(save_codec(tmp_path_factory.mktemp("codec") / "model_2.safetensors"))


# --- song model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.pth", "model.ckpt", "model.bin"])
@pytest.mark.parametrize("prefix", [True, False])
def test_song_model_of_every_form(name: str, prefix: bool, tmp_path: Path, lm, lm_config) -> None:
    state = lm_state() if prefix else without_prefix(lm_state())
    assert_same_network(load_lelm(save(tmp_path / name, state), lm_config), lm)


def test_state_dict_wrapper_and_old_torch_format(tmp_path: Path, lm, lm_config) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": lm_state(), "epoch": 3}, path)
    assert_same_network(load_lelm(path, lm_config), lm)
    torch.save(lm_state(), path, _use_new_zipfile_serialization=False)
    assert_same_network(load_lelm(path, lm_config), lm)
    assert tensor_shapes(path) == {n: tuple(t.shape) for n, t in lm_state().items()}


def test_parameters_and_gradients_do_not_matter(tmp_path: Path, lm, lm_config) -> None:
    state = {n: torch.nn.Parameter(t) for n, t in lm_state().items()}
    loaded = load_lelm(save(tmp_path / "model.pt", state), lm_config)
    assert_same_network(loaded, lm)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_mixed_precision_file_loads_in_the_wanted_type(tmp_path: Path, lm, lm_config) -> None:
    """v2 files mix bfloat16 and float32."""
    state = {n: t.bfloat16() if "layers" in n else t for n, t in lm_state().items()}
    path = save(tmp_path / "model.pt", state)
    assert_same_network(load_lelm(path, lm_config), lm, atol=1e-2)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert {p.dtype for p in load_lelm(path, lm_config, dtype).parameters()} == {dtype}


def test_names_that_are_not_the_song_models_are_left_alone(tmp_path: Path, lm, lm_config) -> None:
    state = lm_state()
    rotary = {
        f"audiolm.transformer.model.layers.0.self_attn.rotary_emb.{n}": torch.ones(8)
        for n in ("inv_freq", "cos_cached", "sin_cached")
    }
    path = save(tmp_path / "model.pt", {**state, **rotary, "audio_tokenizer.decoder.weight": torch.ones(2)})
    assert_same_network(load_lelm(path, lm_config), lm)


def test_all_troubles_of_a_file_come_in_one_message(tmp_path: Path, lm_config) -> None:
    state = lm_state()
    del state["audiolm.linears.1.weight"]
    state["audiolm.linears.2.weight"] = torch.ones(51, 48)
    state["audiolm.mlp.0.bias"] = torch.ones(5)
    state["audiolm.mlp.2.bias"] = torch.ones(48, dtype=torch.int64)
    path = save(tmp_path / "model.safetensors", state)
    with pytest.raises(CheckpointError) as caught:
        load_lelm(path, lm_config)
    message = one_line(caught.value)
    assert message.startswith(str(path))
    for part in (
        "1 missing (linears.1.weight)",
        "1 unexpected (linears.2.weight)",
        "1 of another shape (mlp.0.bias [5] instead of [48])",
        "1 not of a floating-point kind (mlp.2.bias torch.int64)",
    ):
        assert part in message


# --- codec and VAE ------------------------------------------------------------------------------------


def slim(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: t.half() if n.startswith("rvq_") else t for n, t in state.items()}


def padded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With parts of the full file that rendering must not look at."""
    return {
        **state,
        "hubert.encoder.weight": torch.full((3,), torch.nan),
        "bestrq.model.rvq.layers.0.weight": torch.ones(3),
        "bestrq.model.conformer.layers.0.bn.num_batches_tracked": torch.tensor(7),
        "rsq48tobestrq.kernel": torch.ones(1, 1, 4),
    }


def test_full_and_slim_codec_files_give_the_same_renderer(tmp_path: Path, renderer) -> None:
    full = save(tmp_path / "full.safetensors", padded(codec_state()))
    assert_same_network(load_renderer(full, num_attention_heads=2), renderer)
    small = load_renderer(save(tmp_path / "slim.safetensors", slim(codec_state())), num_attention_heads=2)
    assert {t.dtype for t in small.state_dict().values()} == {torch.float32}
    assert_same_network(small, renderer, atol=1e-3)


def test_renderer_in_half_precision_keeps_its_float32_islands(tmp_path: Path) -> None:
    path = save_codec(tmp_path / "codec.safetensors")
    half = load_renderer(path, torch.float16)
    assert half.compute_dtype == torch.float16
    dtypes = {n: t.dtype for n, t in half.state_dict().items()}
    assert dtypes["latent_norm.counts"] == dtypes["estimator.h.0.ln_1.weight"] == torch.float32
    assert dtypes["estimator.h.0.attn.c_attn.weight"] == torch.float16
    assert all(t.is_contiguous() for t in half.state_dict().values())


def test_codes_of_silence_are_noted_in_the_file(tmp_path: Path) -> None:
    path = save(
        tmp_path / "codec.safetensors",
        codec_state(),
        num_attention_heads=str(RENDERER_HEADS),
        silent_vocal_code="5",
        silent_bgm_code="0",
    )
    config = load_renderer(path).config
    assert (config.silent_vocal_code, config.silent_bgm_code) == (5, 0)
    published = load_renderer(save_codec(tmp_path / "published.safetensors")).config
    assert (published.silent_vocal_code, published.silent_bgm_code) == (3142, 9670)
    wrong = save(
        tmp_path / "wrong.safetensors", codec_state(), num_attention_heads="2", silent_bgm_code="none"
    )
    with pytest.raises(CheckpointError, match="silent_bgm_code"):
        load_renderer(wrong)
    beyond = save(
        tmp_path / "beyond.safetensors", codec_state(), num_attention_heads="2", silent_vocal_code="99999"
    )
    with pytest.raises(CheckpointError, match="codes end at"):
        load_renderer(beyond)


def test_number_of_heads_is_noted_in_the_file(tmp_path: Path, renderer) -> None:
    path = save_codec(tmp_path / "codec.safetensors")
    assert read_metadata(path) == {"num_attention_heads": "2"}
    loaded = load_renderer(path)
    assert loaded.config.num_attention_heads == RENDERER_HEADS
    assert_same_network(loaded, renderer)


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ({}, "20 heads"),
        ({"num_attention_heads": "3"}, "3 heads"),
        ({"num_attention_heads": "44"}, "44 heads"),
    ],
)
def test_heads_that_do_not_divide_the_width_are_named(notes: dict, said: str, tmp_path: Path) -> None:
    path = save(tmp_path / "codec.safetensors", codec_state(), **notes)
    with pytest.raises(CheckpointError, match=f"width 44 does not divide into {said}.*num_attention_heads"):
        load_renderer(path)
    save(tmp_path / "codec.pt", codec_state())
    with pytest.raises(CheckpointError, match="20 heads"):
        load_renderer(tmp_path / "codec.pt")


@pytest.mark.parametrize("note", ["two", "", "0", "-2", "2.0", "9" * 30])
def test_a_note_of_heads_that_is_no_number_is_named(note: str, tmp_path: Path) -> None:
    path = save(tmp_path / "codec.safetensors", codec_state(), num_attention_heads=note)
    with pytest.raises(CheckpointError, match="num_attention_heads") as caught:
        load_renderer(path)
    assert str(path) in one_line(caught.value)


@pytest.mark.parametrize("with_encoder", [True, False])
def test_both_namings_of_weight_norm_give_the_same_vae(with_encoder: bool, tmp_path: Path) -> None:
    new = {
        n.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): t
        for n, t in vae_weights().items()
    }
    assert any("original1" in n for n in new)
    first = load_vae(save_vae(tmp_path / "vae.ckpt"), with_encoder=with_encoder)
    second = load_vae(save(tmp_path / "vae.safetensors", new), with_encoder=with_encoder)
    assert_same_network(first, second)
    assert (first.encoder is not None) == with_encoder
    folded = {n: t for n, t in first.state_dict().items() if n.startswith("decoder.")}
    assert_same_network(
        load_vae(save(tmp_path / "folded.safetensors", folded)), load_vae(tmp_path / "vae.ckpt")
    )


def test_half_of_a_weight_norm_pair_is_named(tmp_path: Path) -> None:
    state = vae_weights()
    del state["decoder.layers.1.layers.1.weight_g"]
    path = save(tmp_path / "vae.ckpt", state)
    with pytest.raises(CheckpointError, match=r"lacks decoder.layers.1.layers.1.weight_g") as caught:
        load_vae(path)
    assert str(path) in one_line(caught.value)


@pytest.mark.parametrize("load", [load_renderer, load_vae])
def test_a_file_of_another_kind_is_refused(load, tmp_path: Path) -> None:
    for path in (
        save(tmp_path / "model.pt", lm_state()),
        save(tmp_path / "mixed.safetensors", mixed_codec_state()),
        save_codec(tmp_path / "codec.safetensors") if load is load_vae else save_vae(tmp_path / "vae.ckpt"),
    ):
        with pytest.raises(CheckpointError, match="is not the") as caught:
            load(path)
        assert str(path) in one_line(caught.value)


# --- what is read of a file ---------------------------------------------------------------------------


def huge_file(path: Path, names: tuple[str, ...], num_bytes: int) -> Path:
    """A safetensors file of zeros that takes no room on the disk."""
    size = num_bytes // len(names) // 4 * 4
    header = {
        n: {"dtype": "F32", "shape": [size // 4], "data_offsets": [i * size, (i + 1) * size]}
        for i, n in enumerate(names)
    }
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + size * len(names))
    return path


def resident_memory() -> int:
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("needs /proc")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_tensors_that_nobody_touches_are_not_read(tmp_path: Path) -> None:
    """Rendering takes 232 of 993 tensors of a 4.8 GB file; the rest must cost nothing."""
    path = huge_file(tmp_path / "codec.safetensors", ("wanted", "hubert.a", "hubert.b"), 600_000_000)
    before = resident_memory()
    state = read_state_dict(path)
    assert state["wanted"].numel() == 50_000_000
    assert resident_memory() - before < 30_000_000
    pointers = {t.untyped_storage().data_ptr() for t in state.values()}
    assert len(pointers) <= 3


def test_torch_files_are_mapped_too(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", {"x": torch.zeros(25_000_000)})
    before = resident_memory()
    state = read_state_dict(path)
    shapes = tensor_shapes(path)
    assert resident_memory() - before < 30_000_000
    assert shapes == {"x": (25_000_000,)} == {n: tuple(t.shape) for n, t in state.items()}


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_unconverted_weights_stay_in_the_file(name: str, tmp_path: Path, lm_config) -> None:
    """The network holds views of the mapped file: no anonymous copy of what needs no conversion."""
    path = save(tmp_path / name, lm_state())
    lm = load_lelm(path, lm_config)
    weight = lm.main.layers[0].mlp.up_proj.weight
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc")
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in mapped]
    assert any(start <= weight.data_ptr() < stop for start, stop in spans)


def test_all_networks_of_a_folder(tmp_path: Path, lm, renderer) -> None:
    save_song_model(tmp_path / "tiny" / "model.safetensors")
    save_codec(tmp_path / "tiny" / "codec.safetensors")
    save_vae(tmp_path / "tiny" / "vae.ckpt")
    files = find_model(tmp_path / "tiny")
    loaded, tokenizers, codec, vae = load_networks(files, torch.float32)
    assert_same_network(loaded, lm)
    assert_same_network(codec, renderer)
    assert vae.encoder is None and vae.config.hop_length == 1920
    assert tokenizers.pad_id == TINY_VOCAB
    networks = load_networks(files, torch.bfloat16)
    assert networks[0].heads[0].weight.dtype == torch.bfloat16
    assert networks[2].compute_dtype == torch.float32, "bfloat16 is too coarse for the renderer"
    assert load_networks(files, torch.float16)[2].compute_dtype == torch.float16


def test_a_variant_that_the_weights_are_not_of_is_refused(tmp_path: Path) -> None:
    """Without its own tokenizer a tiny model meets Qwen2's vocabulary."""
    save_song_model(tmp_path / "tiny" / "model.pt", config=False, tokenizer=False)
    save_codec(tmp_path / "codec.safetensors")
    save_vae(tmp_path / "vae.ckpt")
    files = find_model(tmp_path / "tiny", variant="v2-large")
    with pytest.raises(CheckpointError, match=r"536 rows, the tokenizer needs 151,659"):
        load_language_model(files, torch.float32)


def test_loading_reports_progress_and_stops_when_told(tmp_path: Path) -> None:
    folder = save_song_model(tmp_path / "tiny" / "model.pt").parent
    save_codec(folder / "model_2.safetensors")
    save_vae(folder / "vae.ckpt")
    files, seen = find_model(folder), []
    load_networks(files, torch.float32, seen.append)
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == ["loading language model", "loading renderer", "loading VAE"]
    for stage in stages:
        steps = [p for p in seen if p.stage == stage]
        assert [p.done for p in steps] == list(range(1, steps[-1].total + 1))
    with pytest.raises(Cancelled):
        load_networks(files, torch.float32, cancelled=lambda: True)
