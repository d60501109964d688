"""The range of seeds, which is that of torch's generators and of ComfyUI's seed widget."""

from .errors import UserError

MAX_SEED = 2**64 - 1


def check_seed(seed: int) -> int:
    """`seed`, or UserError for anything but a whole number from 0 to MAX_SEED."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed is {seed!r}; choose a whole number from 0 to {MAX_SEED}")
    return seed


def following_seeds(first: int, count: int) -> list[int]:
    """`count` seeds from `first` on; behind the last one follows 0. Raises UserError."""
    return [(check_seed(first) + number) % (MAX_SEED + 1) for number in range(count)]
