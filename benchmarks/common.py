"""What all benchmarks share: the machine and its ceilings, networks with random weights, the report."""

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Network = TypeVar("Network", bound=nn.Module)

ROOT = Path(__file__).parents[1]
_COPY_BYTES = 256 << 20  # far beyond every cache
_TILE = 1_048_573  # prime, so that no two rows of a tiled matrix are alike


def parser(description: str, sizes: list[str]) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--size", choices=sizes, default="tiny")
    out.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    out.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    out.add_argument("--repeats", type=positive, default=3, help="the quickest one counts")
    return out


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


# --- networks -------------------------------------------------------------------------------------------


@torch.no_grad()
def fill(network: Network, device: torch.device, gain: float = 1.0) -> Network:
    """A network on the meta device -> the same on `device` with quick, small random weights.

    Weights keep activations of order 1 and stay away from zero, so that there are no denormals; norms are
    one, biases and statistics zero.
    """
    network.to_empty(device=device)
    generator = torch.Generator().manual_seed(0)
    tile = torch.rand(_TILE, generator=generator) + 0.5
    tile *= torch.randint(0, 2, (_TILE,), generator=generator) * 2 - 1  # of either sign, 0.5 to 1.5
    tile = tile.to(device)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            fan_in = math.prod(parameter.shape[1:])
            _tile(parameter.view(-1), (tile * (gain / math.sqrt(fan_in))).to(parameter.dtype))
        else:
            parameter.fill_(1.0 if name.endswith(".weight") else 0.0)
    for buffer in network.buffers():
        buffer.zero_()
    return network.eval().requires_grad_(False)


def _tile(out: Tensor, tile: Tensor) -> None:
    for part in out.split(len(tile)):
        part.copy_(tile[: len(part)])


def count_flops(function: Callable[[], object]) -> int:
    """FLOP of the matrix products and convolutions in `function`; on meta tensors it costs nothing."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        function()
    return counter.get_total_flops()


# --- time and memory ------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def now(device: torch.device) -> float:
    """Seconds, once the device has done everything it was given."""
    synchronize(device)
    return time.perf_counter()


def best_seconds(function: Callable[[], object], device: torch.device, repeats: int = 4) -> float:
    """The quickest of `repeats` runs, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = now(device)
        function()
        times.append(now(device) - start)
    return min(times)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the allocator on CUDA, of the whole process elsewhere (0 where the system does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- ceilings -------------------------------------------------------------------------------------------


def measure_rates(device: torch.device, *dtypes: torch.dtype) -> dict[str, float]:
    """What the machine can do now: bytes per second of main memory, FLOP per second of matrix products.

    A copy counts what it reads and writes, a dot product what it reads.
    """
    a = torch.ones(_COPY_BYTES // 4, device=device)
    b = torch.zeros_like(a)
    rates = {
        "bandwidth_copy": 2 * _COPY_BYTES / best_seconds(lambda: b.copy_(a), device),
        "bandwidth_read": 2 * _COPY_BYTES / best_seconds(lambda: torch.dot(a, b), device),
    }
    return rates | {f"matmul_{name_of(dtype)}": measure_matmul(device, dtype) for dtype in dtypes}


def measure_matmul(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a large square matrix product."""
    n = 2048 if device.type == "cpu" else 8192
    if device.type == "cpu" and dtype == torch.float16:
        n = 256  # without float16 instructions this is a thousand times slower
    a = torch.ones(n, n, device=device, dtype=dtype)
    return 2 * n**3 / best_seconds(lambda: a @ a, device)


def best_rates(rates: list[dict[str, float]]) -> dict[str, float]:
    """The highest of each rate: other work on the machine only lowers them."""
    return {name: max(r[name] for r in rates) for name in rates[0]}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- the report -----------------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware and the versions that the numbers depend on."""
    out: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": None,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        out["gpu"] = properties.name
        out["gpu_memory_bytes"] = properties.total_memory
        out["gpu_power_limit"] = _output("nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader")
        out["cuda"] = torch.version.cuda or torch.version.hip
    return out


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    """What a command prints, None if it fails or is not there."""
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def provenance() -> dict[str, Any]:
    """Command line, commit, and how busy the machine is with other work."""
    commit = _output("git", "rev-parse", "--short", "HEAD")
    changed = _output("git", "status", "--porcelain", "--", "songgen_core")
    return {
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": commit,
        "commit_clean": None if commit is None else not changed,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def report(rows: dict[str, str], result: dict[str, Any]) -> None:
    """A table for people, then one line of JSON for programs."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    print(json.dumps(result))
