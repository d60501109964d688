"""samples/api_client.py against a server in a thread that says what ComfyUI would say, or something odd."""

import hashlib
import hmac
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_comfy import GOING_AWAY, LOGIN, SOUND, running_comfy

sys.path.insert(0, str(Path(__file__).parents[2] / "samples"))
import api_client
from api_client import Cancelled, Client, Failed, Job, call_webhook, load_workflow, set_input

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "samples" / "api_client.py"
TEXT_TO_SONG = ROOT / "workflows" / "api" / "text_to_song.json"


@pytest.fixture
def comfy(monkeypatch):
    monkeypatch.setattr(api_client, "CHECK_EVERY", 0.2)
    monkeypatch.setattr(api_client, "PATIENCE", 3)
    monkeypatch.setattr(api_client, "WEBHOOK_PAUSES", (0, 0, 0))
    monkeypatch.setenv("COMFYUI_AUTHORIZATION", LOGIN)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_comfy() as server:
        yield server


@pytest.fixture
def client(comfy):
    with Client(comfy.url, LOGIN) as client:
        yield client


@pytest.fixture
def workflow():
    return load_workflow(TEXT_TO_SONG)


def song(client, workflow, folder, on_progress=lambda text: None):
    """Run and fetch: the only file."""
    (path,) = client.fetch(client.run(Job(workflow), on_progress), folder)
    return path


def test_a_song_is_followed_and_fetched(comfy, client, workflow, tmp_path):
    pytest.importorskip("websocket")
    lines, comfy.looks = [], 1
    path = song(client, workflow, tmp_path / "new", lines.append)
    assert path == tmp_path / "new" / "song_00001_.flac" and path.read_bytes() == SOUND
    assert list(path.parent.iterdir()) == [path]
    assert lines[:2] == ["Write the song", "Write the song: 0/40"]
    assert lines[2].startswith("Write the song: 20/40, about 0:0")
    assert lines[3:] == ["Write the song: writing the song 30/40, about 0:02 left"]
    (sent,) = comfy.prompts
    assert sent["prompt"] == workflow and comfy.connected == 1


def test_without_the_websocket_package_the_job_is_polled(comfy, client, workflow, tmp_path, monkeypatch):
    monkeypatch.setattr(api_client, "websocket", None)
    comfy.looks = 1
    assert song(client, workflow, tmp_path).read_bytes() == SOUND
    assert comfy.connected == 0


def test_without_a_way_for_websockets_the_job_is_polled(comfy, client, workflow, tmp_path):
    comfy.sockets, comfy.looks = False, 2
    assert song(client, workflow, tmp_path).read_bytes() == SOUND


@pytest.mark.parametrize("farewell", [b"", GOING_AWAY], ids=["cut off", "closed"])
def test_a_broken_websocket_is_opened_again(comfy, client, workflow, tmp_path, farewell):
    pytest.importorskip("websocket")
    comfy.breaks, comfy.looks, comfy.farewell = 2, 4, farewell
    assert song(client, workflow, tmp_path).read_bytes() == SOUND
    assert comfy.connected == 3


def test_a_server_may_be_away_for_a_moment(comfy, client, workflow, tmp_path):
    comfy.stumbles, comfy.looks = 1, 1
    lines = []
    assert song(client, workflow, tmp_path, lines.append).read_bytes() == SOUND
    assert "no answer from the server, trying again" in lines and comfy.stumbles == 0


def test_a_server_that_stays_away_ends_the_job(comfy, client, workflow):
    comfy.stumbles = 1000
    with pytest.raises(Failed, match="HTTP 502"):
        client.run(Job(workflow))


def test_a_lost_job_is_noticed(comfy, client, workflow):
    comfy.forgets = True
    with pytest.raises(Failed, match="no longer knows the job"):
        client.run(Job(workflow))


def test_an_error_names_the_node(comfy, client, workflow):
    comfy.ends = "execution_error"
    with pytest.raises(Failed, match=r"^Write the song: no voice$"):
        client.run(Job(workflow))


def test_a_job_that_is_cancelled_in_the_browser(comfy, client, workflow):
    comfy.ends = "execution_interrupted"
    with pytest.raises(Cancelled, match="on the server"):
        client.run(Job(workflow))


def test_ctrl_c_stops_the_job_on_the_server(comfy, client, workflow, monkeypatch):
    """At any moment: here between the answer of the server and the first look at the queue."""
    comfy.looks = 1000
    monkeypatch.setattr(Client, "wait", _press)
    with pytest.raises(Cancelled):
        client.run(Job(workflow))
    assert comfy.deleted == comfy.interrupted == [comfy.id]


def _press(*_):
    raise KeyboardInterrupt


def mistake(kind, message="", details="", **extra):
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


@pytest.mark.parametrize(
    "error, line",
    [
        (
            mistake(
                "custom_validation_failed",
                "Custom validation failed for node",
                "lyrics - section 1",
                input_name="lyrics",
            ),
            "section 1",
        ),
        (
            mistake(
                "value_bigger_than_max", "Value 9 bigger than max of 2", "duration", input_name="duration"
            ),
            "duration: value 9 bigger than max of 2",
        ),
        (
            mistake("value_not_in_list", "Value not in list", "format: 'ogg' not in ['flac']"),
            "format: 'ogg' not in ['flac']",
        ),
        (
            mistake("required_input_missing", "Required input is missing", "codes", input_name="codes"),
            "codes: required input is missing",
        ),
        (
            mistake(
                "invalid_input_type",
                "Failed to convert",
                "duration, x, no",
                input_name="duration",
                received_value="x",
            ),
            "duration is 'x'; failed to convert",
        ),
        (
            mistake(
                "exception_during_validation",
                "Exception when validating node",
                "'77'",
                exception_type="KeyError",
            ),
            "an input is linked to node '77', which is not in the workflow",
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("status", [200, 400])
def test_refusals_are_told_by_title(comfy, client, workflow, error, line, status):
    """With HTTP 200 the rest of the workflow is running: it is stopped."""
    errors = {"4": {"errors": [error, error], "class_type": "SongGenGenerateTokens"}}
    comfy.status, comfy.answer = status, {"error": {"message": "outputs failed"}, "node_errors": errors}
    with pytest.raises(Failed) as caught:
        client.run(Job(workflow))
    assert str(caught.value) == f"Write the song: {line}"
    assert comfy.interrupted == ([comfy.id] if status == 200 else [])


def test_a_refusal_as_a_whole(comfy, client, workflow):
    comfy.status = 400
    comfy.answer = {"error": {"message": "Node 'X' not found.", "details": "Node ID '#5'"}, "node_errors": {}}
    with pytest.raises(Failed, match=r"^Node 'X' not found., Node ID '#5'$"):
        client.run(Job(workflow))


def test_other_files_of_that_name_are_kept(comfy, client, workflow, tmp_path):
    (tmp_path / "song_00001_.flac").write_bytes(b"mine")
    first = song(client, workflow, tmp_path)
    assert first.name == "song_00001_ (2).flac" and first.read_bytes() == SOUND
    assert song(client, workflow, tmp_path) == first  # the same content again
    assert (tmp_path / "song_00001_.flac").read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["../../song.flac", "..\\..\\song.flac", "/etc/song.flac", "C:\\song.flac"])
def test_files_stay_in_the_folder(comfy, client, workflow, tmp_path, name):
    comfy.files = [{"filename": name, "subfolder": ""}]
    assert song(client, workflow, tmp_path / "a" / "b") == tmp_path / "a" / "b" / "song.flac"


@pytest.mark.parametrize("name", ["", "/", ".", "..", "a/..", "...", "C:", "a\0b"])
def test_a_file_without_a_name_is_refused(comfy, client, workflow, tmp_path, name):
    comfy.files = [{"filename": name, "subfolder": ""}]
    with pytest.raises(Failed, match="is no name for a file"):
        song(client, workflow, tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if path.name != "out"] == []


def test_half_a_file_is_no_file(comfy, client, workflow, tmp_path):
    comfy.announced += 1
    with pytest.raises(Failed):
        song(client, workflow, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_set_by_id_title_class_and_everywhere(workflow):
    set_input(workflow, "4.seed", "7")
    set_input(workflow, "render AUDIO.steps", "3")
    set_input(workflow, "GenerateTokens.temperature", "0.5")
    set_input(workflow, "SongGenLyricsFormatter.mend", "false")
    set_input(workflow, "SaveAudio.format", "mp3")
    set_input(workflow, "DescriptionTags.extra", "12")
    inputs = {id_: node["inputs"] for id_, node in workflow.items()}
    assert (inputs["4"]["seed"], inputs["5"]["seed"]) == (7, 1234)
    assert (inputs["5"]["steps"], inputs["4"]["temperature"]) == (3, 0.5)
    assert inputs["2"]["mend"] is False and inputs["6"]["format"] == "mp3" and inputs["3"]["extra"] == "12"
    set_input(workflow, "*.seed", 9)
    assert inputs["4"]["seed"] == inputs["5"]["seed"] == 9
    set_input(workflow, "*.lyrics", "[verse]\nla")
    assert inputs["2"]["lyrics"] == "[verse]\nla" and inputs["4"]["lyrics"] == ["2", 0]
    set_input(workflow, "*.description", "female, pop")
    assert inputs["4"]["description"] == "female, pop"
    set_input(workflow, "4.lyrics", '["90", 1]')
    assert inputs["4"]["lyrics"] == ["90", 1]


@pytest.mark.parametrize(
    "address, value, words",
    [
        ("Tokens.seed", "1", "no node is called 'Tokens'; there are Load model, Lyrics,"),
        ("4.sed", "1", "no input 'sed'; 4 has seed, duration"),
        ("*.sed", "1", "this workflow has none"),
        ("4.seed", "x", "4.seed is 'x'; give a number, such as 1234"),
        ("4.seed", "true", "give a number"),
        ("4.seed", "NaN", "4.seed is 'NaN'; give a number"),
        ("4.duration", "1e999", "give a number"),
        ("2.mend", "1", "give true or false"),
    ],
)
def test_settings_that_fit_nowhere(workflow, address, value, words):
    before = json.dumps(workflow)
    with pytest.raises(ValueError) as caught:
        set_input(workflow, address, value)
    assert words in str(caught.value) and json.dumps(workflow) == before


def run_program(comfy, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(PROGRAM), "--server", comfy.url, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", **environment},
    )


def test_the_program(comfy, tmp_path):
    lyrics, recording = tmp_path / "lyrics.txt", tmp_path / "hit.mp3"
    lyrics.write_text("\ufeff[verse]\n晨光", encoding="utf-8")
    recording.write_bytes(b"ID3")
    workflow = load_workflow(ROOT / "workflows" / "api" / "audio_prompt.json")
    workflow["5"]["_meta"]["title"] = "写歌"
    (tmp_path / "w.json").write_text(json.dumps(workflow), encoding="utf-8")
    settings = ["--tags", "female, pop", "--seed", 7, "--duration", 12.5, "--model", "large"]
    settings += ["--set", "SaveAudio.format=mp3", "--upload", f"LoadAudio.audio={recording}"]
    out = tmp_path / "out"
    done = run_program(comfy, "--workflow", tmp_path / "w.json", "--lyrics", lyrics, "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'song_00001_.flac'}\n"
    assert "10.0 s of song" in done.stderr and "done, 1 file" in done.stderr
    nodes = {
        n["class_type"].removeprefix("SongGen"): n["inputs"] for n in comfy.prompts[0]["prompt"].values()
    }
    tokens = nodes["GenerateTokens"]
    assert (tokens["seed"], tokens["duration"], tokens["description"]) == (7, 12.5, "female, pop")
    assert nodes["LyricsFormatter"]["lyrics"] == "[verse]\n晨光" and nodes["SaveAudio"]["format"] == "mp3"
    assert nodes["LoadLeVoModel"]["model"] == "large" and nodes["LoadAudio"]["audio"] == "hit (1).mp3"
    (upload,) = comfy.uploads
    assert b'name="image"; filename="hit.mp3"' in upload and b"\r\n\r\nID3\r\n--" in upload


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--workflow", ROOT / "workflows" / "text_to_song.json"], "Export (API)"),
        (["--workflow", PROGRAM], "is no JSON file"),
        (["--workflow", "nowhere.json"], "nowhere.json"),
        (["--lyrics", "nowhere.txt"], "nowhere.txt"),
        (["--upload", "SaveAudio.filename_prefix=nowhere.wav"], "there is no file nowhere.wav"),
        (["--set", "nonsense"], "NODE.INPUT=VALUE"),
        (["--set", "4.sed=1"], "no input 'sed'"),
        (["--server", "ftp://x"], "is no address"),
        (["--webhook", "example.com/done"], "is no address"),
        (["--server", "http://me:secret@x"], "is no address"),
        (["--server", "http://127.0.0.1:9/é"], "is no address"),
        (["--server", "http://127.0.0.1:99999"], "ort out of range"),
        (["--webhook", "http://127.0.0.1:9/é"], "is no address"),
        (["--duration", "nan"], "*.duration is 'nan'; give a number"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(comfy, arguments, words):
    done = run_program(comfy, *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert comfy.prompts == []


def test_a_wrong_login_and_a_wrong_path(comfy):
    refused = run_program(comfy, COMFYUI_AUTHORIZATION="Basic wrong")
    assert refused.returncode == 1 and "COMFYUI_AUTHORIZATION" in refused.stderr
    lost = run_program(comfy, "--server", comfy.url + "/deeper")
    assert lost.returncode == 1 and "HTTP 404" in lost.stderr and "Traceback" not in lost.stderr


def test_a_login_that_no_header_can_hold(comfy):
    done = run_program(comfy, COMFYUI_AUTHORIZATION="Bearer 芝麻")
    assert done.returncode == 2 and "other characters than ASCII" in done.stderr
    assert "Traceback" not in done.stderr and comfy.prompts == []
    with pytest.raises(ValueError, match="ASCII"):
        Client(comfy.url, LOGIN + "\n")


def test_a_redirect_is_not_followed(comfy):
    with pytest.raises(Failed, match=f"leads to {comfy.url}/queue"):
        Client(comfy.url.replace("/comfy", "/elsewhere"), LOGIN).call("/queue")


def test_https_and_a_login(comfy, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", *files, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    comfy.socket, comfy.looks = context.wrap_socket(comfy.socket, server_side=True), 1
    server = ["--server", comfy.url.replace("http", "https"), "--out", tmp_path]
    stranger = run_program(comfy, *server)
    assert stranger.returncode == 1 and "CERTIFICATE_VERIFY_FAILED" in stranger.stderr
    done = run_program(comfy, *server, SSL_CERT_FILE=str(certificate))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "song_00001_.flac").read_bytes() == SOUND
    assert comfy.connected == (api_client.websocket is not None)


def test_an_unknown_host_and_a_closed_port(comfy):
    for server in ("http://no-such-host.invalid:8188", "127.0.0.1:9"):
        done = run_program(comfy, "--server", server)
        assert done.returncode == 1 and "cannot reach" in done.stderr and "Traceback" not in done.stderr


def signature(body: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_the_webhook_hears_of_the_end(comfy, tmp_path):
    comfy.hooks = [500, 429]
    done = run_program(comfy, "--out", tmp_path, "--webhook", comfy.hook, SONGGEN_WEBHOOK_SECRET="key")
    assert done.returncode == 0, done.stderr
    assert len(comfy.hooked) == 3
    headers, body = comfy.hooked[-1]
    assert headers["X-Songgen-Signature"] == signature(body, "key") and "Authorization" not in headers
    told = json.loads(body)
    assert (told["id"], told["status"], told["error"]) == (comfy.id, "completed", None)
    (file,) = told["output"]
    assert file["filename"] == "song_00001_.flac" and file["url"].startswith(comfy.url + "/view?filename=")
    assert told["created_at"] <= told["finished_at"] and told["created_at"].endswith("+00:00")


def test_the_webhook_hears_of_failures(comfy, tmp_path):
    comfy.ends = "execution_error"
    done = run_program(comfy, "--out", tmp_path, "--webhook", comfy.hook)
    assert done.returncode == 1
    ((headers, body),) = comfy.hooked
    assert "X-Songgen-Signature" not in headers
    told = json.loads(body)
    assert (told["status"], told["error"], told["output"]) == ("failed", "Write the song: no voice", [])


def test_a_webhook_that_refuses_does_not_hide_the_song(comfy, tmp_path):
    comfy.hooks = [404]
    done = run_program(comfy, "--out", tmp_path, "--webhook", comfy.hook)
    assert done.returncode == 3 and "was not delivered" in done.stderr
    assert len(comfy.hooked) == 1 and done.stdout == f"{tmp_path / 'song_00001_.flac'}\n"


def test_a_webhook_at_no_address():
    with pytest.raises(ValueError, match="is no address"):
        call_webhook("http://127.0.0.1:9/é", {})


def test_a_webhook_secret_of_any_bytes(comfy):
    call_webhook(comfy.hook, {}, os.fsdecode(b"\xff"))
    ((headers, body),) = comfy.hooked
    assert headers["X-Songgen-Signature"] == "sha256=" + hmac.new(b"\xff", body, hashlib.sha256).hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def hear_ctrl_c() -> None:
    """For a program that is started where these tests run in the background, and do not hear it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("press", [signal.SIGINT, signal.SIGTERM])
def test_signals_cancel(comfy, tmp_path, press):
    comfy.looks = 10**6
    command = [sys.executable, str(PROGRAM), "--server", comfy.url, "--webhook", comfy.hook]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", preexec_fn=hear_ctrl_c
    )
    try:
        assert comfy.job.wait(20)
        time.sleep(0.2)
        process.send_signal(press)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130 and "cancelled" in errors and "Traceback" not in errors
    assert comfy.id in comfy.deleted and comfy.id in comfy.interrupted
    assert json.loads(comfy.hooked[0][1])["status"] == "cancelled"
