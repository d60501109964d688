"""torch.compile where it can work, and only there."""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import torch

log = logging.getLogger("songgen")

P = ParamSpec("P")
R = TypeVar("R")


def can_compile(wanted: bool | None, device: torch.device) -> bool:
    """Whether to compile for `device`. None: on CUDA (and ROCm) where triton is installed, nowhere else.

    True asks for it on every device; on CUDA it is refused with a line in the log where triton is missing.
    """
    if device.type == "cuda" and wanted is not False and find_spec("triton") is None:
        log.info("fast engine: compile is off, triton is not installed")
        return False
    return device.type == "cuda" if wanted is None else wanted


def compiled(function: Callable[P, R], *, dynamic: bool = False) -> Callable[P, R]:
    """`function` through torch.compile, by itself again after the first failure, which the log tells.

    It must not change its arguments, as it may run again. Make it once per process: what is compiled is kept.
    """
    quick = torch.compile(function, dynamic=dynamic)

    def attempt(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal quick
        try:
            return quick(*args, **kwargs)
        except Exception as error:  # the compiler's errors have no common class
            if quick is function or isinstance(error, torch.OutOfMemoryError):
                raise
            name = getattr(function, "__name__", "a function")
            log.warning("fast engine: compile is off for %s (%s)", name, str(error).strip().split("\n")[0])
            quick = function
            return function(*args, **kwargs)

    return attempt
