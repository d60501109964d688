"""The range of seeds, which is that of torch's generators and of ComfyUI's seed widget."""

from .errors import UserError

MAX_SEED = 2**64 - 1


def check_seed(seed: int) -> int:
    """`seed`, or UserError for anything but a whole number from 0 to MAX_SEED."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed is {seed!r}; choose a whole number from 0 to {MAX_SEED}")
    return seed
