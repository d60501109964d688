"""A real ComfyUI server with this pack in it, one for the whole session.

COMFYUI_PATH is a ComfyUI checkout, COMFYUI_PYTHON the Python that runs it (default: that of the tests).
"""

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from comfy_client import ROOT, Client

sys.path.insert(0, str(ROOT / "tests" / "hub"))
from hub_server import HubServer, running_hub

FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
SECONDS_TO_START = 180
PRELUDE = f"""
import asyncio, importlib.util, os, sys
sys.path.insert(0, os.getcwd())
import utils.extra_config  # before ComfyUI puts its comfy folder, with a utils.py, on the path
from comfy.cli_args import args
args.cpu = True
import folder_paths, torch
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r},
                                              submodule_search_locations=[{str(ROOT)!r}])
pack = importlib.util.module_from_spec(spec); sys.modules["pack"] = pack; spec.loader.exec_module(pack)
extension = asyncio.run(pack.comfy_entrypoint())
nodes = {{n.GET_SCHEMA().node_id.removeprefix("SongGen"): n for n in asyncio.run(extension.get_node_list())}}
from pack.nodes import codec, generate, host, loaders, prompts, save, sockets, stems
from pack.songgen_core import VARIANTS, Progress, UserError

def message(call, *values):
    try:
        call(*values)
    except UserError as error:
        assert "\\n" not in str(error)
        return str(error)
    raise AssertionError("no error")
"""


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        pytest.skip("COMFYUI_PATH is not set; it names a ComfyUI checkout")
    return Path(path)


@pytest.fixture(scope="session")
def comfyui_python() -> str:
    return os.environ.get("COMFYUI_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """What the server takes for huggingface.co."""
    with running_hub() as server:
        yield server


@pytest.fixture(scope="session")
def comfy(
    comfyui_path: Path, comfyui_python: str, tmp_path_factory: pytest.TempPathFactory, hub: HubServer
) -> Iterator[Client]:
    """Client of a server that runs on the CPU in a folder of its own."""
    base = tmp_path_factory.mktemp("comfy")
    for name in FOLDERS:
        (base / name).mkdir()
    (base / "custom_nodes" / "songgen").symlink_to(ROOT, target_is_directory=True)
    port = _free_port()
    command = [comfyui_python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
    command += ["--disable-api-nodes", "--dont-print-server"]
    log = base / "server.log"
    with log.open("w") as file:
        # One thread: on a busy machine several wait for each other most of the time.
        process = subprocess.Popen(
            command,
            cwd=comfyui_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", **os.environ, **_only(hub)},
        )
        client = Client(f"http://127.0.0.1:{port}", base)
        try:
            _wait_until_it_answers(client, process, log)
            yield client
        finally:
            process.terminate()
            process.wait(30)


def _only(hub: HubServer) -> dict[str, str]:
    """Settings that keep downloads on this machine."""
    off = dict.fromkeys(("HF_TOKEN", "HF_HUB_OFFLINE", "SONGGEN_REGISTRY"), "")
    return {**off, "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_it_answers(client: Client, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"ComfyUI ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            client.get_json("/system_stats")
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"ComfyUI did not answer within {SECONDS_TO_START} s:\n{log.read_text()[-4000:]}")


@pytest.fixture
def in_comfyui(comfyui_path: Path, comfyui_python: str, tmp_path: Path) -> Callable[[str], None]:
    """Runs a program in a process of ComfyUI's own Python, with our pack imported, without a server."""

    def run(program: str) -> None:
        folders = f"TMP = {str(tmp_path)!r}\n"
        text = folders + PRELUDE + textwrap.dedent(program)
        done = subprocess.run(
            [comfyui_python, "-c", text], cwd=comfyui_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    return run
