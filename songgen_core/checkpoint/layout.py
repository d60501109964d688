"""Where the files of a song model lie: every layout that upstream and its users have on their disks.

Files are recognised by what is in them; names only decide where to look first.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ..configs import VARIANTS
from ..errors import CheckpointError
from .files import TORCH_SUFFIXES, tensor_shapes

Kind = Literal["lm", "codec", "mixed_codec", "vae", "separator"]

WEIGHT_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_SEARCH_DEPTH = 4
_LM_SIGN = "transformer2.model.layers.0.self_attn.q_proj.weight"
_NEEDED: dict[str, str] = {
    "codec": "the two-track codec, ckpt/model_septoken/model_2.safetensors",
    "vae": "the VAE, ckpt/vae/autoencoder_music_1320k.ckpt",
}
_LIKELY_NAMES = {"codec": ("septoken", "model_2"), "vae": ("vae", "autoencoder")}


@dataclass(frozen=True)
class ModelFiles:
    """Everything that text-to-song generation reads."""

    name: str
    weights: Path
    config: Path | None  # None: sizes of the published variant named `variant`
    variant: str | None
    codec: Path
    vae: Path
    tokenizer: Path | None  # a folder; None is the Qwen2 tokenizer that comes with this package


def identify(path: Path) -> Kind | None:
    """What a weight file is, from its key names. Raises CheckpointError for a file that cannot be read."""
    stat = path.stat()
    return _identify(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _identify(path: Path, size: int, modified: int) -> Kind | None:
    names = {n.removeprefix("audiolm.") for n in tensor_shapes(path)}
    if _LM_SIGN in names:
        return "lm"
    if "rvq_bestrq_emb.quantizers.0.codebook.weight" in names:
        return "codec" if "rvq_bestrq_bgm_emb.quantizers.0.codebook.weight" in names else "mixed_codec"
    if any(n.startswith("decoder.layers.0.") for n in names):
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
    if path.stem == "model" and (path.parent / "config.yaml").exists():
        return True
    try:
        return identify(path) == "lm"
    except (CheckpointError, OSError):
        return False  # damaged or unreadable: named when somebody asks for it


def _model_name(path: Path) -> str:
    return path.parent.name if path.stem == "model" else path.stem


def weight_files(root: Path, depth: int = _SEARCH_DEPTH) -> Iterator[Path]:
    """Weight files under `root`, nearest first; hidden files and folders are skipped."""
    try:
        entries = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    except OSError:
        return
    yield from (p for p in entries if p.suffix in WEIGHT_SUFFIXES and p.is_file())
    if depth > 0:
        for folder in (p for p in entries if p.is_dir()):
            yield from weight_files(folder, depth - 1)


def find_model(name: str | Path, roots: Sequence[Path] = (), variant: str | None = None) -> ModelFiles:
    """Files of the model `name`: one found under `roots`, or a path to its folder or weight file.

    `variant` names the published variant where no config.yaml lies beside the weights. Raises
    CheckpointError that says what is missing and where it was looked for.
    """
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"variant '{variant}' is unknown; choose one of {', '.join(VARIANTS)}")
    weights = _find_weights(name, roots)
    near = [weights.parent, *list(weights.parent.parents)[:2], *roots]
    config = weights.parent / "config.yaml"
    has_config = config.exists() and variant is None
    return ModelFiles(
        name=_model_name(weights),
        weights=weights,
        config=config if has_config else None,
        variant=None if has_config else variant or variant_by_name(weights),
        codec=_find_shared("codec", near),
        vae=_find_shared("vae", near),
        tokenizer=weights.parent if _has_tokenizer(weights.parent) else None,
    )


def _find_weights(name: str | Path, roots: Sequence[Path]) -> Path:
    models = list_models(roots)
    if str(name) in models:
        return models[str(name)]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        inside = list_models([path])
        if len(inside) == 1:
            return next(iter(inside.values()))
        what = f"several song models ({', '.join(inside)}); name one of them" if inside else "no song model"
        raise CheckpointError(f"{path} holds {what}")
    known = ", ".join(models) or "none"
    looked = ", ".join(map(str, roots)) or "no folder"
    raise CheckpointError(f"no model '{name}'; found {known} in {looked}. Give a name, a folder or 'selftest'")


def variant_by_name(weights: Path) -> str:
    """The published variant that a folder or file is named after. Raises CheckpointError if it is none."""
    for raw in (weights.stem, weights.parent.name):
        name = raw.lower().replace("_", "-").removeprefix("songgeneration-")
        if name in VARIANTS:
            return name
    raise CheckpointError(
        f"no config.yaml beside {weights}, and its name is no published variant; put the published config.yaml"
        f" there or name the variant ({', '.join(VARIANTS)})"
    )


def _find_shared(kind: Literal["codec", "vae"], folders: Sequence[Path]) -> Path:
    """The first file of `kind`: likely names are opened first, then every weight file."""
    seen: dict[Path, None] = {}
    for folder in folders:
        seen.update(dict.fromkeys(weight_files(folder)))
    likely = [p for p in seen if any(n in str(p).lower() for n in _LIKELY_NAMES[kind])]
    problem: CheckpointError | None = None
    for path in dict.fromkeys([*likely, *seen]):
        try:
            if identify(path) == kind:
                return path
        except CheckpointError as error:
            problem = problem or (error if path in likely else None)
    if problem is not None:
        raise problem
    looked = ", ".join(dict.fromkeys(map(str, folders)))
    raise CheckpointError(f"{_NEEDED[kind]} was not found in {looked}; download it from lglg666/SongGeneration-Runtime")


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").exists() or all((folder / n).exists() for n in ("vocab.json", "merges.txt"))
