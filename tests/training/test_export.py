"""A checkpoint is written in the published layout, and is the networks that it was written from."""

import gzip
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from songgen_core.checkpoint.layout import find_model
from songgen_core.checkpoint.load_model import load_networks, load_prompt_encoders
from songgen_core.errors import UserError
from songgen_core.models.codec_encoder import CodecEncoder
from songgen_core.pipeline import SongPipeline
from songgen_core.prompts.readers import PromptReaders
from songgen_core.text.bpe import load_tokenizers
from songgen_core.text.phonetics import Lexicon
from training.card import Origin, checked_rows, make_card, stage_rows
from training.codes import FIRST_HEARD
from training.export import CARD, Networks, hashes, write_checkpoint
from training.factors import plain
from training.lm import make_lm
from training.lm_batches import SongSource
from training.published import join_codebooks, settings_file
from training.renderer import encode_takes, make_renderer
from training.settings import Settings, read_settings
from training.stored_prompts import write_stored_prompts
from training.synth.corpus import random_request
from training.takes import make_corpus
from training.tokenizers import make_encoder
from training.vae import make_vae

SMOKE = Path(__file__).parents[2] / "training" / "smoke.yaml"
LEXICON = "[english]\nlove L AH V\nsun S AH N\n[pinyin]\nni 你\n[phrases]\n"
LYRICS = "[intro-short] ; [verse] Love the sun. Love you. ; [outro-short]"


def lexicon_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lexicon.txt.gz"
    path.write_bytes(gzip.compress(LEXICON.encode()))
    return path


def untrained(settings: Settings, lexicon: Path) -> Networks:
    """What stages of no steps would leave; biases and norms random too, so that none can be lost unseen."""
    takes = make_corpus(lambda rng, seconds: random_request(rng, None, seconds), 2, 4.0, seed=3)
    vae = make_vae(settings.vae(), takes)
    networks = Networks(
        lm=make_lm(settings.lm(load_tokenizers(lexicon.parent, "v2"))),
        renderer=make_renderer(settings.renderer(), encode_takes(vae, takes)),
        mixed_encoder=make_encoder(settings.encoder(dual=False)),
        dual_encoder=make_encoder(settings.encoder(dual=True)),
        vae=vae,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for network in networks.by_name().values():
            for parameter in network.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        for encoder in (networks.mixed_encoder, networks.dual_encoder):
            centre(encoder, takes[0].sound(0, 50)[None])
    return Networks(**{name: plain(network) for name, network in networks.by_name().items()})


def centre(encoder: CodecEncoder, audio: torch.Tensor) -> None:
    """Bring what is quantised around zero, so that different sounds get different codes."""
    for quantizer, tap in zip(encoder.quantizers, encoder.config.taps):
        heard = quantizer.in_proj(encoder.features(encoder.downsample(audio), tap))
        quantizer.in_proj.bias -= heard.mean((0, 1))


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    (take,) = make_corpus(lambda rng, seconds: random_request(rng, None, seconds), 1, 4.0, seed=4)
    return take.sound(20, 70)[None]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_settings(SMOKE)


@pytest.fixture(scope="module")
def networks(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return untrained(settings, lexicon_in(tmp_path_factory.mktemp("words")))


def stored_prompts(networks: Networks, lexicon: Path, file: Path) -> None:
    tokenizers = load_tokenizers(lexicon.parent, "v2")
    words = Lexicon.read(lexicon)
    source = SongSource(
        lambda rng, seconds: random_request(rng, words, seconds), tokenizers, networks.lm.config
    )
    write_stored_prompts(file, source, 2)


def nothing(file: Path) -> None:
    file.write_bytes(b"no prompts")


@pytest.fixture(scope="module")
def folder(settings: Settings, networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("run")
    lines = (
        {"step": 0, "held_out_mixed": 7.1, "schedule": {"steps": 9}},
        {"step": 9, "minutes": 3.2, "training": {"loss": 1.0}, "held_out_mixed": 0.51234, "tempo_right": 1.0},
    )
    (home / "pretrain.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = partial(
        make_card, networks=networks, settings=settings, origin=Origin(home, "smoke.yaml", "extend")
    )
    lexicon = lexicon_in(home / "words")
    write_checkpoint(home / "mini", networks, lexicon, partial(stored_prompts, networks, lexicon), card)
    return home / "mini"


def in_half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float() if tensor.ndim > 1 else tensor


def test_a_check_is_told_on_the_card(folder: Path, tmp_path: Path) -> None:
    assert "Not measured." in (folder / CARD).read_text(encoding="utf-8")
    common = {"unit": "share", "low": None, "high": None, "reason": None}
    figures = {
        "tempo_right": {**common, "about": "tempo", "value": 0.875, "low": 0.8, "high": 0.95, "songs": 8},
        "key_exact": {**common, "about": "key", "value": None, "songs": 0, "reason": "none was asked for"},
    }
    report = {"made": 8, "requests": 64, "seed": 3, "figures": figures}
    (tmp_path / "check.jsonl").write_text("a warning\n" + json.dumps(report) + "\n", encoding="utf-8")
    assert checked_rows(tmp_path / "check.jsonl") == [
        "8 of 64 songs, seed 3:",
        "",
        "| Figure | Value | 95 % interval | Songs |",
        "| --- | ---: | --- | ---: |",
        "| tempo | 87.5 % | 80.0 % to 95.0 % | 8 |",
        "| key | not available: none was asked for | | |",
    ]


def test_networks_come_back(folder: Path, networks: Networks) -> None:
    lm, tokenizers, renderer, vae = load_networks(find_model(folder), torch.float32)
    assert lm.config == networks.lm.config
    assert tokenizers.lyrics.size == lm.config.lyrics_vocab_size
    for name, tensor in networks.lm.state_dict().items():
        assert torch.equal(lm.state_dict()[name], in_half(tensor)), name
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, in_half(networks.vae.state_dict()[name])), name
    ours = networks.renderer.state_dict()
    for name, tensor in renderer.state_dict().items():
        if "codebook" not in name:  # those are joined with the encoder's
            assert torch.equal(tensor, in_half(ours[name])), name
    config = networks.renderer.config
    assert (renderer.config.num_attention_heads, renderer.config.latent_dim) == (4, config.latent_dim)
    assert (renderer.config.silent_vocal_code, renderer.config.silent_bgm_code) == (0, 0)
    codes = torch.arange(config.codebook_size)[None]
    wanted = networks.renderer.condition(codes, codes)
    assert (renderer.condition(codes, codes) - wanted).abs().max() < 5e-3 * wanted.abs().max()


def test_encoders_come_back(folder: Path, networks: Networks, sound: torch.Tensor) -> None:
    mixed, dual, vae = load_prompt_encoders(find_model(folder))
    for loaded, original in ((mixed, networks.mixed_encoder), (dual, networks.dual_encoder)):
        assert loaded.config.taps == original.config.taps
        assert loaded.config.num_hidden_layers == original.config.num_hidden_layers
        state = original.state_dict()
        for name, tensor in loaded.state_dict().items():
            if "quantizers" in name:
                continue
            exact = name in ("mel.window", "resampling_kernel")
            assert torch.equal(tensor, state[name] if exact else in_half(state[name])), name
        for stream in range(len(original.config.taps)):
            assert_hears_the_same(loaded, original, sound, stream)
    bias = "encoder.layers.7.bias"
    assert torch.equal(vae.state_dict()[bias], networks.vae.state_dict()[bias])


def assert_hears_the_same(
    loaded: CodecEncoder, original: CodecEncoder, audio: torch.Tensor, stream: int
) -> None:
    """Up to frames where two rows are as near as rounding."""
    wanted = original(audio, stream)
    features = original.features(original.downsample(audio), original.config.taps[stream])
    quantizer = original.quantizers[stream]
    distances = quantizer.distances(quantizer.in_proj(features))
    chosen = distances.gather(-1, loaded(audio, stream)[..., None])[..., 0]
    best = distances.gather(-1, wanted[..., None])[..., 0]
    assert (chosen - best).max() < 0.01
    assert wanted.unique().numel() > 1


def test_joined_codebooks_serve_both() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, other, x = (torch.randn(shape, generator=generator) for shape in ((40, 6), (40, 5), (200, 7)))
    weight, bias = torch.randn(6, 7, generator=generator), torch.randn(6, generator=generator)
    out = torch.randn(9, 5, generator=generator)
    heard = {"q.codebook.weight": rows, "q.in_proj.weight": weight, "q.in_proj.bias": bias}
    rendered = {"c.codebook.weight": other, "c.out_proj.weight": out}
    nearest = torch.cosine_similarity((x @ weight.T + bias)[:, None], rows, dim=-1).argmax(-1)
    join_codebooks(heard, "q", rendered, "c")
    joined = heard["q.codebook.weight"]
    seen = x @ heard["q.in_proj.weight"].T + heard["q.in_proj.bias"]
    assert torch.equal(torch.cosine_similarity(seen[:, None], joined, dim=-1).argmax(-1), nearest)
    assert torch.allclose(joined @ rendered["c.out_proj.weight"].T, other @ out.T, atol=1e-5)
    assert torch.allclose(joined.norm(dim=1), torch.full((40,), 2**0.5))


def test_files_are_small_and_named_as_they_are_looked_for(folder: Path) -> None:
    files = find_model(folder)
    assert (files.name, files.variant) == ("mini", None)
    assert [p.name for p in (files.weights, files.codec, files.vae, files.find("mixed_codec"))] == [
        "model.safetensors",
        "septoken.safetensors",
        "vae.safetensors",
        "1rvq.safetensors",
    ]
    assert files.tokenizer == folder
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            assert name.startswith("audiolm.")
            tensor = file.get_tensor(name)
            assert tensor.dtype == (torch.float16 if tensor.ndim > 1 else torch.float32)


def test_card_tells_figures_and_hashes(folder: Path, settings: Settings) -> None:
    card = (folder / CARD).read_text(encoding="utf-8")
    assert card.startswith("# smoke\n") and "$" not in card
    assert "| pretrain | 9 | 3 | held_out_mixed | 7.1 | 0.512 |" in card
    assert "| pretrain | 9 | 3 | tempo_right |  | 1 |" in card
    assert "| loss" not in card and "| schedule" not in card
    found = hashes(folder)
    assert CARD not in found and len(found) == 7
    for name, (size, sha) in found.items():
        assert f"| {name} | {size:,} | `{sha}` |" in card
    assert stage_rows("extend", folder.parent) == []


def test_the_checkpoint_sings(folder: Path) -> None:
    pipeline = SongPipeline.from_pretrained(folder, device="cpu")
    song = pipeline.generate(LYRICS, "female, pop, the bpm is 120.", seed=3, duration=1.0)
    assert song.audio["mixed"].shape[-1] == song.codes.shape[-1] * 1920 > 0
    assert song.audio["mixed"].isfinite().all() and song.audio["mixed"].std() > 0
    assert song.model == "mini"


def test_prompts_are_stored_by_genre_and_language(folder: Path) -> None:
    readers = PromptReaders(find_model(folder))
    pop, same, rock = (readers.preset(genre, "en", 1).codes for genre in ("Pop", "pop", "Rock"))
    config = read_settings(SMOKE).lm(load_tokenizers(folder, "v2"))
    assert pop.shape == (1, 3, config.prompt_frames) and torch.equal(pop, same)
    assert not torch.equal(pop, rock)
    assert pop[0, 0].min() >= FIRST_HEARD  # what is heard is no code that songs are written in
    assert readers.preset("Ballad", "zh", 1).codes[0, 0].max() < config.codebook_size
    with pytest.raises(UserError, match="'Jazz' has no stored prompts; use one of Pop, Rock"):
        readers.preset("Jazz", "en", 1)


def test_what_cannot_be_written_leaves_what_was_there(
    folder: Path, networks: Networks, tmp_path: Path
) -> None:
    lexicon = lexicon_in(tmp_path / "words")
    target = tmp_path / "mini"
    write_checkpoint(target, networks, lexicon, nothing, lambda folder: "first")
    with torch.no_grad():
        table = networks.lm.code_embeddings[0].weight
        before = table[0, 0].item()
        table[0, 0] = 1e6
        try:
            with pytest.raises(ValueError, match=r"code_embeddings.0.weight has values of up to 1e\+06"):
                write_checkpoint(target, networks, lexicon, nothing, lambda folder: "second")
        finally:
            table[0, 0] = before
    assert (target / CARD).read_text() == "first"
    write_checkpoint(target, networks, lexicon, nothing, lambda folder: "third")
    assert (target / CARD).read_text() == "third"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mini", "words"]


def test_prompts_of_half_seconds_have_no_layout(networks: Networks) -> None:
    with pytest.raises(ValueError, match="prompt_frames is 30"):
        settings_file(replace(networks.lm.config, prompt_frames=30, prompt_length=32))
