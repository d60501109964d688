"""The calls that a program makes to a ComfyUI server: queue a prompt, listen, fetch files."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
# These run in test_audio_driven_video.py alone, which writes stand-ins of the files that they name.
NEEDS_MODELS = ("song_to_talking_video_wan_humo", "song_to_talking_video_wan_s2v")
SELF_CONTAINED = [name for name in WORKFLOWS if name not in NEEDS_MODELS]
# What ComfyUI 0.33 adds to core nodes of our examples, and what 0.3.64 calls it; both run both forms.
_NEWER_INPUTS = {"CreateVideo": {"bit_depth": None}, "SaveVideo": {"format.codec": "codec"}}
SECONDS_TO_RUN = 420  # of a prompt, on a busy machine

Prompt = dict[str, dict[str, Any]]


class Refused(Exception):
    """The server answered with an error; `body` is its JSON."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"HTTP {status}: {json.dumps(body)[:2000]}")
        self.status, self.body = status, body


@dataclass
class Run:
    """What came over the websocket while a prompt ran."""

    prompt_id: str
    node_errors: dict[str, Any]  # of outputs that were left out; the others ran
    events: list[dict[str, Any]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)  # node id, status text
    previews: list[bytes] = field(default_factory=list)  # JPEG files

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e["data"] for e in self.events if e["type"] == kind]

    @property
    def end(self) -> str:
        return self.events[-1]["type"]

    @property
    def executed(self) -> set[str]:
        """Ids of the nodes that were really run."""
        return {d["node"] for d in self.of("executing") if d.get("node")} - self.cached

    @property
    def cached(self) -> set[str]:
        return {node for d in self.of("execution_cached") for node in d["nodes"]}

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        return {d["node"]: d["output"] for d in self.of("executed")}

    @property
    def error(self) -> dict[str, Any]:
        return self.of("execution_error")[0]


class Client:
    """One server."""

    def __init__(self, url: str, base: Path) -> None:
        self.url, self.base = url, base

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(errors="replace")

    def get(self, path: str, **query: str) -> bytes:
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise Refused(error.code, json.loads(error.read() or b"{}")) from error

    def view(self, file: dict[str, str]) -> bytes:
        return self.get("/view", **{key: file[key] for key in ("filename", "subfolder", "type")})

    def run(
        self,
        prompt: Prompt,
        *,
        workflow: dict[str, Any] | None = None,
        on_event: Callable[[dict[str, Any], str], None] | None = None,
    ) -> Run:
        """Queue `prompt` and listen to its end; `on_event` sees each event and the prompt id."""
        import websocket

        client_id = uuid.uuid4().hex
        socket = websocket.create_connection(f"{self.url.replace('http', 'ws')}/ws?clientId={client_id}")
        try:
            extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
            body = {"prompt": prompt, "client_id": client_id, "extra_data": extra}
            accepted = self.post("/prompt", body)
            run = Run(accepted["prompt_id"], accepted["node_errors"])
            self._listen(socket, run, on_event)
        finally:
            socket.close()
        return run

    def _listen(self, socket: Any, run: Run, on_event: Callable[[dict[str, Any], str], None] | None) -> None:
        end = time.monotonic() + SECONDS_TO_RUN
        while True:
            socket.settimeout(max(0.1, end - time.monotonic()))
            message = socket.recv()
            if isinstance(message, bytes):
                _keep(message, run)
                continue
            event = json.loads(message)
            if event.get("data", {}).get("prompt_id") != run.prompt_id:
                continue
            run.events.append(event)
            if on_event:
                on_event(event, run.prompt_id)
            if event["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                return


def _keep(message: bytes, run: Run) -> None:
    """Binary type 1: a preview, headed by its format. 3: a text, headed by length of node id and node id."""
    kind = int.from_bytes(message[:4], "big")
    if kind == 1:
        run.previews.append(message[8:])
    if kind == 3:
        length = int.from_bytes(message[4:8], "big")
        run.texts.append((message[8 : 8 + length].decode(), message[8 + length :].decode()))


def ui_workflow(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def api_workflow(name: str) -> Prompt:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def as_oldest(prompt: Prompt) -> Prompt:
    """`prompt`, converted from a workflow by any supported ComfyUI, as the oldest one writes it."""
    for node in prompt.values():
        for name, older in _NEWER_INPUTS.get(node["class_type"], {}).items():
            value = node["inputs"].pop(name, None)
            if older and value is not None:
                node["inputs"][older] = value
    return prompt


def quick(prompt: Prompt, model: str = "selftest") -> Prompt:
    """Two seconds of song, two steps of diffusion, by `model` where mini is named."""
    for node in prompt.values():
        if node["inputs"].get("model") == "mini":
            node["inputs"]["model"] = model
        for key, value in {"duration": 2.0, "steps": 2}.items():
            if key in node["inputs"]:
                node["inputs"][key] = value
    return prompt


def song_prompt(workflow: str = "text_to_song", **changes: Any) -> Prompt:
    """An example in API form, short and quick; `changes` such as `GenerateTokens__seed=1` set inputs."""
    prompt = quick(api_workflow(workflow))
    for name, value in changes.items():
        node, key = name.split("__")
        prompt[id_of(prompt, node)]["inputs"][key] = value
    return prompt


def id_of(prompt: Prompt, node: str) -> str:
    """Id of the only node of our class `node` in `prompt`."""
    (found,) = (key for key, value in prompt.items() if value["class_type"] == f"SongGen{node}")
    return found
