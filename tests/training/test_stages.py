"""The smoke run: all stages at the smallest size, one after the other, up to a song."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from songgen_core.pipeline import SongPipeline
from training import runs
from training.runs import Run
from training.settings import STAGES, Settings, read_settings

TRAINING = Path(__file__).parents[2] / "training"
LEXICON = "[english]\nlove L AH V\nsun S AH N\n[pinyin]\nni 你\nhao 好\n[phrases]\n"


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_settings(TRAINING / "smoke.yaml")


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "lexicon.txt.gz"
    path.write_bytes(gzip.compress(LEXICON.encode()))
    return path


@pytest.fixture(scope="module")
def folder(settings: Settings, lexicon: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of all stages leaves."""
    run = Run(settings, tmp_path_factory.mktemp("run"), lexicon)
    for stage in (*STAGES, "export"):
        figures = run.stage(stage)
        assert all(np.isfinite(list(figures.values()))), stage
    return run.folder


@pytest.mark.parametrize(
    ("stage", "measure"),
    [
        ("vae", "mix_snr"),
        ("mixed_encoder", "vocal_bgm_loss"),
        ("dual_encoder", "vocal_loss"),
        ("dual_encoder", "bgm_loss"),
        ("renderer", "latents"),
        ("pretrain", "held_out_mixed"),
        ("extend", "held_out_vocal"),
        ("extend", "held_out_bgm"),
    ],
)
def test_each_stage_improves_its_own_measure(stage: str, measure: str, folder: Path) -> None:
    first, *_, last = map(json.loads, (folder / f"{stage}.jsonl").read_text().splitlines())
    assert (first["step"], last["step"]) == (0, first["schedule"]["steps"])
    better = -1 if measure.endswith("snr") else 1
    assert better * last[measure] < better * first[measure]


def test_preferences_are_learned(folder: Path) -> None:
    first, *_, last = map(json.loads, (folder / "dpo.jsonl").read_text().splitlines())
    assert first["preference_gain"] == pytest.approx(0, abs=0.01)
    assert last["training"]["preference"] < np.log(2) and last["training"]["gain"] > 0


def test_extension_leaves_what_was_learned_before(folder: Path) -> None:
    """The mixed stream writes as it did."""
    before, *_, after = map(json.loads, (folder / "extend.jsonl").read_text().splitlines())
    assert before["held_out_mixed"] == after["held_out_mixed"]


def test_the_result_sings_through_the_ordinary_pipeline(folder: Path, settings: Settings) -> None:
    pipeline = SongPipeline.from_pretrained(folder / settings.name, device="cpu")
    song = pipeline.generate("[verse] Love the sun. 你好.", "female, piano", seed=2, duration=1.0)
    audio = song.audio["mixed"]
    assert audio.shape[-1] == song.codes.shape[-1] * 1920 > 0 and audio.isfinite().all()
    card = (folder / settings.name / "README.md").read_text(encoding="utf-8")
    assert "| dpo |" in card and "`dpo`" in card


def test_a_stopped_stage_goes_on_as_if_it_had_not_been(
    folder: Path, settings: Settings, lexicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(folder / "pretrain.pt", tmp_path)
    make_loss = runs.extend_loss

    def loss_that_is_stopped(*arguments):
        usual, steps = make_loss(*arguments), iter(range(25))

        def loss(rng: np.random.Generator):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return usual(rng)

        return loss

    with monkeypatch.context() as patch:
        patch.setattr(runs, "extend_loss", loss_that_is_stopped)
        with pytest.raises(KeyboardInterrupt):
            Run(settings, tmp_path, lexicon).stage("extend")
    assert torch.load(tmp_path / "extend.pt", weights_only=True)["step"] == 20
    Run(settings, tmp_path, lexicon).stage("extend")
    whole, resumed = (torch.load(f / "extend.finished.pt", weights_only=True) for f in (folder, tmp_path))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_latents_are_encoded_once_for_each_vae(
    folder: Path, settings: Settings, lexicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(folder / "vae.finished.pt", tmp_path)
    usual, encoded = runs.encode_takes, []

    def counted(vae, takes):
        encoded.append(len(takes))
        return usual(vae, takes)

    monkeypatch.setattr(runs, "encode_takes", counted)
    first, second = (Run(settings, tmp_path, lexicon).latents for _ in range(2))
    assert encoded == [len(first[0]), len(first[1])]
    for a, b in zip(first[0] + first[1], second[0] + second[1]):
        assert torch.equal(a.codes, b.codes) and a.latents.keys() == b.latents.keys()
        assert all(torch.equal(a.latents[tracks], b.latents[tracks]) for tracks in a.latents)
    state = torch.load(tmp_path / "vae.finished.pt", weights_only=True)
    torch.save({name: tensor + 0.01 for name, tensor in state.items()}, tmp_path / "vae.finished.pt")
    assert Run(settings, tmp_path, lexicon).latents and len(encoded) == 4


def test_a_stage_says_which_one_is_missing(settings: Settings, lexicon: Path, tmp_path: Path) -> None:
    for stage, missing in (("extend", "pretrain"), ("dpo", "extend"), ("export", "renderer")):
        with pytest.raises(FileNotFoundError, match=f"run the stage '{missing}' first"):
            Run(settings, tmp_path, lexicon).stage(stage)


def test_settings_of_the_mini_model_are_read() -> None:
    mini = read_settings(TRAINING / "mini.yaml")
    assert mini.name == "mini" and mini.renderer().window_frames == 400
    assert mini.renderer().hidden_size % (2 * mini.renderer().num_attention_heads) == 0


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    text = (TRAINING / "smoke.yaml").read_text(encoding="utf-8")
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace("corpus_minutes", "corpus_hours"), encoding="utf-8")
    with pytest.raises(ValueError, match="corpus_hours"):
        read_settings(path)
    path.write_text(text.replace("  extend:", "  extension:"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the stages are .*extension.*needed are .*extend"):
        read_settings(path)
