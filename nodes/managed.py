"""Layers that ComfyUI's memory manager can leave in RAM and bring to the card one at a time."""

from typing import Any

import comfy.ops
from torch import nn

# Raw parameters of our own layers (norms, snakes) and buffers are not in this list: they are small, and
# the layers bring them to the device of their input by themselves.
_LAYERS: dict[type[nn.Module], Any] = {
    getattr(nn, name): getattr(comfy.ops.disable_weight_init, name)
    for name in ("Linear", "Embedding", "LayerNorm", "Conv1d", "ConvTranspose1d")
}


def manage_layers(network: nn.Module) -> nn.Module:
    """Make the layers of a finished network ComfyUI's, in place; their weights stay what and where they are.

    ComfyUI's layers are torch's with another forward pass, which copies weights to the input's device where
    the manager left them elsewhere, and is torch's own where it did not. Core constructors stay free of them.
    """
    for module in network.modules():
        if (managed := _LAYERS.get(type(module))) is not None:
            module.__class__ = managed
            if isinstance(module, nn.Embedding):
                module.register_parameter("bias", None)  # which ComfyUI's embedding asks for
    return network
