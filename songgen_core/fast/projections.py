"""Products of few rows with large matrices: what nearly all of a decoding step consists of.

Letters: R rows, I inputs, O outputs.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .quantize import QuantizedLinear

log = logging.getLogger("songgen")

Projection = Callable[[Tensor], Tensor]  # [R, I] -> [R, O]


class Fused:
    """Linear layers of one input as one product, on weights that become parts of one tensor.

    Takes no second copy, and the layers work as before. `release` gives them weights of their own again, so
    that whoever manages their memory can move them one by one.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = layers
        with torch.inference_mode(False), torch.no_grad():  # the weights outlive this song
            self.weight = torch.cat([layer.weight.detach() for layer in layers])
            parts = self.weight.split([layer.out_features for layer in layers])
            for layer, part in zip(layers, parts):
                layer.weight.data = part

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)

    def release(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            for layer in self.layers:
                layer.weight.data = layer.weight.detach().clone()
        del self.weight


def side_by_side(layers: Sequence[nn.Module]) -> Projection:
    """Outputs of `layers` side by side, each by its own product."""
    if len(layers) == 1:
        return layers[0]
    return lambda x: torch.cat([layer(x) for layer in layers], dim=-1)


class Packed:
    """Linear layers of one input as one product in oneDNN's blocked layout, which its kernels read two to
    three times as fast as plain rows when there are few rows of input. CPU, float32 and bfloat16."""

    def __init__(self, layers: Sequence[nn.Linear], rows: int) -> None:
        """`rows`: how many there will be. Raises RuntimeError where this build of torch cannot pack."""
        weights = [layer.weight.detach() for layer in layers]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = torch.cat([b.detach() for b in biases]) if biases else None
        try:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        except (AttributeError, NotImplementedError) as error:
            raise RuntimeError(str(error)) from error

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out


class Projector:
    """Makes one product of layers that share an input, in the quickest way that works here."""

    def __init__(self, rows: int, *, pack: int, fuse: bool, join: bool) -> None:
        """`rows` of input to expect. What may be done: `pack` plain layers of so many bytes, which are
        copied, or `fuse` them; `join` narrow ones."""
        self.rows, self.pack, self.fuse, self.join = rows, pack, fuse, join
        self.fused: list[Fused] = []

    def __call__(self, layers: Sequence[nn.Module]) -> Projection:
        linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if len(linears) < len(layers):
            narrow = [layer for layer in layers if isinstance(layer, QuantizedLinear)]
            if self.join and len(layers) > 1 and len(narrow) == len(layers):
                return QuantizedLinear.joined(narrow)
            return side_by_side(layers)
        size = sum(layer.weight.nbytes for layer in linears)
        if size <= self.pack:
            self.pack -= size
            return Packed(linears, self.rows)
        if self.fuse and len(layers) > 1:
            self.fused.append(Fused(linears))
            return self.fused[-1]
        return side_by_side(layers)

    def close(self) -> None:
        """Leave the layers as they were found."""
        while self.fused:
            self.fused.pop().release()


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether packed products work here and are right; says so in the log where they should but do not."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    probe = nn.utils.skip_init(nn.Linear, 32, 48, bias=False, dtype=dtype)  # draws no random numbers
    with torch.no_grad():
        probe.weight.copy_(torch.arange(48 * 32).view(48, 32).remainder(17).sub(8) / 8)
        x = (torch.arange(2 * 32).view(2, 32).remainder(7) - 3).to(dtype) / 4
        try:
            exact = torch.equal(Packed([probe], 2)(x).float(), x.float() @ probe.weight.float().T)
        except RuntimeError as error:
            log.info("fast engine: pack is off, this build of torch cannot do it (%s)", error)
            return False
    if not exact:
        log.warning("fast engine: pack is off, packed products are wrong on this processor")
    return exact
