"""Products of few rows with large matrices: what nearly all of a decoding step consists of.

Letters: R rows, I inputs, O outputs.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

log = logging.getLogger("songgen")

Projection = Callable[[Tensor], Tensor]  # [R, I] -> [R, O]


def native(layers: Sequence[nn.Module], *, fuse: bool) -> Projection:
    """Outputs of `layers` side by side, with the weights where they are.

    With `fuse` the weights of plain linear layers become parts of one tensor, in place, so that it takes no
    second copy; the layers themselves work as before. Layers that know how to be `joined` are.
    """
    if len(layers) == 1:
        return layers[0]
    joined = getattr(type(layers[0]), "joined", None)
    if fuse and joined is not None:
        product: Projection = joined(layers)
        return product
    if fuse and all(isinstance(layer, nn.Linear) for layer in layers):
        weight = _shared_weight([layer for layer in layers if isinstance(layer, nn.Linear)])
        return lambda x: linear(x, weight)
    return lambda x: torch.cat([layer(x) for layer in layers], dim=-1)


def _shared_weight(layers: Sequence[nn.Linear]) -> Tensor:
    """One [sum of O, I] tensor whose parts the layers' weights are from now on."""
    first = layers[0].weight
    ends = [layer.weight.data_ptr() + layer.weight.nbytes for layer in layers]
    starts = [layer.weight.data_ptr() for layer in layers]
    rows = sum(layer.out_features for layer in layers)
    if starts[1:] == ends[:-1] and first.untyped_storage().nbytes() == rows * first[0].nbytes:
        return first.as_strided((rows, first.shape[1]), first.stride())  # shared by an earlier song
    with torch.inference_mode(False), torch.no_grad():  # the weights outlive this song
        weight = torch.cat([layer.weight for layer in layers])
        for layer, part in zip(layers, weight.split([layer.out_features for layer in layers])):
            layer.weight.data = part
    return weight


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


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether packed products work here and are right; says so in the log where they should but do not."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    probe = nn.Linear(32, 48, bias=False, dtype=dtype)
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
