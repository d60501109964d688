"""samples/api_client.py as people run it, against a real server."""

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import recordings
from comfy_client import ROOT, Client, song_prompt

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("websocket")
pytestmark = pytest.mark.comfyui

PROGRAM = ROOT / "samples" / "api_client.py"


def command(comfy: Client, *arguments: object) -> list[str]:
    given = [str(a) for a in arguments]
    server = [] if "--server" in given else ["--server", comfy.url]
    return [sys.executable, str(PROGRAM), *server, *given]


def run_program(comfy, *arguments, **environment):
    return subprocess.run(
        command(comfy, *arguments),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.fixture
def short(tmp_path) -> Path:
    """Two seconds of song in two steps, as a workflow file."""
    return written(tmp_path, song_prompt())


def written(folder: Path, prompt: dict) -> Path:
    path = folder / "workflow.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    return path


def listen(path: str) -> None:
    samples, rate = soundfile.read(path)
    assert rate == 48000 and samples.shape == (2 * 48000, 2) and abs(samples).max() > 0.001


def busy(comfy) -> bool:
    queue = comfy.get_json("/queue")
    return bool(queue["queue_running"] or queue["queue_pending"])


def test_a_song_is_made_from_lyrics_and_tags(comfy: Client, tmp_path):
    lyrics = ROOT / "samples" / "lyrics_zh.txt"
    settings = ["--lyrics", lyrics, "--tags", "female, pop", "--seed", 41, "--duration", 2]
    settings += ["--set", "DiffusionRender.steps=2", "--out", tmp_path]
    done = run_program(comfy, *settings)
    assert done.returncode == 0, done.stderr
    (path,) = done.stdout.splitlines()
    assert Path(path).parent == tmp_path
    listen(path)
    assert "seed 41" in done.stderr and "Write the song\n" in done.stderr
    history = list(comfy.get_json("/history").values())[-1]
    inputs = {n["class_type"]: n["inputs"] for n in history["prompt"][2].values()}
    assert inputs["SongGenLyricsFormatter"]["lyrics"] == lyrics.read_text(encoding="utf-8")
    assert inputs["SongGenGenerateTokens"]["description"] == "female, pop"

    again = run_program(comfy, *settings)  # all of it comes from the cache
    assert again.returncode == 0 and again.stdout == done.stdout, again.stderr


def test_all_stems_are_fetched(comfy, tmp_path):
    prompt = song_prompt("stems")
    del prompt["6"], prompt["10"], prompt["11"]  # without demucs
    done = run_program(comfy, "--workflow", written(tmp_path, prompt), "--out", tmp_path / "stems")
    assert done.returncode == 0, done.stderr
    names = {Path(path).name.partition("_0")[0] for path in done.stdout.splitlines()}
    assert names == {"stems_mixed", "stems_vocal", "stems_bgm"}
    for path in done.stdout.splitlines():
        listen(path)


def test_codes_and_subtitles_are_fetched(comfy, tmp_path):
    prompt = {id_: node for id_, node in song_prompt().items() if id_ in ("1", "2", "3", "4")}
    codes = {"codes": ["4", 0], "filename_prefix": "fetched/codes"}
    prompt["20"] = {"class_type": "SongGenSaveTokens", "inputs": codes}
    subtitles = {"subtitles": "[00:01.00]Morning 晨光", "filename_prefix": "fetched/words", "format": "srt"}
    prompt["21"] = {"class_type": "SongGenSaveSubtitles", "inputs": subtitles}
    done = run_program(comfy, "--workflow", written(tmp_path, prompt), "--out", tmp_path / "out")
    assert done.returncode == 0 and "done, 2 files" in done.stderr, done.stderr
    paths = sorted(map(Path, done.stdout.splitlines()))
    assert [path.name for path in paths] == ["codes_00001_.safetensors", "words_00001_.srt"]
    for path in paths:
        assert path.read_bytes() == (comfy.base / "output" / "fetched" / path.name).read_bytes()
    assert "00:00:01,000 --> " in paths[1].read_text(encoding="utf-8")


def test_bad_lyrics_are_explained(comfy, short, tmp_path):
    lyrics = tmp_path / "lyrics.txt"
    lyrics.write_text("[verze]\nla la", encoding="utf-8")
    settings = ["--set", "LyricsFormatter.mend=false", "--out", tmp_path]
    done = run_program(comfy, "--workflow", short, "--lyrics", lyrics, *settings)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Lyrics: section 1") and "did you mean [verse]?" in done.stderr
    assert not list(tmp_path.glob("*.flac"))


def test_an_output_that_is_left_out_fails_and_stops_the_rest(comfy, tmp_path):
    """HTTP 200: the text preview alone would be made."""
    prompt = song_prompt(GenerateTokens__duration=270.0)
    del prompt["5"]["inputs"]["codes"]
    done = run_program(comfy, "--workflow", written(tmp_path, prompt))
    assert done.returncode == 1 and "Render audio: codes: required input is missing" in done.stderr
    assert not busy(comfy)


def test_a_failure_while_it_runs_names_the_node(comfy, tmp_path):
    """A linked value is not known before."""
    prompt = song_prompt(DescriptionTags__extra=["90", 0])
    prompt["90"] = {"class_type": "PrimitiveString", "inputs": {"value": "bpm 5"}}
    done = run_program(comfy, "--workflow", written(tmp_path, prompt))
    assert done.returncode == 1
    assert "Style: description: bpm 5 is not possible" in done.stderr and "Traceback" not in done.stderr
    messages = list(comfy.get_json("/history").values())[-1]["status"]["messages"]
    assert messages[-1][0] == "execution_error" and "bpm 5" in messages[-1][1]["exception_message"]


def started(words: list[str]) -> subprocess.Popen:
    """A program that hears Ctrl-C, also where these tests run in the background and do not."""

    def hear_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(words, stderr=subprocess.PIPE, encoding="utf-8", preexec_fn=hear_ctrl_c)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_stops_the_song_and_nothing_else(comfy, short, tmp_path):
    long = ["--workflow", short, "--duration", 270, "--seed", 42, "--out", tmp_path]
    process = started(command(comfy, *long))
    try:
        for line in process.stderr:
            if "writing the song" in line:
                break
        waiting = comfy.post("/prompt", {"prompt": song_prompt(GenerateTokens__seed=43)})["prompt_id"]
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(20)
        assert time.monotonic() - pressed < 2
        assert process.returncode == 130 and "cancelled" in process.stderr.read()
    finally:
        process.kill()
    while not (entry := comfy.get_json(f"/history/{waiting}")):
        time.sleep(0.2)
    assert entry[waiting]["status"]["status_str"] == "success"
    assert not list(tmp_path.glob("*.flac"))


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_job_that_waits_is_taken_out_of_the_queue(comfy, short):
    first = comfy.post("/prompt", {"prompt": song_prompt(GenerateTokens__duration=270.0)})["prompt_id"]
    process = started(command(comfy, "--workflow", short))
    try:
        assert "waiting, 1 job before this one" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.wait(20)
        assert process.returncode == 130
        queue = comfy.get_json("/queue")
        assert [item[1] for item in queue["queue_running"]] == [first] and queue["queue_pending"] == []
    finally:
        process.kill()
        comfy.post("/interrupt", {"prompt_id": first})
        while busy(comfy):
            time.sleep(0.1)


def test_a_recording_is_uploaded_and_steers_the_song(comfy, tmp_path):
    pytest.importorskip(
        "demucs", reason="recordings are separated: pip install --no-deps 'demucs>=4.1' einops"
    )
    recording = recordings.write_song(tmp_path / 'Lied für "Zoë" 歌.wav', 4, 8000, channels=1)
    workflow = written(tmp_path, song_prompt("audio_prompt"))
    done = run_program(
        comfy, "--workflow", workflow, "--upload", f"LoadAudio.audio={recording}", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    (sent,) = (p for p in (comfy.base / "input").iterdir() if "歌" in p.name)
    assert sent.read_bytes() == recording.read_bytes()
    assert "prompt of 4.0 s" in done.stderr
    song, clip = sorted(done.stdout.splitlines(), key=lambda p: not Path(p).name.startswith("audio_prompt"))
    listen(song)
    assert len(soundfile.read(clip)[0]) == pytest.approx(4 * 48000, abs=2000)


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.heard.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def webhook() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Hook) as server:
        server.heard = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_hears_of_the_song(comfy, short, tmp_path):
    with webhook() as hook:
        url = f"http://127.0.0.1:{hook.server_port}/done"
        arguments = ["--workflow", short, "--seed", 44, "--out", tmp_path, "--webhook", url]
        done = run_program(comfy, *arguments, SONGGEN_WEBHOOK_SECRET="a key")
    assert done.returncode == 0, done.stderr
    ((headers, body),) = hook.heard
    expected = hmac.new(b"a key", body, hashlib.sha256).hexdigest()
    assert headers["X-SongGen-Signature"] == f"sha256={expected}"
    told = json.loads(body)
    assert told["status"] == "completed" and told["error"] is None
    (file,) = told["output"]
    (path,) = done.stdout.splitlines()
    with urllib.request.urlopen(file["url"]) as answer:
        assert answer.read() == Path(path).read_bytes()


class Wire:
    """Passes connections on to the server, and can cut them all off; newer ones get through."""

    def __init__(self, port: int) -> None:
        self.port, self.pairs = port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            self.pairs.append((near, far))
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for pair in self.pairs:
            for end in pair:
                _hang_up(end)

    def close(self) -> None:
        self.listener.close()
        self.cut()


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def test_a_connection_that_is_cut_off_does_not_lose_the_song(comfy, short, tmp_path):
    with closing(Wire(urlsplit(comfy.url).port)) as wire:
        arguments = ["--server", wire.url, "--workflow", short, "--duration", 20, "--seed", 45]
        arguments += ["--out", tmp_path]
        process = subprocess.Popen(
            command(comfy, *arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        try:
            for line in process.stderr:
                if line == "Write the song\n":
                    break
            wire.cut()
            errors, output = process.stderr.read(), process.stdout.read()
            process.wait(20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "Render audio\n" in errors  # heard over the second websocket
    assert len(soundfile.read(output.strip())[0]) == 20 * 48000


def test_an_unknown_host(comfy, short):
    done = run_program(comfy, "--server", "http://no-such-host.invalid:8188", "--workflow", short)
    assert done.returncode == 1 and done.stderr.startswith("cannot reach http://no-such-host.invalid:8188 (")
