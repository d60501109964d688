"""`songgen download`: list, plan, licence, download, stop, go on - against a tiny replica of the Hub."""

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from checkpoint_cases import GOLDENS
from hub_server import forget_settings, running_hub
from replica import override, publish

from songgen_core.configs import VARIANTS
from songgen_core.hub.licence import ACCEPTED_NAME

ROOT = Path(__file__).parents[2]
MODEL = "songgeneration_v2_medium"
STARTER = "import sys; from songgen_core.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    if not GOLDENS.is_dir():
        pytest.skip(f"no recorded models in {GOLDENS}; set SONGGEN_SHARED")
    forget_settings(monkeypatch)
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        publish(server)
        yield server


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "disk" / "home" / "models"
    override(folder)
    return folder


def test_list(run, monkeypatch):
    forget_settings(monkeypatch)
    done = run("download", "--list")
    assert done.code == 0
    for name in VARIANTS:
        assert f"  {name} " in done.out
    assert "zh, en, es, ja" in done.out and "270 s at most" in done.out and "12.8 GB" in done.out
    assert "12 GB (18 GB with a prompt)" in done.out and "research and education only" in done.out
    report = run("download", "--list", "--json").json
    assert report["variants"]["v2-large"]["bytes"]["text"] == 18_383_057_122
    assert report["variants"]["v2-large"]["languages"] == list(VARIANTS["v2-large"].languages)


def test_a_dry_run_asks_nobody(run, hub, root):
    done = run("download", "v2-medium", "--models-dir", root, "--dry-run", "--features", "text,genres")
    assert done.code == 0 and hub.seen == []
    assert f"missing: {MODEL}/model.pt" in done.out and "from lglg666/SongGeneration-v2-medium" in done.out
    assert "missing: tools/new_auto_prompt.pt" in done.out and f"to download into {root}" in done.out
    assert not (root / ACCEPTED_NAME).exists()


def test_the_licence_must_be_accepted(run, hub, root):
    done = run("download", "v2-medium", "--models-dir", root)
    assert done.code == 1 and "--accept-licence" in done.errors[0] and hub.seen == []


def test_download_and_sing(run, hub, root, lyrics):
    done = run("download", "v2-medium", "--models-dir", root, "--accept-licence")
    assert done.code == 0, done.err
    (after,) = [line for line in done.out.splitlines() if line.startswith("next: songgen sing ")]
    assert after.endswith(f"--model {MODEL} --models-dir {root}")
    song = ("-o", "song.flac", "--duration", 1, "--steps", 1, "--seed", 1)
    sung = run("sing", lyrics, *song, "--model", MODEL, "--models-dir", root, "--json")
    assert sung.code == 0, sung.err
    assert sung.json["model"] == MODEL and Path("song.flac").is_file()


def test_a_second_run_has_nothing_to_do(run, hub, root):
    first = run("download", "v2-medium", "--models-dir", root, "--accept-licence", "--json").json
    assert len(first["files"]) == 6 and first["model"] == MODEL and first["bytes"] > 0
    seen = len(hub.seen)
    second = run("download", "v2-medium", "--models-dir", root, "--json").json
    assert second["files"] == second["missing"] == [] and len(second["found"]) == 6
    more = run("download", "v2-medium", "--models-dir", root, "--features", "prompts,genres")
    assert more.code == 0 and "htdemucs.pth" in more.out and len(hub.seen) > seen
    assert "is complete" in run("download", "v2-medium", "--models-dir", root, "--features", "genres").out


def test_the_folder_is_made_and_others_are_searched(run, hub, root, monkeypatch, tmp_path):
    override(tmp_path)
    monkeypatch.setenv("SONGGEN_REGISTRY", str(tmp_path / "registry.json"))
    monkeypatch.setenv("SONGGEN_MODELS", os.pathsep.join([str(tmp_path / "new" / "place"), str(root)]))
    run("download", "v2-large", "--models-dir", root, "--accept-licence", "--quiet")
    done = run("download", "v2-medium", "--accept-licence")
    assert done.code == 0, done.err
    assert (tmp_path / "new" / "place" / MODEL / "model.pt").is_file()
    assert (
        f"there: {root / 'ckpt' / 'vae'}" in done.out and not (tmp_path / "new" / "place" / "ckpt").exists()
    )


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ((), 2, "name a variant; see 'songgen download --list'"),
        (("v3",), 1, "variant 'v3' is unknown; choose one of base,"),
        (("base", "--features", "stems"), 1, "feature 'stems' is unknown; choose from text, prompts, genres"),
    ],
)
def test_mistakes(run, hub, root, argv, code, words):
    done = run("download", *argv, "--models-dir", root)
    assert done.code == code and words in done.errors[0] and len(done.errors) == 1


def test_a_refusal_of_the_server(run, hub, root):
    hub.trouble(where="model.pt", status=401)
    done = run("download", "v2-medium", "--models-dir", root, "--accept-licence", "--json")
    assert done.code == 1 and "HF_TOKEN" in done.json["error"] and done.errors


def in_a_terminal(root: Path, answer: str) -> tuple[int, str]:
    """A run whose standard input and error are a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-c", STARTER, "download", "v2-medium", "--models-dir", str(root)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = io.BytesIO()
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal is gone with the process
            break
        if not piece:
            break
        shown.write(piece)
    os.close(ours)
    return process.wait(), shown.getvalue().decode()


def test_people_are_asked_once(hub, root):
    code, shown = in_a_terminal(root, "n\n")
    assert code == 1 and "no commercial" in shown and "nothing was downloaded" in shown
    assert not (root / ACCEPTED_NAME).exists() and hub.seen == []
    code, shown = in_a_terminal(root, "y\n")
    assert code == 0 and "downloading model.pt" in shown and "MB" in shown
    (root / MODEL / "model.pt").unlink()
    code, shown = in_a_terminal(root, "")
    assert code == 0 and "accept" not in shown


def test_ctrl_c_stops_within_a_second_and_the_same_command_goes_on(run, hub, root):
    hub.trouble(where="model.pt", stall_after=16384 * 8)
    options = ["download", "v2-medium", "--models-dir", str(root), "--accept-licence", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    while not sum(p.stat().st_size for p in root.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.stderr.readline()  # leaving the interpreter takes a busy machine longer than stopping
    assert b"stopped" in said and time.monotonic() - began < 1
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert "the same command goes on from there" in json.loads(out)["error"]
    assert not (root / MODEL / "model.pt").exists()
    hub.well_again()
    assert run(*options).code == 0
    assert [s.headers.get("Range") for s in hub.gets("model.pt") if s.is_cdn] == [None, "bytes=131072-"]
