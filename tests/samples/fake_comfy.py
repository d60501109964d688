"""The part of ComfyUI that a client talks to, as a server in a thread; behind a path prefix, with a login."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX, LOGIN = "/comfy", "Bearer open sesame"
SOUND = b"fLaC" + bytes(range(256)) * 40
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GOING_AWAY = b"\x88\x02" + (1001).to_bytes(2, "big")  # a closing websocket frame


def frame(content: bytes, kind: int) -> bytes:
    """An unmasked websocket frame; `kind` is 1 for text, 2 for binary."""
    size = len(content)
    head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([0x80 | kind]) + head + content


def event(kind: str, **data: Any) -> bytes:
    return frame(json.dumps({"type": kind, "data": data}).encode(), 1)


def told(node: str, text: str) -> bytes:
    """What a node tells: binary message of type 3."""
    name = node.encode()
    return frame((3).to_bytes(4, "big") + len(name).to_bytes(4, "big") + name + text.encode(), 2)


class FakeComfy(ThreadingHTTPServer):
    """Settings first, then what came in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: dict[str, Any] = {"node_errors": {}}
        self.status = 200  # of /prompt
        self.sockets = True  # whether /ws is let through
        self.breaks = 0  # websockets that are cut off after their first messages
        self.farewell = b""  # what is sent before they are
        self.looks = 0  # at the history, until the job is there
        self.ends = "execution_success"
        self.forgets = False
        self.stumbles = 0  # calls that get HTTP 502
        self.files: list[dict[str, Any]] = [{"filename": "song_00001_.flac", "subfolder": "songgen"}]
        self.content, self.announced = SOUND, len(SOUND)
        self.hooks: list[int] = []  # HTTP codes that the webhook answers, 200 when they are used up

        self.prompts: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.interrupted: list[str] = []
        self.uploads: list[bytes] = []
        self.hooked: list[tuple[dict[str, str], bytes]] = []
        self.connected = 0
        self.job = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{PREFIX}"

    @property
    def hook(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    @property
    def id(self) -> str:
        return self.prompts[-1]["prompt_id"]

    @property
    def stopped(self) -> bool:
        return bool(self.prompts) and self.id in self.interrupted

    def messages(self) -> list[bytes]:
        id_ = self.id
        return [
            event("status", status={}),
            event("execution_start", prompt_id="another"),
            event("executing", prompt_id=id_, node="4"),
            told("9", "of another node"),
            event("progress", prompt_id=id_, node="4", value=0, max=40),
            event("progress", prompt_id=id_, node="4", value=20, max=40),
            told("4", "writing the song 30/40, about 0:02 left"),
            event("progress", prompt_id=id_, node="4", value=31, max=40),
            event(self.ends, prompt_id=id_),
        ]

    def history(self) -> dict[str, Any]:
        if not self.prompts or self.forgets:
            return {}
        if self.stopped:
            return {self.id: {"outputs": {}, "status": _status("execution_interrupted")}}
        self.looks -= 1
        if self.looks >= 0:
            return {}
        shown = [{"type": "output", **file} for file in self.files]
        outputs = {"6": {"audio": shown}, "7": {"text": ["10.0 s of song"]}} if shown else {}
        error = {"node_id": "4.0.0.1", "exception_message": "no voice\n", "exception_type": "ValueError"}
        return {self.id: {"outputs": outputs, "status": _status(self.ends, **error)}}

    def queue(self) -> dict[str, Any]:
        running = bool(self.prompts) and not (self.forgets or self.stopped) and self.looks > 0
        return {"queue_running": [[1, self.id, {}]] if running else [], "queue_pending": []}


def _status(kind: str, **data: Any) -> dict[str, Any]:
    return {"status_str": kind, "messages": [["execution_start", {}], [kind, data]]}


class _Handler(BaseHTTPRequestHandler):
    server: FakeComfy

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def _serve(self, body: bytes) -> None:
        server, path = self.server, urlsplit(self.path).path
        if path == "/hook":
            server.hooked.append((dict(self.headers), body))
            return self._send(b"", server.hooks.pop(0) if server.hooks else 200)
        if path == "/elsewhere/queue":
            return self._send(b"", 302, Location=f"{server.url}/queue")
        if self.headers["Authorization"] != LOGIN:
            return self._send(b"", 401)
        with server.lock:
            if server.stumbles and server.prompts:
                server.stumbles -= 1
                return self._send(b"", 502)
        call = {
            "/ws": self._socket,
            "/prompt": self._prompt,
            "/view": self._view,
            "/upload/image": self._upload,
        }
        call |= {"/queue": self._queue, "/interrupt": self._interrupt}
        path = path.removeprefix(PREFIX)
        if path.startswith("/history/"):
            return self._json(server.history())
        if path not in call:
            return self._send(b"<html>nothing here", 404)
        return call[path](body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _prompt(self, body: bytes) -> None:
        asked = json.loads(body)
        if self.server.status == 200:
            self.server.prompts.append(asked)
            self.server.job.set()
        self._json({"prompt_id": asked["prompt_id"], **self.server.answer}, self.server.status)

    def _queue(self, body: bytes) -> None:
        if body:
            self.server.deleted += json.loads(body)["delete"]
            return self._send(b"")
        return self._json(self.server.queue())

    def _interrupt(self, body: bytes) -> None:
        self.server.interrupted.append(json.loads(body)["prompt_id"])
        self._send(b"")

    def _view(self, _: bytes) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        assert set(query) == {"filename", "subfolder", "type"}
        self._send(self.server.content, **{"Content-Length": str(self.server.announced)})

    def _upload(self, body: bytes) -> None:
        self.server.uploads.append(body)
        self._json({"name": "hit (1).mp3", "subfolder": "", "type": "input"})

    def _socket(self, _: bytes) -> None:
        server = self.server
        if not server.sockets or self.headers["Origin"]:  # behind a proxy it would not be that of the host
            return self._send(b"", 403)
        server.connected += 1
        key = base64.b64encode(hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + MAGIC).digest())
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + key + b"\r\n\r\n"
        )
        if not server.job.wait(5) or server.stopped:
            return None
        messages = server.messages()
        if server.breaks:
            server.breaks -= 1
            messages = [*messages[:3], server.farewell]
        self.wfile.write(b"".join(messages))
        if len(messages) > 4:
            self.connection.settimeout(5)
            self.rfile.read(1)  # until the client goes
        self.close_connection = True
        return None


@contextmanager
def running_comfy() -> Iterator[FakeComfy]:
    server = FakeComfy()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
