"""A small Hub on 127.0.0.1: it answers as huggingface.co does, redirects to a second port as to a CDN, and
can be made to misbehave."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import randbytes
from urllib.parse import unquote

from songgen_core.hub.download import DownloadPlan, download, plan_download
from songgen_core.hub.licence import accept
from songgen_core.hub.registry import Registry, Release, RemoteFile
from songgen_core.hub.transfer import Patience

LFS = 1000  # bytes from which a file is kept outside git
PIECE = 16384


@dataclass
class Trouble:
    """What goes wrong with requests whose path holds `where`, the next `times` of them.

    `status` and `silent` stand for the answer, of `method` only and from the CDN only if said so; the others
    spoil the bytes of a GET.
    """

    where: str = ""
    times: int = 1_000_000
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    method: str | None = None
    cdn: bool = False
    drop_after: int | None = None  # bytes of the body
    stall_after: int | None = None  # bytes of the body
    slow: float = 0.0  # seconds between two pieces
    no_range: bool = False
    shift: int = 0  # a wrong place of a part: so many bytes further on than was asked for
    body: bytes | None = None  # sent instead
    length: int | None = None  # told instead

    @property
    def is_refusal(self) -> bool:
        return self.status is not None or self.silent


@dataclass(frozen=True)
class Seen:
    """One request, and how many bytes of body it was sent."""

    method: str
    path: str
    headers: dict[str, str]
    is_cdn: bool
    sent: list[int]


class HubServer:
    """`files` holds (repository with "spaces/" if it is one, path) -> bytes."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.troubles: list[Trouble] = []
        self.seen: list[Seen] = []
        self.released = threading.Event()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler(cdn)) for cdn in (False, True)]
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def put(self, repo: str, path: str, data: bytes) -> None:
        self.files[repo, path] = data

    def trouble(self, **what) -> Trouble:
        self.troubles.append(Trouble(**what))
        return self.troubles[-1]

    def well_again(self) -> None:
        self.troubles.clear()

    def gets(self, part: str = "") -> list[Seen]:
        """Requests for the bytes of a file."""
        return [s for s in self.seen if s.method == "GET" and part in s.path and (s.is_cdn or s.sent[0])]

    @property
    def sent(self) -> int:
        return sum(seen.sent[0] for seen in self.seen)

    def _take(self, path: str, method: str, cdn: bool, refusal: bool) -> Trouble:
        for trouble in self.troubles:
            meant = trouble.method in (None, method) and (trouble.cdn == cdn or not refusal)
            if trouble.is_refusal == refusal and trouble.where in path and trouble.times > 0 and meant:
                trouble.times -= 1
                return trouble
        return Trouble()

    def _handler(self, cdn: bool) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def _answer(self) -> None:
                path = unquote(self.path)
                seen = Seen(self.command, path, dict(self.headers.items()), cdn, [0])
                hub.seen.append(seen)
                repo, _, rest = path.lstrip("/").partition("/resolve/")
                data = hub.files.get((repo, rest.partition("/")[2]))
                trouble = hub._take(path, self.command, cdn, refusal=True)
                if trouble.silent:
                    hub.released.wait(30)
                    self.close_connection = True
                elif trouble.status is not None:
                    self._refuse(trouble.status, trouble.headers)
                elif data is None:
                    self._refuse(404, {"X-Error-Code": "EntryNotFound"})
                elif not cdn and len(data) >= LFS:
                    self._redirect(path, data)
                elif self.command == "HEAD":
                    self._send(data, Trouble(), seen)
                else:
                    self._send(data, hub._take(path, self.command, cdn, refusal=False), seen)

            def _refuse(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def _redirect(self, path: str, data: bytes) -> None:
                self.send_response(302)
                self.send_header("Location", f"{hub.cdn}{path}")
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("X-Linked-Size", str(len(data)))
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _send(self, data: bytes, trouble: Trouble, seen: Seen) -> None:
                whole = data if trouble.body is None else trouble.body
                start = 0
                if (asked := self.headers.get("Range")) and not trouble.no_range:
                    start = int(asked.removeprefix("bytes=").partition("-")[0]) + trouble.shift
                if start and start >= len(whole):
                    self._refuse(416, {"Content-Range": f"bytes */{len(whole)}"})
                    return
                body = whole[start:]
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
                self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header(
                    "Content-Length", str(len(body) if trouble.length is None else trouble.length)
                )
                self.end_headers()
                if self.command == "GET":
                    self._body(body, trouble, seen)

            def _body(self, body: bytes, trouble: Trouble, seen: Seen) -> None:
                limits = [n for n in (trouble.drop_after, trouble.stall_after) if n is not None]
                try:
                    for at in range(0, min([len(body), *limits]), PIECE):
                        piece = body[at : min([at + PIECE, *limits])]
                        self.wfile.write(piece)
                        seen.sent[0] += len(piece)
                        time.sleep(trouble.slow)
                    if trouble.stall_after is not None:
                        hub.released.wait(30)
                except OSError:
                    pass  # the client has hung up
                if limits or trouble.length is not None:
                    self.close_connection = True

        return Handler


@contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def forget_settings(monkeypatch) -> None:
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "SONGGEN_REGISTRY", "SONGGEN_MODELS"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Toy:
    """A variant of random bytes on the server; only its model.pt is large."""

    hub: HubServer
    root: Path
    registry: Registry
    model: bytes

    @property
    def path(self) -> Path:
        return self.root / "songgeneration_toy" / "model.pt"

    @property
    def parts(self) -> list[Path]:
        return list(self.root.rglob("*.part"))

    @property
    def files(self) -> set[str]:
        """What is visible under the root."""
        return {
            str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file() and p.name[0] != "."
        }

    def plan(self, *features: str) -> DownloadPlan:
        return plan_download("toy", features, self.root, [], self.registry)

    def get(self, **options) -> list[Path]:
        return download(self.plan(), **{"patience": IMPATIENT, **options})

    def change(self, **entries) -> None:
        """Other entries of model.pt in the registry."""
        release = self.registry.releases["toy"]
        files = tuple(replace(f, **entries) if f.name == "model.pt" else f for f in release.files)
        self.registry = replace(self.registry, releases={"toy": replace(release, files=files)})


ALL_FILES = {"songgeneration_toy/config.yaml", "songgeneration_toy/model.pt", "codec.pt", "vae.pt"}
IMPATIENT = Patience(attempts=3, silence=0.6, pause=0.01, longest_wait=1.0)
TOY_BYTES = 400_000


def make_toy(hub: HubServer, root: Path) -> Toy:
    contents = {"config.yaml": b"x: 1\n", "model.pt": randbytes(TOY_BYTES), "codec.pt": randbytes(5000)}
    contents |= {"vae.pt": randbytes(3000), "presets.pt": randbytes(2000), "htdemucs.pth": randbytes(2000)}
    files = {}
    for name, data in contents.items():
        repo_type = "space" if name == "presets.pt" else "model"
        hub.put("spaces/o/toy" if repo_type == "space" else "o/toy", name, data)
        sha256 = hashlib.sha256(data).hexdigest()
        files[name] = RemoteFile("o/toy", "main", name, name, len(data), sha256, repo_type)
    kinds = {"codec": "codec.pt", "vae": "vae.pt", "presets": "presets.pt", "separator": "htdemucs.pth"}
    shared = {kind: replace(files[name], kind=kind) for kind, name in kinds.items()}
    own = [replace(files[n], target=f"songgeneration_toy/{n}") for n in ("config.yaml", "model.pt")]
    release = Release("toy", (own[0], replace(own[1], kind="lm")))
    accept(root)
    return Toy(hub, root, Registry({"toy": release}, shared), contents["model.pt"])
