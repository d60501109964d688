"""Linear layers of the language model with weights of 8 or 4 bits, which are read as such at every step.

    int8   whole numbers from -127 to 127, one scale per output: 8 bits, the closest to 16 bit
    fp8    e4m3 numbers, one scale per output: 8 bits, coarser than int8 for weights like ours
    int4   numbers from 0 to 15, scale and zero per group of 64 inputs: 4.5 bits

Activations keep their dtype; what the kernels add of their own is far below what narrowing the weights costs.
`benchmarks/quality.py` measures that.

Letters: R rows of x, O outputs, I inputs, G groups of 64 inputs (the last one filled with zeros).
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from ..errors import UserError
from ..models.lelm import LeLM
from .kernels_cpu import GROUP, Int4Product, Int8Product, int4_works, int8_works

log = logging.getLogger("songgen")

Kind = Literal["int8", "fp8", "int4"]
KINDS: tuple[Kind, ...] = ("int8", "fp8", "int4")
_FP8 = torch.float8_e4m3fn
_FEW_ROWS_CPU = 32  # beyond these, widening the weights costs less than it saves
_FEW_ROWS_GPU = 16
_PART = 4 << 20  # weights that are widened at a time


# --- numbers --------------------------------------------------------------------------------------------


class Numbers(NamedTuple):
    """A weight [O, I] in narrow numbers."""

    weight: Tensor  # int8 or float8 [O, I], or uint8 [O, G * 32]
    scale: Tensor  # float32 [O], or bfloat16 [O, G]
    zero: Tensor | None = None  # bfloat16 [O, G]

    def of(self, outputs: slice) -> "Numbers":
        """Those of some outputs, as views."""
        zero = None if self.zero is None else self.zero[outputs]
        return Numbers(self.weight[outputs], self.scale[outputs], zero)


def narrow(weight: Tensor, kind: Kind) -> Numbers:
    """The nearest numbers of `kind` for a weight [O, I] of any float dtype.

    Scales are rounded to bfloat16 first, as some kernels want them, so that they are exact everywhere.
    """
    w = weight.detach().float()
    if kind == "int4":
        return _narrow_groups(pad(w, (0, -w.shape[1] % GROUP)).unflatten(1, (-1, GROUP)))
    scale = _scale(w.abs().amax(1) / (127 if kind == "int8" else 448)).float()
    numbers = w / scale[:, None]  # up to 127.3 or 448.9, which round to the largest there are
    return Numbers(numbers.round_().to(torch.int8) if kind == "int8" else numbers.to(_FP8), scale)


def widen(numbers: Numbers) -> Tensor:
    """The weight that `numbers` stand for, exactly: float32 [O, I], or [O, G * 64] of groups."""
    weight, scale, zero = numbers
    if zero is None:
        return weight.float() * scale[:, None]
    wide = _unpack(weight).unflatten(1, (-1, GROUP)).float() - 8
    return (wide * scale.float()[..., None] + zero.float()[..., None]).flatten(1)


def _narrow_groups(w: Tensor) -> Numbers:
    """w float32 [O, G, 64]."""
    low, high = w.amin(-1), w.amax(-1)
    scale = _scale((high - low) / 15)
    zero = ((low + high + scale.float()) / 2).to(torch.bfloat16)  # what 8 stands for; 7.5 is in the middle
    numbers = (w - zero.float()[..., None]) / scale.float()[..., None]
    numbers = numbers.round_().add_(8).clamp_(0, 15).to(torch.uint8)
    first, second = numbers.chunk(2, dim=-1)  # (O, G, 32) each
    return Numbers((first | second << 4).flatten(1), scale, zero)


def _unpack(weight: Tensor) -> Tensor:
    """uint8 [O, G * 32] with two numbers each -> [O, G * 64]."""
    both = weight.unflatten(1, (-1, GROUP // 2))
    return torch.cat([both & 15, both >> 4], dim=-1).flatten(1)


def _scale(exact: Tensor) -> Tensor:
    """bfloat16, above zero."""
    return exact.to(torch.bfloat16).clamp_min(torch.finfo(torch.bfloat16).tiny)


# --- the layer ------------------------------------------------------------------------------------------


class QuantizedLinear(nn.Module):
    """A linear layer without bias whose weight is in narrow numbers.

    It moves with `.to(device)`; `.to(dtype)` and `.half()` leave its numbers alone. On the CPU, int8 and int4
    keep a second copy of the weight, in the layout of their kernel, from the first use with few rows on.
    """

    weight: Tensor
    scale: Tensor
    zero: Tensor | None

    def __init__(self, kind: Kind, in_features: int, numbers: Numbers) -> None:
        super().__init__()
        self.kind, self.in_features, self.out_features = kind, in_features, numbers.weight.shape[0]
        for name, buffer in numbers._asdict().items():
            self.register_buffer(name, buffer)
        self._packed: Int8Product | Int4Product | None = None
        self._home: tuple[QuantizedLinear, int] | None = None  # whose outputs from where on are these

    @classmethod
    def from_linear(cls, layer: nn.Linear, kind: Kind) -> "QuantizedLinear":
        """`layer` in narrow numbers. Raises UserError on a kind that cannot be and on a weight that is not
        finite, ValueError on a bias."""
        check_kind(kind, layer.weight.device)
        if layer.bias is not None:
            raise ValueError("a linear layer with a bias cannot be quantised")
        numbers = narrow(layer.weight, kind)
        if not layer.weight.is_meta and not numbers.scale.isfinite().all():
            raise UserError(
                f"a weight of {layer.out_features} x {layer.in_features} has values that are not finite; "
                "the model file is damaged: download it again"
            )
        return cls(kind, layer.in_features, numbers)

    @classmethod
    def joined(cls, parts: Sequence["QuantizedLinear"]) -> "QuantizedLinear":
        """Layers of one kind and one input as one, their outputs side by side.

        The parts stay as they are, but their numbers lie in the joined layer from now on: it takes no second
        copy. Joining the same parts again gives the same layer, until they are moved.
        """
        assert len({(part.kind, part.in_features) for part in parts}) == 1, parts
        ends = list(accumulate(part.out_features for part in parts))
        starts = [0, *ends[:-1]]
        home = parts[0]._home and parts[0]._home[0]
        if (
            home is None
            or [p._home for p in parts] != [(home, s) for s in starts]
            or (home.out_features != ends[-1])
        ):
            with torch.inference_mode(False):  # the numbers outlive this song
                home = cls(parts[0].kind, parts[0].in_features, _concatenated([p.numbers for p in parts]))
                for part, start, end in zip(parts, starts, ends):
                    part._lie_in(home, start, end)
        return home

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.weight, self.scale, self.zero)

    @property
    def nbytes(self) -> int:
        """Size of the numbers, without the copy that a CPU keeps."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O] in x's dtype."""
        return self._product(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.kind}, in_features={self.in_features}, out_features={self.out_features}"

    def _product(self, x: Tensor) -> Tensor:
        """x [R, I] -> [R, O], by the quickest way there is here for so many rows."""
        rows, device = x.shape[0], x.device
        y = None
        if device.type == "cpu" and rows <= _FEW_ROWS_CPU:
            y = self._cpu_product(x)
        elif device.type == "cuda" and rows <= _FEW_ROWS_GPU:
            y = _gpu_product(x, self.numbers) if gpu_works(device.index, self.kind, x.dtype, rows) else None
        elif rows > _FEW_ROWS_GPU or device.type == "meta":
            return self._wide_product(x)
        if y is None:
            _log_slow(self.kind, device.type)
            return self._wide_product(x)
        return y

    def _wide_product(self, x: Tensor) -> Tensor:
        """By widened weights, some outputs at a time."""
        outputs = max(1, _PART // self.in_features)
        parts = []
        for start in range(0, self.out_features, outputs):
            weight = widen(self.numbers.of(slice(start, start + outputs)))[:, : self.in_features]
            parts.append(linear(x, weight.to(x.dtype)))
        return torch.cat(parts, dim=-1)

    @torch.compiler.disable  # the layouts of oneDNN mean nothing to the compiler
    def _cpu_product(self, x: Tensor) -> Tensor | None:
        """x [R, I] -> [R, O], None if nothing here multiplies few rows."""
        if self.kind == "int8" and int8_works():
            self._packed = self._packed or Int8Product(self.weight, self.scale)
            return self._packed(x)
        if self.kind == "int8" and x.dtype == torch.bfloat16 and self.in_features % 16 == 0:
            # with any other number of inputs it crashes the process
            return torch._weight_int8pack_mm(x.contiguous(), self.weight, self.scale.to(x.dtype))
        if self.zero is not None and self.out_features % 16 == 0 and int4_works():
            self._packed = self._packed or Int4Product(_unpack(self.weight), self.scale, self.zero)
            return self._packed(pad(x, (0, -x.shape[1] % GROUP)))
        return None

    def _lie_in(self, home: "QuantizedLinear", start: int, end: int) -> None:
        self.weight, self.scale, self.zero = home.numbers.of(slice(start, end))
        self._packed, self._home = None, (home, start)

    def __getstate__(self) -> dict[str, Any]:
        """For copies: what was made for this place stays behind."""
        return self.__dict__ | {"_packed": None, "_home": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        """Moves bytes, which no change of dtype touches."""
        self._packed = self._home = None
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer.view(torch.uint8)).view(buffer.dtype)
        return self


def _concatenated(numbers: Sequence[Numbers]) -> Numbers:
    weights, scales, zeros = zip(*numbers)
    return Numbers(torch.cat(weights), torch.cat(scales), None if zeros[0] is None else torch.cat(zeros))


# --- the model ------------------------------------------------------------------------------------------


def quantize_(lm: LeLM, kind: Kind, on_layer: Callable[[int, int], None] | None = None) -> LeLM:
    """Narrow the linear layers of both transformers of `lm`, in place; everything else stays as it is.

    Layer by layer, each original freed at once, wherever the weights lie; on meta tensors it costs nothing.
    `on_layer` hears (layers done, layers in all). Raises UserError on an unknown kind or a model that is
    quantised already.
    """
    check_kind(kind, lm.main.norm.weight.device)
    known = next((m.kind for m in lm.modules() if isinstance(m, QuantizedLinear)), None)
    if known is not None:
        raise UserError(f"the language model is already in {known}; load it again to have it in {kind}")
    layers = [*lm.main.layers, *lm.sub.layers]
    for done, layer in enumerate(layers, 1):
        for parent in list(layer.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, QuantizedLinear.from_linear(child, kind))
        if on_layer is not None:
            on_layer(done, len(layers))
    return lm


def check_kind(kind: str, device: torch.device) -> None:
    """Raises UserError if weights of `kind` cannot be on `device`."""
    if kind not in KINDS:
        raise UserError(f"weights in {kind!r} are unknown; choose one of native, {', '.join(KINDS)}")
    if kind == "fp8" and device.type == "mps":
        raise UserError("Apple's GPUs have no fp8 numbers; choose int8")


# --- GPUs -----------------------------------------------------------------------------------------------


@torch.compiler.assume_constant_result
def gpu_works(device: int, kind: Kind, dtype: torch.dtype, rows: int) -> bool:
    """Whether the Triton kernel for so many rows is right on a CUDA device; the first call tries it."""
    return _try_gpu_kernel(f"cuda:{device}", kind, dtype, rows)


@lru_cache
def _try_gpu_kernel(device: str, kind: Kind, dtype: torch.dtype, rows: int) -> bool:
    numbers = narrow(torch.arange(-1024.0, 1024.0, device=device).view(16, 128), kind)
    x = torch.eye(rows, 128, device=device, dtype=dtype)
    try:
        y = _gpu_product(x, numbers)
    except Exception as error:  # no triton, no C compiler for its launcher, an old card: no common class
        reason = str(error).strip().split("\n")[0]
        log.warning("fast engine: kernels for %s weights are off (%s)", kind, reason or type(error).__name__)
        return False
    if not torch.allclose(y.float(), x.float() @ widen(numbers).T, rtol=1e-2):
        log.warning("fast engine: kernels for %s weights are off, their result is wrong here", kind)
        return False
    return True


def _gpu_product(x: Tensor, numbers: Numbers) -> Tensor:
    from .kernels import few_rows  # needs triton

    return few_rows(x, *numbers)


@lru_cache
def _log_slow(kind: Kind, device: str) -> None:
    log.info(
        "fast engine: nothing here multiplies %s weights on %s; they are widened at each use", kind, device
    )
