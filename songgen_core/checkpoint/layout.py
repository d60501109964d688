"""Where the files of a song model lie: every layout that upstream and its users have on their disks.

Files are recognised by what is in them; names only decide where to look first.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Literal

from ..configs import FRAME_RATE, SAMPLE_RATE, VARIANTS
from ..errors import CheckpointError
from ..text.bpe import has_tokenizer
from .files import (
    TORCH_SUFFIXES,
    WEIGHT_SUFFIXES,
    Shapes,
    classes_in,
    read_torch_object,
    tensor_shapes,
)
from .keymaps import LM_PREFIX

Kind = Literal["lm", "fused_lm", "codec", "mixed_codec", "vae", "separator", "presets"]
SharedKind = Literal["codec", "mixed_codec", "vae", "separator", "presets"]

MINI = "mini"  # the small model that comes with this package; its folder holds everything it needs
MINI_FOLDER = Path(__file__).parents[1] / MINI

_SEARCH_DEPTH, _MAX_FOLDERS = 4, 2000  # a root that is no model folder (a whole disk) must not stall us
_LM_SIGN = "transformer2.model.layers.0.self_attn.q_proj.weight"
_UPSAMPLING = re.compile(
    r"decoder\.layers\.\d+\.layers\.1\.(weight|weight_v|parametrizations\.weight\.original1)"
)
_WHAT: dict[Kind | None, str] = {
    "fused_lm": "a song model with fused projections, as a fork saves it",
    "codec": "the two-track codec",
    "mixed_codec": "the mixed codec",
    "vae": "the VAE",
    "separator": "the stem separator",
    "presets": "a file of stored prompts",
    None: "no file of this family",
}
_NEEDED: dict[SharedKind, str] = {
    "codec": "the two-track codec, ckpt/model_septoken/model_2.safetensors",
    "mixed_codec": "the mixed codec, ckpt/model_1rvq/model_2_fixed.safetensors",
    "vae": "the VAE, ckpt/vae/autoencoder_music_1320k.ckpt",
    "separator": "the stem separator, third_party/demucs/ckpt/htdemucs.pth",
    "presets": "the stored prompts, tools/new_auto_prompt.pt",
}
_LIKELY_NAMES: dict[SharedKind, tuple[str, ...]] = {
    "codec": ("septoken", "model_2"),
    "mixed_codec": ("1rvq", "model_2_fixed"),
    "vae": ("vae", "autoencoder"),
    "separator": ("demucs",),
    "presets": ("new_auto_prompt", "auto_prompt", "prompt"),
}
# Folders of the shared files, seen from the folder of the song model and from the two above it.
_SHARED_FOLDERS = tuple(
    Path(base, folder)
    for base in ("", "ckpt", "common", "common/ckpt", "tools", "third_party/demucs/ckpt")
    for folder in ("", "model_septoken", "model_1rvq", "vae", "demucs", "htdemucs")
)


@dataclass(frozen=True, kw_only=True)
class SharedFiles:
    """What all song models share; enough to render codes and to read recordings."""

    codec: Path
    vae: Path
    roots: tuple[Path, ...] = ()  # where what only prompts need is looked for
    near: Path | None = None  # the song model, around which it is looked for first

    def find(self, kind: SharedKind) -> Path:
        """A shared file that text-to-song generation does without. Raises CheckpointError."""
        return find_shared(kind, self.roots, self.near)


@dataclass(frozen=True, kw_only=True)
class ModelFiles(SharedFiles):
    """Everything that text-to-song generation reads."""

    name: str
    weights: Path
    config: Path | None  # None: sizes of the published variant named `variant`
    variant: str | None
    tokenizer: Path | None  # a folder; None is the Qwen2 tokenizer that comes with this package

    @property
    def is_mini(self) -> bool:
        """Whether it is the model that comes with this package."""
        return self.weights.parent == MINI_FOLDER


def identify(path: Path) -> Kind | None:
    """What a weight file is, from its key names. Raises CheckpointError for a file that cannot be read."""
    try:
        stat = path.stat()
    except OSError:
        return _kind_of_file(path)  # which explains what is wrong
    kind, problem = _identify(path, stat.st_size, stat.st_mtime_ns)
    if problem is not None:
        raise CheckpointError(problem)
    return kind


@lru_cache(maxsize=4096)
def _identify(path: Path, size: int, modified: int) -> tuple[Kind | None, str | None]:
    """What a file is and what is wrong with it: a damaged one is large, and is looked at again and again.

    The text of the error alone is kept: each raise would add to its traceback, whose locals stay alive.
    """
    try:
        return _kind_of_file(path), None
    except CheckpointError as error:
        return None, str(error)


def _kind_of_file(path: Path) -> Kind | None:
    try:
        return _kind(tensor_shapes(path))
    except CheckpointError:
        with suppress(CheckpointError, OSError):
            if (kind := _kind_of_other_data(path)) is not None:
                return kind
        raise


def _kind_of_other_data(path: Path) -> Kind | None:
    """Torch files that are no table of tensors: Meta's own package of the separator, stored prompts."""
    if path.suffix not in TORCH_SUFFIXES:
        return None
    if "demucs.htdemucs.HTDemucs" in classes_in(path):
        return "separator"
    loaded = read_torch_object(path, "meta")
    values = list(loaded.values()) if isinstance(loaded, dict) else []
    return "presets" if values and all(isinstance(v, dict | list | tuple) for v in values) else None


def _kind(shapes: Shapes) -> Kind | None:
    names = {n.removeprefix(LM_PREFIX) for n in shapes}
    if any(n.startswith("transformer2.") for n in names):
        return "lm" if _LM_SIGN in names else "fused_lm"
    if "rvq_bestrq_bgm_emb.quantizers.0.codebook.weight" in names:
        return "codec" if any(n.startswith("cfm_wrapper.estimator.") for n in names) else None
    if "rvq_bestrq_emb.quantizers.0.codebook.weight" in names:
        return "mixed_codec"
    # Other models have the same VAE with another frame rate; a kernel is two strides wide.
    kernels = [shape[-1] for name, shape in shapes.items() if _UPSAMPLING.fullmatch(name) and shape]
    if kernels and prod(k // 2 for k in kernels) == SAMPLE_RATE // FRAME_RATE:
        return "vae"
    return "separator" if "crosstransformer.layers.0.gamma_1.scale" in names else None


def list_models(roots: Iterable[Path]) -> dict[str, Path]:
    """Names of the song models under `roots` -> weight files; the first root wins. Never raises."""
    found: dict[str, Path] = {}
    for root in roots:
        for path in weight_files(root):
            if _is_song_model(path):
                found.setdefault(_model_name(path), path)
    return found


def _is_song_model(path: Path) -> bool:
    """A weight file called model.* beside a config.yaml is taken at its word, others are looked into."""
    try:
        with_config = path.stem == "model" and (path.parent / "config.yaml").exists()
        return with_config or identify(path) == "lm"
    except (CheckpointError, OSError, MemoryError):
        return False  # damaged or unreadable: named when somebody asks for it


def _model_name(path: Path) -> str:
    return path.absolute().parent.name if path.stem == "model" else path.stem


def weight_files(root: Path) -> Iterator[Path]:
    """Weight files under `root`, nearest first; hidden files and folders are skipped."""
    level = [root]
    seen: set[str] = set()
    for _ in range(_SEARCH_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            real = os.path.realpath(folder)
            if real in seen or len(seen) >= _MAX_FOLDERS:
                continue
            seen.add(real)
            files, folders = _list_folder(folder)
            yield from files
            below += folders
        level = below


def _list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Visible weight files (.safetensors first) and folders in `folder`; none if it cannot be read."""
    _, folders, files = next(os.walk(folder), ("", [], []))
    found = [folder / n for n in files if n.endswith(WEIGHT_SUFFIXES) and not n.startswith(".")]
    found.sort(key=lambda p: (p.suffix != ".safetensors", p.name))
    inside = [folder / n for n in sorted(folders) if not n.startswith(".")]
    return [p for p in found if os.path.isfile(p)], inside


def find_model(name: str | Path, roots: Sequence[Path] = (), variant: str | None = None) -> ModelFiles:
    """Files of the model `name`: one found under `roots`, a path to its folder or weight file, or "mini".

    `variant` names the published variant where no config.yaml lies beside the weights, and overrides one
    that does. Raises CheckpointError that says what is missing and where it was looked for.
    """
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"variant '{variant}' is unknown; choose one of {', '.join(VARIANTS)}")
    weights = _find_weights(name, roots)
    if (kind := identify(weights)) != "lm":
        raise CheckpointError(f"{weights} is {_WHAT[kind]}; name the published song model (model.pt)")
    config = weights.parent / "config.yaml"
    has_config = config.exists() and variant is None
    return ModelFiles(
        name=_model_name(weights),
        weights=weights,
        config=config if has_config else None,
        variant=None if has_config else variant or _variant_by_name(weights),
        codec=find_shared("codec", roots, weights),
        vae=find_shared("vae", roots, weights),
        tokenizer=weights.parent if has_tokenizer(weights.parent) else None,
        roots=tuple(roots),
        near=weights,
    )


def find_codec(roots: Sequence[Path]) -> SharedFiles:
    """Codec and VAE without any song model. Raises CheckpointError."""
    codec = find_shared("codec", roots)
    return SharedFiles(codec=codec, vae=find_shared("vae", roots, codec), roots=tuple(roots), near=codec)


def _find_weights(name: str | Path, roots: Sequence[Path]) -> Path:
    models = list_models(roots)
    if str(name) in models:
        return models[str(name)]
    if name == MINI:  # a folder of that name is ./mini
        return _only_model(MINI_FOLDER)
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        return _only_model(path)
    for unfit in (p for root in roots for p in weight_files(root) if _model_name(p) == str(name)):
        return unfit  # which the caller explains
    known = ", ".join(models) or "none"
    looked = ", ".join(map(str, roots)) or "no folder"
    raise CheckpointError(f"no model '{name}'; found {known} in {looked}. Give a name, a folder or '{MINI}'")


def _only_model(folder: Path) -> Path:
    models = list(list_models([folder]).values())
    if not models:
        models = [p for p in weight_files(folder) if p.stem == "model"][:1]  # which the caller explains
    if len(models) != 1:
        several = f"several song models ({', '.join(map(str, models))}); name one of them"
        raise CheckpointError(
            f"{folder} holds {several if models else 'no song model; put config.yaml and model.pt there'}"
        )
    return models[0]


def published_variant(name: str) -> str | None:
    """The published variant that a folder or file is named after."""
    plain = name.lower().replace("_", "-").removeprefix("songgeneration-")
    return plain if plain in VARIANTS else None


def find_variant(variant: str, roots: Sequence[Path]) -> Path | None:
    """Weights of a published variant under `roots`, by the name of its folder or file."""
    for path in list_models(roots).values():
        if variant in (published_variant(path.stem), published_variant(path.absolute().parent.name)):
            return path
    return None


def _variant_by_name(weights: Path) -> str:
    variant = published_variant(weights.stem) or published_variant(weights.absolute().parent.name)
    if variant is None:
        raise CheckpointError(
            f"no config.yaml beside {weights}, and its name is no published variant; put the published"
            f" config.yaml there or name the variant ({', '.join(VARIANTS)})"
        )
    return variant


def find_shared(kind: SharedKind, roots: Sequence[Path], near: Path | None = None) -> Path:
    """A file that all song models share: around the song model `near`, then anywhere under `roots`.

    Likely names are opened first, then every weight file. Raises CheckpointError that says where it was
    looked for.
    """
    seen = list(dict.fromkeys(_candidates(near, roots)))
    names = _LIKELY_NAMES[kind]
    rank = {p: next((i for i, n in enumerate(names) if n in str(p).lower()), len(names)) for p in seen}
    damaged: Path | None = None
    for path in sorted(seen, key=lambda p: rank[p]):
        try:
            if identify(path) == kind:
                return path
        except (CheckpointError, OSError):
            damaged = damaged or (path if rank[path] < len(names) else None)
    if damaged is not None:
        identify(damaged)  # which explains what is wrong
    homes = [near.absolute().parent.parent] if near else []
    looked = ", ".join(dict.fromkeys(map(str, [*homes, *roots])))
    raise CheckpointError(
        f"{_NEEDED[kind]} was not found in {looked}; get it with 'songgen download' or the Load LeVo"
        " Model node"
    )


def _candidates(near: Path | None, roots: Sequence[Path]) -> Iterator[Path]:
    """Weight files that may be shared ones: around the song model, then under the roots."""
    if near is not None:
        home = near.absolute().parent
        yield from weight_files(home)
        for above in list(home.parents)[:2]:
            for folder in _SHARED_FOLDERS:
                yield from _list_folder(above / folder)[0]
    for root in roots:
        yield from weight_files(root)
