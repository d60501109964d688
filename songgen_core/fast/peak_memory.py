"""How many bytes of tensors a computation holds at most, on any device, the meta device included."""

from collections.abc import Iterable
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class PeakMemory(TorchDispatchMode):
    """While active, counts the bytes of tensors that operations made and that are still alive: `live` now,
    `peak` at most. Exact for tensors, on the meta device too; fused attention counts as one operation."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()  # storages: those that were there before, and those counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._known.setdefault(tensor.untyped_storage(), None)
        if func is not torch.ops.aten.scaled_dot_product_attention.default:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = None
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        finalize(storage, self._forget, storage.nbytes()).atexit = False

    def _forget(self, nbytes: int) -> None:
        self.live -= nbytes


def _tensors(tree: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
