"""Running the command in process, and tiny model folders in the published layout."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import songgen_core.pipeline
from songgen_core.cli import main
from songgen_core.errors import Cancelled
from songgen_core.pipeline import SongPipeline, SongResult
from songgen_core.progress import Progress
from songgen_core.selftest import selftest_networks

SHARED = Path(os.environ.get("SONGGEN_SHARED", Path(__file__).parents[3] / "shared"))
GOLDENS = SHARED / "goldens"
LM, TOKENIZER = GOLDENS / "lelm" / "model_tiny_v2", GOLDENS / "lelm" / "tiny_tokenizer"
CODEC = GOLDENS / "renderer" / "_weights" / "model.safetensors"
LYRICS = "[verse]\nLa la la\n"


@dataclass(frozen=True)
class Run:
    """What a call of the command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1])

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("songgen: error: ")]


@pytest.fixture
def run(capsys) -> Callable[..., Run]:
    def call(*argv: object) -> Run:
        code = main([str(argument) for argument in argv])
        return Run(code, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No test sees the models of this machine or builds the self-test networks anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SONGGEN_MODELS", raising=False)
    monkeypatch.setattr(songgen_core.pipeline, "selftest_networks", cached_networks)


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Threads only get into each other's way on networks of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def cached_networks():
    return selftest_networks()


@pytest.fixture
def instant(monkeypatch) -> list[str]:
    """Songs come without the networks' work: noise by the seed. The lyrics that were sung are listed."""
    sung = []

    def generate(self, lyrics, description, *, seeds, output, on_progress, cancelled, **options):
        sung.append(lyrics)
        for done in (1, 2):
            on_progress(Progress("tokens", done, 2))
            if cancelled():
                raise Cancelled
        names = ("vocal", "bgm", "mixed") if output == "separate" else (output,)
        codes = torch.zeros(1, 3, 25, dtype=torch.int64)
        for seed in seeds:
            noise = torch.rand(1, 2, 48000, generator=torch.Generator().manual_seed(seed)) - 0.5
            yield SongResult(codes, dict.fromkeys(names, noise), 48000, seed, True, self.name)

    monkeypatch.setattr(SongPipeline, "generate_candidates", generate)
    return sung


@pytest.fixture
def lyrics(tmp_path) -> Path:
    path = tmp_path / "lyrics.txt"
    path.write_text(LYRICS, encoding="utf-8")
    return path


@pytest.fixture
def sing(run, lyrics) -> Callable[..., Run]:
    """The shortest song; later options win over earlier ones."""

    def call(*argv: object, model: str = "selftest") -> Run:
        short = ("--duration", 1, "--steps", 1, "--seed", 1, "--model", model)
        return run("sing", lyrics, "-o", "out/song.flac", *short, *argv)

    return call


@pytest.fixture
def models(tmp_path) -> Path:
    """`models/tiny`, `models/ckpt`: a whole model of tiny size. Its folder lies deep enough to be alone."""
    if not GOLDENS.is_dir():
        pytest.skip(f"no recorded models in {GOLDENS}; set SONGGEN_SHARED")
    folder = tmp_path / "disk" / "home" / "models"
    tiny, ckpt = folder / "tiny", folder / "ckpt"
    tiny.mkdir(parents=True)
    ckpt.mkdir()
    for file in (LM / "config.yaml", TOKENIZER / "vocab.json", TOKENIZER / "merges.txt"):
        shutil.copyfile(file, tiny / file.name)
    shutil.copyfile(LM / "weights.safetensors", tiny / "model.safetensors")
    num_codes = yaml.safe_load((LM / "config.yaml").read_text())["lm"]["code_size"]
    codec = {n: t[:num_codes].clone() if "codebook" in n else t for n, t in load_file(CODEC).items()}
    save_file(codec, ckpt / "model_2.safetensors", {"num_attention_heads": "2"})
    save_file(cached_networks()[3].state_dict(), ckpt / "vae.safetensors")
    return folder
