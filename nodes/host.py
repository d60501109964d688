"""Everything that touches ComfyUI: model folders, memory, progress and the Cancel button.

The core sees none of it; it gets devices, dtypes and plain callbacks.
"""

import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from PIL import Image
from server import PromptServer
from torch import nn

from ..songgen_core import FRAME_RATE, LeLMConfig, Progress, UserError
from ..songgen_core.devices import DTYPES, choose_dtype
from ..songgen_core.engine import WEIGHTS, Engine, ReferenceEngine
from ..songgen_core.progress import OnProgress
from ..songgen_core.prompts.cache import PromptCache
from ..songgen_core.prompts.prompt import PromptEncoders
from ..songgen_core.prompts.readers import PromptReaders
from ..songgen_core.text.bpe import TextTokenizers
from ..songgen_core.writing import check_duration
from .managed import manage_layers
from .preview import picture

log = logging.getLogger("songgen")

FOLDER = "songgen"  # under ComfyUI/models, and the key in extra_model_paths.yaml
_OTHER_FOLDERS = ("SongGeneration",)  # where people who had the models before keep them
_MB = 1 << 20
_DTYPE_FLAGS = {"fp32_unet": torch.float32, "bf16_unet": torch.bfloat16, "fp16_unet": torch.float16}
_SECONDS_BETWEEN_TEXTS, _SECONDS_BETWEEN_PICTURES = 0.5, 1.0
_STAGES = {
    "tokens": "writing the song",
    "rendering": "rendering audio",
    "encoding": "encoding the recording",
    "separating": "separating stems",
    "saving": "saving audio",
}
_IN_MB = "downloading "  # how stages begin that count megabytes

# Bytes beside the weights. Measured with the published sizes: a segment of 40 s through an encoder takes
# 0.8 GB, 10 s through the VAE 1.2 GB, 7.8 s through the separator 0.6 GB; the rest is for a card's libraries.
_ENCODER_MEMORY, _SEPARATOR_MEMORY = 2048 * _MB, 1024 * _MB
_BLOCK = 64  # positions by which caches of the fast engine grow


class Readers:
    """The networks that only prompts need: loaded when one is first asked for, and kept with the model."""

    def __init__(self, core: PromptReaders) -> None:
        self.core = core
        self._encoders: list[ModelPatcher] = []
        self._separator: list[ModelPatcher] = []

    @property
    def loaded(self) -> list[ModelPatcher]:
        return [*self._encoders, *self._separator]

    def check(self) -> None:
        """That what reads recordings is on the disk, before a long separation. Raises CheckpointError."""
        if self.core.files is not None:
            self.core.files.find("mixed_codec")

    def encoders(self, on_progress: OnProgress) -> tuple[PromptEncoders, torch.device]:
        """What reads recordings, on its device. Raises CheckpointError."""
        with torch.inference_mode(False):  # as in LoadLeVoModel
            encoders = self.core.encoders(on_progress, stop_if_cancelled)
        self._encoders = self._encoders or [whole(network) for network in encoders.networks]
        return encoders, place_whole(self._encoders, _ENCODER_MEMORY)

    def separator(self) -> tuple[nn.Module, torch.device]:
        """HTDemucs on its device. Raises CheckpointError, UserError without the package demucs."""
        stop_if_cancelled()
        with torch.inference_mode(False):
            network = self.core.separator()
        self._separator = self._separator or [whole(network)]
        return network, place_separator(self._separator[0])


@dataclass(frozen=True, eq=False)
class SongModel:
    """What a SONGGEN_MODEL socket carries: networks that ComfyUI's memory manager may move.

    Language model and renderer are apart, so that the card need not hold both at a time. ComfyUI looks for
    `patcher`, `get_models` and `is_dynamic` by these names.
    """

    name: str
    config: LeLMConfig
    dtype: torch.dtype
    tokenizers: TextTokenizers
    lm: ModelPatcher
    renderer: ModelPatcher
    vae: ModelPatcher
    is_selftest: bool
    is_mini: bool
    readers: Readers
    engine: Engine
    weights: str = WEIGHTS[0]

    @property
    def is_quick(self) -> bool:
        """Whether an engine other than the reference may write the songs."""
        return not isinstance(self.engine, ReferenceEngine)

    @property
    def patcher(self) -> ModelPatcher:
        return self.lm

    def get_models(self) -> list[ModelPatcher]:
        return [self.lm, self.renderer, self.vae, *self.readers.loaded]

    def is_dynamic(self) -> bool:
        return False


def register_model_folders() -> None:
    """Look for models under models/songgen and models/SongGeneration, after what the user's yaml names."""
    for name in (FOLDER, *_OTHER_FOLDERS):
        folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, name))


def model_roots() -> list[Path]:
    """All folders that may hold song models, existing or not."""
    return [Path(path) for path in folder_paths.get_folder_paths(FOLDER)]


def state_of(paths: Iterable[Path]) -> str:
    """Sizes and times of files, to notice when one is replaced."""
    return "; ".join(f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths)


def prompt_cache() -> PromptCache:
    """Prompts made before, in ComfyUI's user folder; nothing is made there before the first one is kept."""
    return PromptCache(Path(folder_paths.get_user_directory(), FOLDER, "prompts"))


def check_choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """`value`, or UserError: not every supported ComfyUI checks combo values that come over the API."""
    if value not in allowed:
        raise UserError(f"{name} is {str(value)[:80]!r}; choose one of {', '.join(allowed)}")
    return value


def problem(*checks: tuple[Any, ...]) -> bool | str:
    """For `validate_inputs`: True, or what the first of `checks` (a function, its values) finds wrong.

    Linked values are None before the run; they are checked on arrival.
    """
    try:
        for check, *values in checks:
            if all(value is not None for value in values):
                check(*values)
    except UserError as error:
        return str(error)
    return True


def compute_dtype(name: str) -> torch.dtype:
    """`auto` is what ComfyUI was started with (--bf16-unet and the like), else float16, as the models were
    trained, where the card is fit for it, else the next best."""
    check_choice("dtype", name, ("auto", *DTYPES))
    device = mm.get_torch_device()
    if name != "auto":
        return choose_dtype(device, name)
    for flag, dtype in _DTYPE_FLAGS.items():
        if getattr(args, flag, False):
            return dtype
    if mm.should_use_fp16(device):
        return torch.float16
    return torch.bfloat16 if mm.should_use_bf16(device) else torch.float32


def managed(network: nn.Module) -> ModelPatcher:
    """A network that ComfyUI may keep on the card in part: layers without room stay in RAM and are copied at
    each use. Never the dynamic patcher: the weights of a raw parameter would not be paged in."""
    return _patcher(manage_layers(network))


def whole(network: nn.Module) -> ModelPatcher:
    """A small network with layers of other libraries' making, on the card as a whole or not at all."""
    return _patcher(network)


def _patcher(network: nn.Module) -> ModelPatcher:
    return ModelPatcher(network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def place(patchers: Sequence[ModelPatcher], working_memory: int) -> torch.device:
    """Bring managed networks to their device, as much of them as leaves `working_memory` bytes to spare.

    Returns the device.
    """
    mm.load_models_gpu(list(patchers), memory_required=working_memory)
    return patchers[0].load_device


def place_whole(patchers: Sequence[ModelPatcher], working_memory: int) -> torch.device:
    """Bring whole networks to their device, with `working_memory` bytes to spare; returns the device."""
    mm.load_models_gpu(list(patchers), memory_required=working_memory, force_full_load=True)
    for patcher in patchers:
        # --novram leaves plain layers where they are; a network cannot run half on the card.
        tensors = (*patcher.model.parameters(), *patcher.model.buffers())
        if any(t.device.type != patcher.load_device.type for t in tensors):
            patcher.model.to(patcher.load_device)
    return patchers[0].load_device


def place_separator(patcher: ModelPatcher) -> torch.device:
    return place_whole([patcher], _SEPARATOR_MEMORY)


def place_for_songs(model: SongModel, duration: float, songs: int) -> tuple[torch.device, int]:
    """Bring the language model to its device; returns that, and how many of `songs` may be written at a time:
    as many as leave the whole network there."""
    at_once = songs if model.is_quick else 1
    while True:
        needed = lm_memory(model, duration, at_once)
        device = (place if model.weights == WEIGHTS[0] else place_whole)([model.lm], needed)
        is_whole = model.lm.loaded_size() >= model.lm.model_size()
        if at_once == 1 or (is_whole and mm.get_free_memory(device) >= needed):
            break
        at_once = -(-at_once // 2)
    if at_once < songs:
        log.info("%d songs are written %d at a time", songs, at_once)
    return device, at_once


def lm_memory(model: SongModel, duration: float, songs: int = 1) -> int:
    """Bytes that the language model needs beside its weights to write so many songs at a time: the KV caches
    of both rows of each, and activations."""
    config, width = model.config, model.dtype.itemsize
    length = config.max_seq_len(check_duration(duration, config))
    positions = songs * length
    if model.is_quick:
        length = -(-length // _BLOCK) * _BLOCK
        positions = songs * length + config.prefix_length + 1  # the prefix has caches of its own at first
        if mm.is_device_cpu(model.lm.load_device):
            width = torch.float32.itemsize  # whatever the weights are in
    layers = config.num_hidden_layers + config.num_hidden_layers_sub
    cache = 2 * 2 * layers * positions * config.hidden_size * width
    # The rest: activations, and a token embedding without room on the card, which is copied whole at its use.
    return cache + 1024 * _MB


def render_memory() -> int:
    """Bytes that renderer and VAE need beside their weights: windows and chunks have fixed sizes."""
    return 2048 * _MB


def stop_if_cancelled() -> bool:
    """Raise ComfyUI's own exception once the user has pressed Cancel; made for `cancelled=` of the core."""
    mm.throw_exception_if_processing_interrupted()
    return False


def share_of(on_progress: OnProgress, part: int, parts: int) -> OnProgress:
    """`on_progress` for one of several parts of equal length, so that one bar runs over all of them."""

    def report(progress: Progress) -> None:
        done = part * progress.total + progress.done
        on_progress(Progress(progress.stage, done, parts * progress.total, progress.made))

    return report


class NodeProgress:
    """Progress of the core -> bar, picture and status line of one node; also notices Cancel."""

    def __init__(
        self, node: type[Any], *, songs: int = 1, num_codes: int | None = None, patience: float = 0.0
    ) -> None:
        """`songs`: how many are written under one bar. Ids from `num_codes` on are no codes.

        `patience`: seconds that a stage lasts before it says something, which makes its node grow.
        """
        self._songs, self._num_codes, self._patience = songs, num_codes, patience
        self._node_id = getattr(getattr(node, "hidden", None), "unique_id", None)
        self._stage = ""
        self._bar: Any = None
        self._first = (0, 0.0)
        self._next_text = self._next_picture = 0.0

    def __call__(self, progress: Progress) -> None:
        stop_if_cancelled()
        if progress.stage != self._stage:
            self._stage, self._bar = progress.stage, comfy.utils.ProgressBar(progress.total)
            self._first = (progress.done, time.monotonic())
        now = time.monotonic()
        self._bar.update_absolute(progress.done, progress.total, self._picture(progress, now))
        self._tell(progress, now)

    def _picture(self, progress: Progress, now: float) -> tuple[str, Image.Image, int] | None:
        """What was made so far, as ComfyUI shows it in the node; at the end and once in a while."""
        if progress.made is None or (now < self._next_picture and progress.done < progress.total):
            return None
        self._next_picture = now + _SECONDS_BETWEEN_PICTURES
        image = picture(progress.made, -(-progress.total // self._songs), self._num_codes)
        return "JPEG", image, max(image.size)

    def _tell(self, progress: Progress, now: float) -> None:
        """A short text under the node; a courtesy that not every frontend shows."""
        server = getattr(PromptServer, "instance", None)
        if server is None or self._node_id is None:
            return
        if now < self._first[1] + self._patience:
            return
        if now < self._next_text and progress.done < progress.total:
            return
        self._next_text = now + _SECONDS_BETWEEN_TEXTS
        server.send_progress_text(status_text(progress, self._first, now, self._songs), self._node_id)


def status_text(progress: Progress, first: tuple[int, float], now: float, songs: int = 1) -> str:
    """Such as `writing the song 0:12 of 0:30, about 0:08 left`; `first` is where and when the stage began.

    Of several songs that are written under one bar, the lengths are added up.
    """
    unit = " MB" if progress.stage.startswith(_IN_MB) else ""
    stage, counted = _STAGES.get(progress.stage, progress.stage), f"{progress.done}/{progress.total}{unit}"
    if progress.stage == "tokens":
        stage = stage if songs == 1 else f"writing {songs} songs"
        counted = f"{_clock(progress.done / FRAME_RATE)} of {_clock(progress.total / FRAME_RATE)}"
    text = f"{stage} {counted}"
    done, began = progress.done - first[0], first[1]
    if done <= 0 or progress.done >= progress.total:
        return text
    return f"{text}, about {_clock((progress.total - progress.done) * (now - began) / done)} left"


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
