"""Songs from a running ComfyUI, without a browser. One file, no packages needed; copy what you like.

    python api_client.py --lyrics song.txt --tags "female, pop, piano" --model v2-large --seed 7 --out songs
    python api_client.py --workflow audio_prompt.json --upload LoadAudio.audio=hit.mp3 --seed 7
    python api_client.py --server https://gpu.example.com/comfy --workflow anything_in_api_form.json

The paths of the fetched files go to stdout, one a line; all else goes to stderr. Progress within a node
needs `pip install websocket-client`; without it, or where a proxy lets no websocket through, the job is
polled and comes out all the same.

Environment: COMFYUI_AUTHORIZATION is sent as the Authorization header ("Bearer ...", "Basic ...");
SONGGEN_WEBHOOK_SECRET signs what --webhook sends.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 done but the webhook not delivered, 130 cancelled.

As a module:

    from api_client import Client, Job, load_workflow, set_input

    workflow = load_workflow("workflows/api/text_to_song.json")
    set_input(workflow, "GenerateTokens.seed", 7)
    with Client("http://127.0.0.1:8188") as client:
        job = client.run(Job(workflow), on_progress=print)
        print(client.fetch(job, "songs"))
"""

import argparse
import contextlib
import filecmp
import hashlib
import hmac
import http.client
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PureWindowsPath
from typing import Any

try:
    import websocket
except ImportError:
    websocket = None

DEFAULT_WORKFLOW = Path(__file__).parents[1] / "workflows" / "api" / "text_to_song.json"
ENDS = ("execution_success", "execution_error", "execution_interrupted")
CHECK_EVERY = 5.0  # seconds between looks at the queue, whatever the websocket says
PATIENCE = 60.0  # seconds without an answer before a job is given up
HTTP_TIMEOUT = 60.0
WEBHOOK_TIMEOUT, WEBHOOK_PAUSES = 10.0, (1, 2, 4)

Workflow = dict[str, dict[str, Any]]  # API form: node id -> class_type, inputs
OnProgress = Callable[[str], None]


class Failed(Exception):
    """The job or a call was refused, or went wrong; the message tells why."""


class Unreachable(Failed):
    """No answer, or none from ComfyUI itself; may pass."""


class _Refused(Failed):
    """HTTP 400, with the JSON of the answer."""


class Cancelled(Exception):
    """The job was stopped, here or elsewhere."""


# --- Workflows ---


def load_workflow(path: str | Path) -> Workflow:
    """A workflow in API form. Raises ValueError for anything else, OSError."""
    try:
        workflow = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
    nodes = workflow.values() if isinstance(workflow, dict) else ()
    if not nodes or not all(isinstance(n, dict) and "class_type" in n and "inputs" in n for n in nodes):
        raise ValueError(f"{path} is no workflow in API form; the editor saves that with Export (API)")
    return workflow


def title_of(workflow: Workflow, node: str) -> str:
    """What people call a node: its title, else its class."""
    known = workflow.get(node) or workflow.get(node.partition(".")[0], {})  # 4.0.0.2: made by node 4
    return known.get("_meta", {}).get("title") or known.get("class_type") or f"node {node}"


def set_input(workflow: Workflow, address: str, value: Any) -> None:
    """Set `Node.input` in all nodes of that id, title or class; `*` stands for any node that has it typed in,
    or where it is linked everywhere, for those. A text becomes a number or a switch where there is one now.

    Raises ValueError where nothing fits.
    """
    name, _, key = address.partition(".")
    wanted = {name.casefold(), f"songgen{name}".casefold()}
    titles = {id_: title_of(workflow, id_) for id_ in workflow}
    found = [
        node["inputs"]
        for id_, node in workflow.items()
        if name == "*" or wanted & {id_.casefold(), titles[id_].casefold(), node["class_type"].casefold()}
    ]
    if not found:
        raise ValueError(f"{address}: no node is called {name!r}; there are {', '.join(titles.values())}")
    fitting = [inputs for inputs in found if key in inputs]
    if not fitting:
        there = "this workflow has none" if name == "*" else f"{name} has {', '.join(found[0])}"
        raise ValueError(f"{address}: there is no input {key!r}; {there}")
    typed = [inputs for inputs in fitting if not isinstance(inputs[key], list)]
    for inputs in typed if name == "*" and typed else fitting:
        inputs[key] = _like(inputs[key], value, address)


def _like(old: Any, value: Any, address: str) -> Any:
    """A typed text in the type of what was there; numbers, switches and links are written as in JSON."""
    if not isinstance(value, str) or isinstance(old, str):
        return value
    try:
        new = json.loads(value)
    except ValueError:
        new = value
    if isinstance(old, list):
        return new if isinstance(new, list) else value
    is_number = isinstance(new, int | float) and abs(new) < float("inf")  # not NaN, which JSON has not
    if is_number and isinstance(new, bool) == isinstance(old, bool):
        return new  # a fraction for an integer, too: the editor writes 10.0 as 10
    kind = "true or false" if isinstance(old, bool) else "a number"
    raise ValueError(f"{address} is {value!r}; give {kind}, such as {json.dumps(old)}")


# --- The server ---


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


@dataclass
class Job:
    """One run of a workflow; `outputs` (node id -> what it shows) is filled when it is done."""

    workflow: Workflow
    id: str = field(default_factory=lambda: str(uuid.uuid4()))  # our own, to cancel it at any moment
    created_at: str = field(default_factory=now)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def files(self) -> list[dict[str, str]]:
        """Whatever was saved: filename, subfolder and type as /view takes them, and the node."""
        return [
            {"node": title_of(self.workflow, node), **{k: item[k] for k in ("filename", "subfolder", "type")}}
            for node, shown in self.outputs.items()
            for items in shown.values()
            if isinstance(items, list)
            for item in items
            if isinstance(item, dict) and "filename" in item
        ]

    @property
    def texts(self) -> dict[str, str]:
        """What text previews show, by title."""
        shown = {node: output.get("text") for node, output in self.outputs.items()}
        return {title_of(self.workflow, n): "\n".join(map(str, t)) for n, t in shown.items() if t}


def check_address(url: str) -> urllib.parse.SplitResult:
    """The parts of a plain http address. Raises ValueError for anything else."""
    parts = urllib.parse.urlsplit(url)
    if not re.fullmatch("https?://[!-~]+", url) or not parts.hostname or parts.username:
        raise ValueError(f"{url!r} is no address such as https://example.com/path, in ASCII, without a login")
    _ = parts.port  # raises ValueError for one that cannot be
    return parts


class Client:
    """One ComfyUI server. Every call raises Failed, or Unreachable where trying again may help."""

    def __init__(self, server: str, authorization: str | None = None) -> None:
        self.url = (server if "://" in server else f"http://{server}").rstrip("/")
        parts = check_address(self.url)
        if parts.query or parts.fragment:
            raise ValueError(f"{server!r} is no address of a server: it goes on after ? or #")
        if authorization and not (authorization.isascii() and authorization.isprintable()):
            raise ValueError("the authorization has other characters than ASCII; no header can hold them")
        self._id = uuid.uuid4().hex
        self._headers = {"Authorization": authorization} if authorization else {}
        proxies = {} if parts.hostname in ("localhost", "127.0.0.1", "::1") else None  # None: as usual
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler(proxies))
        self._socket: Any = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def call(self, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """GET, or POST of `body`, JSON or bytes of another kind; returns the JSON of the answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with self._open(self.url + path, data, kind) as answer:
            text = answer.read()
        try:
            return json.loads(text or b"{}")
        except ValueError:
            raise Failed(f"{self.url} is no ComfyUI: it answers with {text[:60]!r}") from None

    def upload(self, path: str | Path) -> str:
        """Send a file to the input folder; returns the name that Load Audio knows it by. Also OSError."""
        path, mark = Path(path), secrets.token_hex(16)
        name = path.name.replace("\\", "_").replace('"', "_")
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        saved = self.call("/upload/image", body, f"multipart/form-data; boundary={mark}")
        return "/".join(part for part in (saved["subfolder"], saved["name"]) if part)

    def run(self, job: Job, on_progress: OnProgress = lambda text: None) -> Job:
        """Run a job to its end. Ctrl-C cancels it on the server. Also raises Cancelled."""
        try:
            self.submit(job)
            self.wait(job, on_progress)
        except KeyboardInterrupt:
            on_progress("cancelling")
            self.cancel(job)
            raise Cancelled("cancelled") from None
        return job

    def submit(self, job: Job) -> None:
        """Queue a job. Accepted in part counts as refused: the server would leave out some of the files."""
        self._connect()  # before, so that no message is missed
        body = {"prompt": job.workflow, "client_id": self._id, "prompt_id": job.id}
        try:
            answer = self.call("/prompt", body)
        except _Refused as error:
            raise Failed(refusal(job.workflow, error.args[0])) from None
        if "prompt_id" not in answer:
            raise Failed(f"{self.url} is no ComfyUI: it answers {str(answer)[:200]}")
        job.id = answer["prompt_id"]
        if answer.get("node_errors"):
            self.cancel(job)
            raise Failed(refusal(job.workflow, answer))

    def wait(self, job: Job, on_progress: OnProgress = lambda text: None) -> None:
        """Follow a job to its end. What counts is its history; the websocket only says when to look."""
        seen, news = time.monotonic(), _News(job)
        while True:
            try:
                place = self.place(job)  # first: a job leaves the queue into the history, never back
                entry = self.call(f"/history/{job.id}").get(job.id)
                seen = time.monotonic()
            except Unreachable:
                if time.monotonic() - seen > PATIENCE:
                    raise
                on_progress("no answer from the server, trying again")
                time.sleep(1)
                continue
            if entry:
                return self._finish(job, entry)
            if place is None:
                raise Failed("the server no longer knows the job: it was restarted, or its queue was cleared")
            if place > 0:
                on_progress(f"waiting, {place} job{'s' * (place > 1)} before this one")
            if news.ended:
                time.sleep(0.1)  # the end is told a moment before the history knows of it
            else:
                self._follow(news, on_progress)

    def place(self, job: Job) -> int | None:
        """Jobs before this one; 0 while it runs, None when it is not in the queue."""
        queue = self.call("/queue")
        ids = [item[1] for part in ("queue_running", "queue_pending") for item in sorted(queue[part])]
        return ids.index(job.id) if job.id in ids else None

    def cancel(self, job: Job) -> None:
        """Stop a job, running or not; other jobs go on. Returns when the server has let go of it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.call("/queue", {"delete": [job.id]})
            self.call("/interrupt", {"prompt_id": job.id})  # if it has begun by now
            if self.place(job) is None:
                return
            time.sleep(0.2)
        raise Failed(f"the server goes on with job {job.id} although it was told to stop")

    def fetch(self, job: Job, folder: str | Path) -> list[Path]:
        """All files of a finished job, in `folder`; a file of that name with other content stays."""
        return [self._fetch(file, Path(folder)) for file in job.files]

    def view_url(self, file: dict[str, str]) -> str:
        return f"{self.url}/view?" + urllib.parse.urlencode({k: v for k, v in file.items() if k != "node"})

    @contextlib.contextmanager
    def _open(self, url: str, body: bytes | None = None, kind: str = "") -> Iterator[Any]:
        headers = {**self._headers, "Content-Type": kind} if body else self._headers
        request = urllib.request.Request(url, body, headers)
        try:
            with self._opener.open(request, timeout=HTTP_TIMEOUT) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            raise _of_status(error, url.partition("?")[0]) from None
        except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(f"cannot reach {self.url} ({reason}); does ComfyUI run there?") from None

    def _connect(self) -> None:
        """Open the websocket; without one, jobs are polled."""
        if websocket is None or self._socket is not None:
            return
        url = f"ws{self.url.removeprefix('http')}/ws?clientId={self._id}"
        with contextlib.suppress(OSError, websocket.WebSocketException):
            self._socket = websocket.create_connection(
                url, timeout=CHECK_EVERY, header=self._headers, suppress_origin=True
            )

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(timeout=0)
        self._socket = None

    def _follow(self, news: "_News", on_progress: OnProgress) -> None:
        """Pass on what happens, for a while or until the job has ended."""
        self._connect()  # again, if it was cut off
        if self._socket is None:
            time.sleep(1)
            return
        until = time.monotonic() + CHECK_EVERY
        while not news.ended and (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                message = self._socket.recv()
            except websocket.WebSocketTimeoutException:
                return
            except (OSError, websocket.WebSocketException):
                message = ""
            if not message:  # cut off, or closed in good order
                return self._disconnect()
            if line := news.line(message):
                on_progress(line)

    def _finish(self, job: Job, entry: dict[str, Any]) -> None:
        messages = dict((entry.get("status") or {}).get("messages", ()))
        if "execution_interrupted" in messages:
            raise Cancelled("the job was cancelled on the server")
        if error := messages.get("execution_error"):
            text = error["exception_message"].strip() or error["exception_type"]
            raise Failed(f"{title_of(job.workflow, error['node_id'])}: {text}")
        job.outputs = entry["outputs"]

    def _fetch(self, file: dict[str, str], folder: Path) -> Path:
        name = PureWindowsPath(file["filename"]).name  # its last part on any system
        if not name.strip(" .") or "\0" in name:
            raise Failed(f"the server has a file {file['filename']!r}, which is no name for a file")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as hidden:
            copy = Path(hidden, name)
            with self._open(self.view_url(file)) as answer, copy.open("wb") as stream:
                shutil.copyfileobj(answer, stream)
            size = copy.stat().st_size
            if size != int(answer.headers.get("Content-Length") or size):
                raise Unreachable(f"{name} broke off on its way")
            target = folder / name
            others = (target.with_name(f"{target.stem} ({n}){target.suffix}") for n in itertools.count(2))
            while target.exists() and not filecmp.cmp(target, copy, shallow=False):
                target = next(others)
            return copy.replace(target)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn POST into GET, and take the Authorization along."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _News:
    """Websocket messages -> one line about a job."""

    def __init__(self, job: Job) -> None:
        self.job, self.ended = job, False
        self._node, self._title, self._has_text = "", "", False
        self._since: tuple[float, int] | None = None  # time and number of the first step that was told

    def line(self, message: str | bytes) -> str | None:
        """A line where the message says something new about the job."""
        if isinstance(message, bytes):
            return self._text(message)
        event = json.loads(message)
        kind, data = event["type"], event.get("data") or {}
        if data.get("prompt_id", self.job.id) != self.job.id:
            return None
        self.ended = kind in ENDS
        if kind == "executing" and data.get("node"):
            self._node, self._has_text, self._since = data["node"], False, None
            self._title = title_of(self.job.workflow, data.get("display_node") or data["node"])
            return self._title
        if kind == "progress" and data.get("node") == self._node and not self._has_text:
            return f"{self._title}: {self._steps(data['value'], data['max'])}"
        return None

    def _text(self, message: bytes) -> str | None:
        """Binary type 3: length of the node id, node id, what the node tells. It goes to everybody, but
        only one job runs at a time."""
        end = 8 + int.from_bytes(message[4:8], "big")
        if message[:4] != b"\0\0\0\3" or message[8:end] != self._node.encode():
            return None
        self._has_text = True
        return f"{self._title}: {message[end:].decode(errors='replace')}"

    def _steps(self, done: int, total: int) -> str:
        now = time.monotonic()
        if self._since is None or done < self._since[1]:
            self._since = now, done
        began, first = self._since
        left = round((now - began) / max(1, done - first) * (total - done))
        return f"{done}/{total}" + f", about {left // 60}:{left % 60:02d} left" * (first < done < total)


def _of_status(error: urllib.error.HTTPError, url: str) -> Failed:
    """What an HTTP error means here."""
    with contextlib.suppress(ValueError, OSError):
        if error.code == 400 and isinstance(body := json.loads(error.read()), dict):
            return _Refused(body)
    if error.code >= 500:
        return Unreachable(f"{url} answers with HTTP {error.code} {error.reason}; its log tells more")
    if 300 <= error.code < 400:
        return Failed(f"{url} leads to {error.headers['Location']}; give that server with --server")
    what = {
        401: "put the login of the server into COMFYUI_AUTHORIZATION, such as 'Bearer 123'",
        403: "the server does not let this program in; is COMFYUI_AUTHORIZATION right?",
        404: "there is nothing; is the address right, and the file still in ComfyUI's folder?",
        413: "the file is too large for the server; start ComfyUI with a larger --max-upload-size (MB)",
    }
    return Failed(f"{url}: HTTP {error.code}, {what.get(error.code, error.reason)}")


def refusal(workflow: Workflow, body: dict[str, Any]) -> str:
    """The server's validation errors, one line a mistake: title of the node, and what to change."""
    lines = [
        f"{title_of(workflow, node)}: {_mistake(error)}"
        for node, found in (body.get("node_errors") or {}).items()
        for error in found["errors"]
    ]
    error = body.get("error") or {}
    general = [error] if isinstance(error, str) else [error.get("message"), error.get("details")]
    return "\n".join(dict.fromkeys(lines)) or ", ".join(g for g in general if g) or str(body)[:500]


def _mistake(error: dict[str, Any]) -> str:
    kind, details, info = error["type"], str(error.get("details", "")), error.get("extra_info") or {}
    name, message = info.get("input_name", ""), error["message"].lower()
    if kind in ("custom_validation_failed", "value_not_in_list"):
        return details.removeprefix(f"{name} - ")
    if kind == "exception_during_validation" and info.get("exception_type") == "KeyError":
        return f"an input is linked to node {details}, which is not in the workflow"
    if kind == "invalid_input_type":
        return f"{name} is {info.get('received_value')!r}; {message}"
    return f"{name or details}: {message}"


# --- Webhook ---


def webhook_body(client: Client, job: Job, status: str, error: str | None) -> dict[str, Any]:
    """id, status (completed, failed, cancelled), output, error, created_at, finished_at (ISO 8601, UTC)."""
    output = [{**file, "url": client.view_url(file)} for file in job.files]
    times = {"created_at": job.created_at, "finished_at": now()}
    return {"id": job.id, "status": status, "output": output, "error": error, **times}


def call_webhook(url: str, body: dict[str, Any], secret: str | None = None) -> None:
    """POST `body` as JSON; tries four times. With a secret, X-SongGen-Signature is "sha256=" and the HMAC of
    the bytes sent, in hex. Raises Failed, and ValueError for what is no address."""
    check_address(url)
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    if secret:
        signature = hmac.new(os.fsencode(secret), data, hashlib.sha256).hexdigest()
        headers["X-SongGen-Signature"] = f"sha256={signature}"
    opener = urllib.request.build_opener(_NoRedirect)
    for pause in (*WEBHOOK_PAUSES, None):
        try:
            opener.open(urllib.request.Request(url, data, headers), timeout=WEBHOOK_TIMEOUT).close()
            return
        except (OSError, http.client.HTTPException) as error:
            code = getattr(error, "code", 500)
            if pause is None or (code < 500 and code not in (408, 429)):
                raise Failed(f"webhook {url} was not delivered: {error}") from None
            time.sleep(pause)


# --- Command line ---


class Line:
    """Progress on one line of a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._live, self._stage, self._told = sys.stderr.isatty(), "", 0.0

    def show(self, text: str, stays: bool = False) -> None:
        stage, moment = text.partition(":")[0], time.monotonic()
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            shown, end = (text, "\n") if stays else (text[:width], "")
            print(f"\r{'':{width}}\r{shown}", end=end, file=sys.stderr, flush=True)
        elif stays or stage != self._stage or moment - self._told >= CHECK_EVERY:
            self._stage, self._told = stage, moment
            print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.ArgumentParser:
    summary, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--server", default="http://127.0.0.1:8188", metavar="URL", help="default: %(default)s")
    add("--workflow", type=Path, default=DEFAULT_WORKFLOW, metavar="FILE", help="in API form; text_to_song")
    add("--lyrics", metavar="FILE", help="text file with the lyrics; - reads stdin")
    add("--tags", metavar="TEXT", help='style, such as "female, pop, piano, the bpm is 110"')
    add("--seed", type=int, metavar="N", help="seed of all nodes")
    add("--duration", metavar="SECONDS", help="longest length of the song")
    add("--model", metavar="NAME", help="as Load LeVo Model lists it")
    many = {"type": setting, "action": "append", "default": []}
    add("--set", **many, metavar="NODE.INPUT=VALUE", help="NODE is an id, a title or a class; * is any")
    add("--upload", **many, metavar="NODE.INPUT=FILE", help="send the file, then set the input to it")
    add("--out", type=Path, default=Path("."), metavar="FOLDER", help="where the files go; default: here")
    add("--webhook", metavar="URL", help="POST the outcome there when the job has ended")
    return parser


def prepare(options: argparse.Namespace) -> Workflow:
    """The workflow with all settings put in; uploads are only checked. Raises ValueError, OSError."""
    if options.webhook:
        check_address(options.webhook)
    workflow = load_workflow(options.workflow)
    has_song = any(node["class_type"] == "SongGenSong" for node in workflow.values())
    asked = {"Song.style" if has_song else "GenerateTokens.description": options.tags}
    asked |= {"*.seed": options.seed, "*.duration": options.duration, "*.model": options.model}
    if options.lyrics is not None:
        file = Path(options.lyrics)
        asked["*.lyrics"] = sys.stdin.read() if options.lyrics == "-" else file.read_text("utf-8-sig")
    for address, value in (*asked.items(), *options.set, *options.upload):
        if value is not None:
            set_input(workflow, address, value)
    for address, file in options.upload:
        if not Path(file).is_file():
            raise ValueError(f"{address}: there is no file {file}")
    return workflow


def setting(text: str) -> tuple[str, str]:
    """Node.input=value -> its two sides."""
    address, equals, value = text.partition("=")
    if not equals or "." not in address:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NODE.INPUT=VALUE")
    return address, value


def main(argv: list[str] | None = None) -> int:
    parser, line = arguments(), Line()
    options = parser.parse_args(argv)
    try:
        client = Client(options.server, os.environ.get("COMFYUI_AUTHORIZATION"))
        job = Job(prepare(options))
    except (ValueError, OSError) as problem:
        parser.error(str(problem))
    if websocket is None:
        line.show("progress will be coarse; pip install websocket-client shows more", stays=True)
    paths: list[Path] = []
    code, status, error = 0, "completed", None
    try:
        with client:
            for address, file in options.upload:
                set_input(job.workflow, address, client.upload(file))
            client.run(job, line.show)
            paths = client.fetch(job, options.out)
    except (Cancelled, KeyboardInterrupt) as problem:
        code, status, error = 130, "cancelled", str(problem) or "interrupted"
    except (Failed, OSError) as problem:
        code, status, error = 1, "failed", str(problem)
    for title, text in job.texts.items():
        line.show(f"{title}: {text.strip()}", stays=True)
    line.show(error or f"done, {len(paths)} file{'s' * (len(paths) != 1)}", stays=True)
    for path in paths:
        print(path, flush=True)
    if options.webhook:
        try:
            body = webhook_body(client, job, status, error)
            call_webhook(options.webhook, body, os.environ.get("SONGGEN_WEBHOOK_SECRET"))
        except Failed as problem:
            line.show(str(problem), stays=True)
            code = code or 3
    return code


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # titles in any language on any console
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who stops this program stops the job
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # one more
        sys.exit(130)
