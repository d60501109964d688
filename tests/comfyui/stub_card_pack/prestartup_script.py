"""A graphics card made of RAM, for machines without one: ComfyUI's memory manager works as with a real one.

The card is `cpu:0`: torch computes there as on `cpu`, while ComfyUI keeps the two apart. Its size is
STUB_CARD_MB; what is free is that less the weights that the manager has put there. --lowvram, --novram,
--highvram and --gpu-only mean what they mean with a card. What this cannot show: kernels, speed, and tensors
left on the wrong device (for those: `meta` in test_memory.py).
"""

import os
import weakref
from typing import Any

import torch
from comfy.cli_args import args

asked_for_cpu, args.cpu = args.cpu, True  # without which the import looks for CUDA
import comfy.model_management as mm  # noqa: E402 - after the line above

args.cpu = asked_for_cpu

CARD = torch.device("cpu", 0)
SIZE = int(os.environ.get("STUB_CARD_MB", "8192")) << 20
is_device_cpu, get_free_memory, get_total_memory = mm.is_device_cpu, mm.get_free_memory, mm.get_total_memory


placed: weakref.WeakSet = weakref.WeakSet()  # patchers whose weights are, or were, on the card
load = mm.LoadedModel.model_load


def is_card(device: Any) -> bool:
    return isinstance(device, torch.device) and device == CARD


def used() -> int:
    """Bytes of weights on the card, those included that the manager is about to place again."""
    models = {id(patcher.model): patcher for patcher in placed}
    return sum(patcher.loaded_size() for patcher in models.values())


def model_load(self: mm.LoadedModel, *args: Any, **options: Any) -> Any:
    if is_card(self.device):
        placed.add(self.model)
    return load(self, *args, **options)


def free_memory_of(dev: Any = None, torch_free_too: bool = False) -> Any:
    if not is_card(dev or CARD):
        return get_free_memory(dev, torch_free_too)
    free = max(0, mm.stub_card_size - used())
    return (free, 0) if torch_free_too else free


def total_memory_of(dev: Any = None, torch_total_too: bool = False) -> Any:
    if not is_card(dev or CARD):
        return get_total_memory(dev, torch_total_too)
    return (mm.stub_card_size, mm.stub_card_size) if torch_total_too else mm.stub_card_size


def state() -> mm.VRAMState:
    """As model_management reads it from the command line."""
    if args.lowvram:
        return mm.VRAMState.LOW_VRAM
    if args.novram:
        return mm.VRAMState.NO_VRAM
    return mm.VRAMState.HIGH_VRAM if args.highvram or args.gpu_only else mm.VRAMState.NORMAL_VRAM


mm.stub_card_size = SIZE
mm.MIN_WEIGHT_MEMORY_RATIO = 0.0  # as on NVIDIA's
mm.LoadedModel.model_load = model_load
mm.get_torch_device = lambda: CARD
mm.is_device_cpu = lambda device: is_device_cpu(device) and not is_card(device)
mm.get_free_memory, mm.get_total_memory = free_memory_of, total_memory_of
mm.vram_state = state()
