"""A real ComfyUI server with this pack in it, one for the whole session, and others for who needs their own.

COMFYUI_PATH is a ComfyUI checkout, COMFYUI_PYTHON the Python that runs it (default: that of the tests).
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from comfy_client import ROOT
from comfy_server import Server, StartComfy, running_comfyui

sys.path.insert(0, str(ROOT / "tests" / "hub"))
from hub_server import HubServer, running_hub

COMFYUI = """
import asyncio, importlib.util, os, sys
sys.path.insert(0, os.getcwd())
import utils.extra_config  # before ComfyUI puts its comfy folder, with a utils.py, on the path
from comfy.cli_args import args
args.cpu = True
import folder_paths, torch
"""
PACK = f"""
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
def start_comfy(
    comfyui_path: Path, comfyui_python: str, tmp_path_factory: pytest.TempPathFactory
) -> StartComfy:
    """Starts a server for a `with` block: start_comfy(*flags, packs=..., environment=...)."""

    def start(*flags: str, **settings: Any) -> AbstractContextManager[Server]:
        base = tmp_path_factory.mktemp("comfy")
        return running_comfyui(comfyui_path, comfyui_python, base, *flags, **settings)

    return start


@pytest.fixture(scope="session")
def comfy(start_comfy: StartComfy, hub: HubServer) -> Iterator[Server]:
    """A server that runs on the CPU."""
    with start_comfy("--cpu", environment=_only(hub)) as server:
        yield server


def _only(hub: HubServer) -> dict[str, str]:
    """Settings that keep downloads on this machine."""
    off = dict.fromkeys(("HF_TOKEN", "HF_HUB_OFFLINE", "SONGGEN_REGISTRY"), "")
    return {**off, "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@pytest.fixture
def in_comfyui(comfyui_path: Path, comfyui_python: str, tmp_path: Path) -> Callable[..., None]:
    """Runs a program in a process of ComfyUI's own Python, with our pack imported, without a server.

    `before` runs after ComfyUI is imported, and before the pack is.
    """

    def run(program: str, before: str = "") -> None:
        folders = f"TMP = {str(tmp_path)!r}\n"
        text = folders + COMFYUI + textwrap.dedent(before) + PACK + textwrap.dedent(program)
        done = subprocess.run(
            [comfyui_python, "-c", text], cwd=comfyui_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    return run
