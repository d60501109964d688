"""ComfyUI servers of our own: any flags, any packs, in a folder with a temporary directory of its own."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from comfy_client import ROOT, Client

FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user", "tmp")
SECONDS_TO_START = 180
STUB_MODELS, STUB_CARD = (Path(__file__).parent / name for name in ("stub_model_pack", "stub_card_pack"))

StartComfy = Callable[..., AbstractContextManager["Server"]]


class Server(Client):
    """A client, and the process that it talks to."""

    def __init__(self, url: str, base: Path, process: subprocess.Popen) -> None:
        super().__init__(url, base)
        self.process = process

    @property
    def resident_mb(self) -> float:
        """Memory of the process that is in RAM (VmRSS)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ProcessLookupError(f"the server {self.process.pid} has ended:\n{self.log[-4000:]}")

    @property
    def our_tracebacks(self) -> list[str]:
        """Those in the log that go through our code; ComfyUI's database may have some of its own."""
        found = re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+.*", self.log)
        return [text for text in found if "custom_nodes/songgen/" in text]

    def files(self) -> set[str]:
        """All files below the folders that a run may write to, relative to the base."""
        return {
            path.relative_to(self.base).as_posix()
            for folder in FOLDERS[2:]
            for path in (self.base / folder).rglob("*")
            if path.is_file()
        }


@contextmanager
def running_comfyui(
    comfyui: Path,
    python: str,
    base: Path,
    *flags: str,
    packs: Sequence[Path] = (ROOT,),
    environment: dict[str, str] | None = None,
) -> Iterator[Server]:
    """A server on a free port; ours among `packs` is linked, others are copied."""
    for name in FOLDERS:
        (base / name).mkdir()
    for pack in packs:
        if pack == ROOT:
            (base / "custom_nodes" / "songgen").symlink_to(ROOT, target_is_directory=True)
        else:
            shutil.copytree(pack, base / "custom_nodes" / pack.name)
    port = _free_port()
    command = [python, "main.py", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
    command += ["--disable-api-nodes", "--dont-print-server", *flags]
    log = base / "server.log"
    with log.open("w") as file:
        # One thread: on a busy machine several wait for each other most of the time.
        process = subprocess.Popen(
            command,
            cwd=comfyui,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", **os.environ, "TMPDIR": str(base / "tmp"), **(environment or {})},
        )
        server = Server(f"http://127.0.0.1:{port}", base, process)
        try:
            _wait_until_it_answers(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_it_answers(server: Server) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        if server.process.poll() is not None:
            pytest.fail(f"ComfyUI ended with {server.process.returncode}:\n{server.log[-4000:]}")
        try:
            server.get_json("/system_stats")
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"ComfyUI did not answer within {SECONDS_TO_START} s:\n{server.log[-4000:]}")
