"""Few rows times narrow weights on a CPU, by kernels that torch brings.

Letters: R rows of x, O outputs, I inputs, G groups of inputs.
"""

from functools import lru_cache

import torch
from torch import Tensor

GROUP = 64  # inputs per scale of 4-bit weights
_LARGEST = 32767  # of the 16-bit numbers that activations become
_OFFSET = 32768  # what makes them positive, so that both their bytes are unsigned


class Int8Product:
    """x times int8 weights with a scale per output, in whole numbers.

    The instructions for bytes are many times faster than those for floats, but activations of 8 bit would
    lose as much as the weights do. So each row of x becomes 16-bit numbers, of which the low and the high
    bytes are a row each; with few rows that costs next to nothing, as the weights are read once for all.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        """weight int8 [O, I], scale float32 [O]; keeps a copy of the weight in the layout of oneDNN."""
        self.scale, self.zero = scale, torch.zeros_like(scale, dtype=torch.int32)
        self.shift = weight.sum(1, dtype=torch.int64).double().mul(_OFFSET).mul(scale).float()  # of 0 (O,)
        self.weight = torch.ops.onednn.qlinear_prepack(weight, None)

    def __call__(self, x: Tensor) -> Tensor:
        """x [R, I] -> [R, O] in x's dtype; x counts within 1 / 65000 of the largest value of its row. A value
        that is not finite gives a row that is not."""
        step = x.float().abs().amax(-1, keepdim=True).clamp_min(1e-30) / _LARGEST  # (R, 1)
        whole = (x / step).round_().to(torch.int32).add_(_OFFSET)  # 1 to 65535
        both = whole.view(torch.uint8).unflatten(-1, (-1, 4))[..., :2]  # (R, I, 2): low, high
        y = self._product(both.permute(2, 0, 1).flatten(0, 1))  # (2 R, O)
        low, high = y.chunk(2)
        return low.add_(high, alpha=256).sub_(self.shift).mul_(step).to(x.dtype)

    def _product(self, x: Tensor) -> Tensor:
        """Unsigned bytes [R, I] -> float32 [R, O]."""
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            x, 1.0, 0, self.weight, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return out


class Int4Product:
    """x times 4-bit weights in groups, in bfloat16 with float32 sums."""

    def __init__(self, numbers: Tensor, scale: Tensor, zero: Tensor) -> None:
        """numbers [O, G * 64] from 0 to 15; scale, zero bfloat16 [O, G]: w = (q - 8) * scale + zero."""
        self.weight = torch._convert_weight_to_int4pack_for_cpu(numbers.to(torch.int32), 1)
        self.scale_zero = torch.stack([scale.T, zero.T], dim=-1).contiguous()  # (G, O, 2)

    def __call__(self, x: Tensor) -> Tensor:
        """x [R, G * 64] -> [R, O] in x's dtype. x is rounded to bfloat16 on the way, which is little beside
        what the weights lost."""
        half = x.to(torch.bfloat16)
        out: Tensor = torch._weight_int4pack_mm_for_cpu(half, self.weight, GROUP, self.scale_zero)
        return out.to(x.dtype)


@lru_cache
def int8_works() -> bool:
    """Whether `Int8Product` can run and is exact here. Processors without the right instructions (AVX2 alone)
    add pairs of products in 16 bits, which overflows for large numbers like those tried here."""
    weight = torch.full((32, 128), 127, dtype=torch.int8)
    weight[::2] = -127
    x = torch.full((2, 128), 1.0)
    x[1, ::2] = -1.0
    try:
        y = Int8Product(weight, torch.ones(32))(x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.allclose(y, x @ weight.float().T, rtol=1e-4, atol=1.0)


@lru_cache
def int4_works() -> bool:
    """Whether `Int4Product` can run and is right here."""
    numbers = torch.arange(32 * 128).view(32, 128) % 16
    scale, zero = torch.full((2, 32, 2), 0.5, dtype=torch.bfloat16)
    x = torch.eye(128)[:4]
    try:
        y = Int4Product(numbers, scale, zero)(x)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.equal(y, (x @ numbers.float().T - 8) * 0.5 + 0.5)
