"""One switch per trick of the fast engine."""

from dataclasses import dataclass
from typing import Literal

from ..errors import UserError

KVKind = Literal["auto", "native", "float32", "int8"]
KV_KINDS: tuple[KVKind, ...] = ("auto", "native", "float32", "int8")
AttentionKind = Literal["auto", "torch", "triton"]
ATTENTION_KINDS: tuple[AttentionKind, ...] = ("auto", "torch", "triton")


@dataclass(frozen=True, kw_only=True)
class FastOptions:
    """How the language model decodes. A switch that cannot work here turns itself off and says so in the log.

    fuse: q, k and v as one product, gate and up as another.
    pack: the CPU's weights in the blocked layout of oneDNN: a second copy of them, made before a song.
    kv: the KV cache as wide as the activations ("native"), in "float32", or in 8 bit ("int8", a quarter to a
        half of the memory, slower where nothing fuses the conversion). "auto" is float32 on the CPU, whose
        kernels for narrow types are slow, and native elsewhere.
    fixed_shapes: attention over a whole extent of the cache behind a mask, as graphs and compilers need it.
        None: just on CUDA and with `compile`.
    attention: "triton" is our kernel, which reads the cache just up to the position and uses a whole card
        for one query; "torch" is scaled_dot_product_attention behind a mask. "auto" takes the kernel on CUDA
        where triton is installed.
    cuda_graph: a whole step, sampling included, as one launch.
    compile: torch.compile for the step; needs triton (CUDA) or a C++ compiler (CPU), and minutes for a large
        model at its first song. Replaces `pack`.
    songs_at_once: most songs in one pass.
    steps_per_check: steps between two looks at what was written, where the device runs ahead of the host.
    """

    fuse: bool = True
    pack: bool = True
    kv: KVKind = "auto"
    fixed_shapes: bool | None = None
    attention: AttentionKind = "auto"
    cuda_graph: bool = True
    compile: bool = False
    songs_at_once: int = 8
    steps_per_check: int = 8

    def __post_init__(self) -> None:
        for name, choices in (("kv", KV_KINDS), ("attention", ATTENTION_KINDS)):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        for name in ("songs_at_once", "steps_per_check"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be 1 or more")
