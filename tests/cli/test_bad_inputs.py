"""Whatever is given wrongly: one line with problem and remedy, no traceback, nothing left behind."""

import errno
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from songgen_core.audio import files
from songgen_core.selftest import selftest_networks

USER, USAGE = 1, 2
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12899965446\n"


def lyrics_file(content: str | bytes) -> Path:
    path = Path("bad.txt")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


BAD_LYRICS = {
    "empty": ("", "no lyrics", "write a tag"),
    "blank": (" \n\n\t\n", "no lyrics", "write a tag"),
    "no tag": ("La la la\n", "before the first tag", "put a tag such as [verse]"),
    "unknown tag": ("[verso]\nLa\n", "[verso] is not a structure tag", "did you mean [verse]?"),
    "foreign tag": ("[Guitar Solo]\n", "is not a structure tag", "[inst-medium]"),
    "sung instrumental": ("[intro-short]\nLa la\n", "section 1 [intro-short], line 2", "move"),
    "full-width": ("[verse]\n你好，世界\n", "line 2", 'use "," instead'),
    "too long": ("[verse]\n" + "a" * 19_993, "20001 characters", "shorten"),
    "NUL": ("[verse]\nLa\0la\n", "U+0000", "delete it"),
    "broken bracket": ("[verse\nLa\n", "bracket", "write tags like [verse]"),
    "empty verse": ("[verse]\n[chorus]\nLa\n", "nothing to sing", "write at least one line"),
    "not UTF-8": ("[verse]\nÄ".encode("utf-16"), "is not UTF-8", "save it"),
    "a film": (b"x" * 1_000_001, "more than 1,000,000 bytes", "name another file"),
}


@pytest.mark.parametrize("case", BAD_LYRICS)
def test_lyrics(sing, run, case):
    content, *words = BAD_LYRICS[case]
    done = run("sing", lyrics_file(content), "-o", "out/song.flac", "--model", "selftest")
    check(done, USER, words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.txt", ("nowhere.txt does not exist", "check the spelling")),
        (".", ("is a folder", "name a text file")),
    ],
)
def test_lyrics_that_are_no_file(run, path, words):
    check(run("sing", path, "-o", "out/song.flac", "--model", "selftest"), USER, words)


BAD_OPTIONS = {
    "seed nan": (["--seed", "nan"], USAGE, "--seed", "'nan' is not a whole number", "give a whole number"),
    "seed float": (["--seed", "1.5"], USAGE, "--seed", "give a whole number"),
    "seed negative": (["--seed", "-1"], USER, "seed is -1", "from 0 to 18446744073709551615"),
    "seed 2**64": (["--seed", 2**64], USER, "seed is 18446744073709551616", "from 0 to"),
    "duration 0": (["--duration", 0], USER, "duration is 0 s", "1 s or more"),
    "duration -1": (["--duration", "-1"], USER, "duration is -1 s", "1 s or more"),
    "duration 1e9": (["--duration", "1e9"], USER, "duration is 1e+09 s", "1 to 270 s"),
    "duration inf": (["--duration", "inf"], USER, "duration is inf s", "1 to 270 s"),
    "duration nan": (["--duration", "nan"], USER, "duration is nan s", "1 s or more"),
    "duration text": (["--duration", "long"], USAGE, "--duration", "give a number"),
    "temperature -1": (["--temperature", "-1"], USER, "temperature is -1.0", "from 0.0 to 10.0"),
    "temperature nan": (["--temperature", "nan"], USER, "temperature is nan", "from 0.0 to 10.0"),
    "top_k -5": (["--top-k", "-5"], USER, "top_k is -5", "from 0 to 1000000"),
    "top_p 2": (["--top-p", "2"], USER, "top_p is 2.0", "from 0.0 to 1.0"),
    "cfg nan": (["--cfg-scale", "nan"], USER, "cfg_scale is nan", "from 0.0 to 100.0"),
    "window -1": (["--repetition-window", "-1"], USER, "repetition_window is -1", "from 0 to"),
    "steps 0": (["--steps", 0], USER, "steps is 0", "from 1 to 200"),
    "steps 1000": (["--steps", 1000], USER, "steps is 1000", "from 1 to 200"),
    "guidance nan": (["--guidance-scale", "nan"], USER, "guidance scale is nan", "from 0 to 100"),
    "output": (["--output", "drums"], USAGE, "invalid choice: 'drums'", "mixed", "separate"),
    "format": (["--format", "ogg"], USAGE, "invalid choice: 'ogg'", "flac", "mp3"),
    "dtype": (["--dtype", "int4"], USAGE, "invalid choice: 'int4'", "bfloat16"),
    "unknown option": (["--karaoke"], USAGE, "--karaoke", "--help"),
    "no such device": (["--device", "abacus"], USER, "device 'abacus' is not available", "use auto, cpu"),
    "selftest variant": (["--variant", "base"], USER, "--variant base", "leave it out"),
    "bpm": (["--tags", "pop, bpm 9000"], USER, "bpm 9000 is not possible", "from 20 to 300"),
    "two bpm": (["--tags", "bpm 90, bpm 120"], USER, "contradict", "keep one"),
    "long tags": (["--tags", "a" * 3000], USER, "3000 characters", "shorten"),
    "NUL in tags": (["--tags", "a\0b"], USER, "U+0000", "delete it"),
    "extension": (["-o", "out/song.ogg"], USER, "unknown extension '.ogg'", "use .flac"),
    "no extension": (["-o", "out/song"], USER, "unknown extension ''", "use .flac"),
    "other extension": (["--format", "mp3"], USER, "must end in .mp3", "rename"),
    "folder": (["-o", "folder.flac"], USER, "folder.flac is a folder", "add a file name"),
    "existing": (["-o", "there.flac"], USER, "there.flac exists", "use --overwrite"),
    "under a file": (["-o", "there.flac/song.flac"], USER, "there.flac", "choose another folder"),
    "models-dir": (["--models-dir", "nowhere"], USER, "--models-dir nowhere is no folder", "spelling"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options(sing, case):
    argv, code, *words = BAD_OPTIONS[case]
    Path("folder.flac").mkdir()
    Path("there.flac").write_bytes(b"mine")
    model = "x" if case == "models-dir" else "selftest"
    check(sing(*argv, model=model), code, words)
    assert Path("there.flac").read_bytes() == b"mine" and not list(Path("folder.flac").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test expects to be missing")
def test_cuda_where_there_is_none(sing):
    check(sing("--device", "cuda"), USER, ("device 'cuda' is not available", "use auto, cpu"))


@pytest.mark.parametrize("argv", [[], ["karaoke"], ["sing"], ["sing", "a.txt"], ["batch", "a.jsonl"]])
def test_calls(run, argv):
    check(run(*argv), USAGE, ("--help",))


def test_errors_as_json(sing):
    for argv, code in ((["--steps", 0], USER), (["--seed", "x"], USAGE)):
        done = sing("--json", *argv)
        assert done.code == code and len(done.out.splitlines()) == 1
        assert f"songgen: error: {done.json['error']}" == done.errors[0]


class Bomb:
    """A pickle that makes a file when it is loaded by a careless reader."""

    def __reduce__(self):
        return (Path.touch, (Path("marker").absolute(),))


def weights(models: Path) -> Path:
    return models / "tiny" / "model.safetensors"


def as_torch(models: Path) -> Path:
    path = models / "tiny" / "model.pt"
    torch.save(load_file(weights(models)), path)
    weights(models).unlink()
    return path


def pointer(models: Path) -> None:
    as_torch(models).write_text(POINTER, encoding="utf-8")


def cut_safetensors(models: Path) -> None:
    weights(models).write_bytes(weights(models).read_bytes()[:-1000])


def cut_torch(models: Path) -> None:
    path = as_torch(models)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(models: Path) -> None:
    torch.save({"x": Bomb()}, as_torch(models))


def bomb_in_a_checkpoint(models: Path) -> None:
    torch.save(
        {"state_dict": load_file(models / "ckpt" / "vae.safetensors"), "x": Bomb()}, models / "ckpt/vae.ckpt"
    )
    (models / "ckpt" / "vae.safetensors").unlink()


def archive_without_model(models: Path) -> None:
    with zipfile.ZipFile(as_torch(models), "w") as archive:
        archive.writestr("readme.txt", "hello")


def empty(models: Path) -> None:
    weights(models).write_bytes(b"")


def web_page(models: Path) -> None:
    weights(models).write_text("<!doctype html><html>Too many requests</html>", encoding="utf-8")


def change_config(models: Path, change: Callable[[dict], object]) -> None:
    path = models / "tiny" / "config.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")


def other_sizes(models: Path) -> None:
    change_config(models, lambda raw: raw["lm"].update(dim=96, num_layers=3))


def odd_heads(models: Path) -> None:
    change_config(models, lambda raw: raw["lm"].update(num_heads=5))


def no_delays(models: Path) -> None:
    change_config(models, lambda raw: raw.pop("codebooks_pattern"))


def lm_is_a_number(models: Path) -> None:
    change_config(models, lambda raw: raw.update(lm=5))


def broken_yaml(models: Path) -> None:
    (models / "tiny" / "config.yaml").write_text("lm: [1, {2\n  - :", encoding="utf-8")


def no_config(models: Path) -> None:
    (models / "tiny" / "config.yaml").unlink()


def no_codec(models: Path) -> None:
    (models / "ckpt" / "model_2.safetensors").unlink()


def vae_as_codec(models: Path) -> None:
    (models / "ckpt" / "vae.safetensors").rename(models / "ckpt" / "model_2.safetensors")


def no_vae(models: Path) -> None:
    (models / "ckpt" / "vae.safetensors").unlink()


def codec_without_heads(models: Path) -> None:
    path = models / "ckpt" / "model_2.safetensors"
    save_file(load_file(path), path)


def vae_of_another_size(models: Path) -> None:
    state = selftest_networks()[3].state_dict()
    first = "decoder.layers.0.weight"
    state[first] = state[first][:, :4].contiguous()
    save_file(state, models / "ckpt" / "vae.safetensors")


def two_models(models: Path) -> None:
    (models / "second").mkdir()
    (models / "second" / "model.safetensors").write_bytes(weights(models).read_bytes())


BAD_MODELS = {
    pointer: ("Git-LFS pointer", "git lfs pull"),
    cut_safetensors: ("is cut short", "download it again"),
    cut_torch: ("damaged or cut short", "download it again"),
    bomb: ("is refused", "get the file from its publisher"),
    bomb_in_a_checkpoint: ("is refused", "get the file from its publisher"),
    archive_without_model: ("damaged", "download it again"),
    empty: ("is empty", "download it again"),
    web_page: ("no safetensors file", "download it again"),
    other_sizes: ("does not fit this model", "96", "Use the published file"),
    odd_heads: ("lm.num_heads", "use the config.yaml published"),
    no_delays: ("'codebooks_pattern' is missing", "use the config.yaml published"),
    lm_is_a_number: ("field 'lm' is 5", "use the config.yaml published"),
    broken_yaml: ("cannot be read as YAML", "download it again"),
    no_config: ("no config.yaml", "name the variant"),
    no_codec: ("the two-track codec", "was not found", "songgen download"),
    vae_as_codec: ("the two-track codec", "was not found", "songgen download"),
    no_vae: ("the VAE", "was not found", "songgen download"),
    codec_without_heads: ("heads", "num_attention_heads"),
    vae_of_another_size: ("do not belong together", "use the published pair"),
}


@pytest.mark.parametrize("damage", BAD_MODELS, ids=lambda damage: damage.__name__)
def test_models(sing, models, damage):
    damage(models)
    check(sing("--models-dir", models, model="tiny"), USER, BAD_MODELS[damage])
    assert not Path("marker").exists()


def test_the_bomb_is_one(models):
    """The marker shows up where pickles are trusted, so that its absence above means something."""
    bomb(models)
    torch.load(models / "tiny" / "model.pt", weights_only=False)
    assert Path("marker").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "huge"], ("no model 'huge'", "found tiny", "Give a name")),
        (["--model", "tiny", "--variant", "v3"], ("variant 'v3' is unknown", "v2-large")),
        (["--model", "tiny", "--variant", "base"], ("does not fit this model", "Use the published file")),
        (
            ["--model", "disk/home/models/ckpt/vae.safetensors"],
            ("is the VAE", "name the published song model"),
        ),
        (["--model", "tiny", "--duration", 41], ("duration is 41 s", "1 to 40 s")),
    ],
)
def test_model_options(sing, models, argv, words):
    check(sing("--models-dir", models, *argv), USER, words)


def test_several_models_and_none(run, lyrics, models):
    two_models(models)
    Path("none").mkdir()
    for folder, words in {
        models: ("several models", "choose one with --model: second, tiny"),
        "none": ("no song model lies in none", "put a folder", "--model mini"),
    }.items():
        check(run("sing", lyrics, "-o", "out/song.flac", "--models-dir", folder), USER, words)


def fail_with(number: int) -> Callable:
    def fail(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written(sing, monkeypatch, number):
    monkeypatch.setattr(tempfile, "TemporaryFile", fail_with(number))
    check(sing(), USER, ("cannot be written to", "choose another folder"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that even root cannot write to")
def test_a_folder_of_the_system(sing):
    check(sing("-o", "/proc/song.flac"), USER, ("/proc cannot be written to", "choose another folder"))


@pytest.mark.parametrize("where", ["_encode", "TemporaryDirectory", "replace"])
def test_a_full_disk(sing, instant, monkeypatch, where):
    home = {"_encode": files, "TemporaryDirectory": tempfile, "replace": os}[where]
    monkeypatch.setattr(home, where, fail_with(errno.ENOSPC))
    done = sing("--output", "separate")
    assert done.code == USER and len(done.errors) == 1 and ".songgen-" not in done.err
    message = done.errors[0].lower()
    assert "disk is full" in message or "no space left" in message
    assert "another folder" in message
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("holds no songs", "write one JSON object per line")),
        (None, ("does not exist", "check the spelling")),
        (b"\xff\xfe", ("is not UTF-8", "save it")),
    ],
)
def test_song_lists(run, content, words):
    if content is not None:
        Path("songs.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    check(run("batch", "songs.jsonl", "-d", "out", "--model", "selftest"), USER, words)


def test_a_batch_folder_that_is_a_file(run):
    Path("songs.jsonl").write_text(json.dumps({"idx": 1, "gt_lyric": "[verse] La."}), encoding="utf-8")
    Path("file").write_text("x", encoding="utf-8")
    check(
        run("batch", "songs.jsonl", "-d", "file", "--model", "selftest"), USER, ("is a file", "name a folder")
    )


def check(done, code: int, words: tuple | list) -> None:
    """The exit code, one error line that holds `words`, no traceback, and no output folder."""
    assert done.code == code, done
    assert done.out == "" and "Traceback" not in done.err
    others = [line for line in done.err.splitlines() if not line.startswith("songgen: warning: ")]
    assert len(done.errors) == 1 and others == done.errors, done.err
    for word in words:
        assert word in done.errors[0]
    assert not Path("out").exists()
