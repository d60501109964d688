"""Which device and precision to use when the user does not say."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from .errors import UserError

log = logging.getLogger("songgen")

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA (or ROCm), then MPS, then the CPU. Raises UserError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # fails on a device that holds no data ("meta")
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(f"device '{name}' is not available here; use auto, cpu, cuda or mps") from error
    return device


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """`auto` is float32 on the CPU and float16 elsewhere, as the reference runs."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise UserError(f"dtype '{name}' is unknown; use auto, {', '.join(DTYPES)}")
    if device.type == "cpu" and name == "float16":
        log.warning("float16 is many times slower than float32 on a CPU; use bfloat16 instead")
    return DTYPES[name]


@contextmanager
def placed(networks: Iterable[nn.Module], device: torch.device, *, stay: bool) -> Iterator[None]:
    """While active the networks are on `device`; afterwards they go back where they were, or they stay."""
    homes = [(network, next(network.parameters()).device) for network in networks]
    try:
        for network, _ in homes:
            network.to(device)
        yield
    finally:
        if not stay:
            for network, home in homes:
                network.to(home)


@contextmanager
def limited(device: torch.device, budget: int | None) -> Iterator[None]:
    """While active torch takes no more than `budget` bytes of a CUDA device; None is no limit.

    Elsewhere torch knows no limits. The former one is back in place afterwards.
    """
    if budget is None or device.type != "cuda":
        yield
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    total = torch.cuda.get_device_properties(index).total_memory
    former = _memory_fraction(index)
    torch.cuda.set_per_process_memory_fraction(min(former, budget / total), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(former, index)


def _memory_fraction(index: int) -> float:
    """Share of a CUDA device that torch may take; a torch that cannot tell is taken to have no limit."""
    ask = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    return 1.0 if ask is None else min(1.0, float(ask(index)))


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No TF32 (1e-3 off) and no autotuning, so that the same latents give the same audio and the same
    recording the same codes.

    The process-wide settings are back in place afterwards.
    """
    if device.type != "cuda":
        yield
        return
    precision, enabled = torch.get_float32_matmul_precision(), torch.backends.cudnn.enabled
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=enabled, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def free_memory() -> int | None:
    """Bytes of main memory that programs can still get; None where nothing tells."""
    try:
        import psutil  # ComfyUI brings it
    except ImportError:
        info = Path("/proc/meminfo")
        lines = info.read_text().splitlines() if info.exists() else []
        kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        return int(kilobytes[0]) * 1024 if kilobytes else None
    return int(psutil.virtual_memory().available)


def free_on(device: torch.device) -> int | None:
    """Bytes that new tensors can still get on a CUDA device; None on others."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
