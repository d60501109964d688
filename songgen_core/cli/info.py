"""`songgen info`: this machine and the models on it, or what one file is."""

import os
import platform
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..checkpoint.convert import check_complete
from ..checkpoint.files import WEIGHT_SUFFIXES, read_state_dict
from ..checkpoint.layout import MINI_FOLDER, Kind, ModelFiles, SharedKind, find_model, identify, list_models
from ..checkpoint.load_model import language_model_config
from ..codes_file import is_codes_file, load_codes
from ..configs import FRAME_RATE, VARIANTS, LeLMConfig
from ..devices import choose_device
from ..engine import describe_memory
from ..errors import UserError
from ..prompts.load_separator import separator_tensors
from ..prompts.presets import load_presets
from ..text.bpe import QWEN2_FOLDER
from .model import model_folders
from .show import Console, size_text

LICENCE = "weights: research and education only, under Tencent's terms (License Terms of SongGeneration)"
_KINDS = {
    "lm": "song model",
    "fused_lm": "song model with fused projections (of a fork; not supported)",
    "codec": "two-track codec",
    "mixed_codec": "mixed codec",
    "vae": "VAE",
    "separator": "stem separator",
    "presets": "stored prompts",
    "codes": "file of codes",
    None: "unknown",
}
_OPTIONAL = {
    "mixed_codec": "a recording as a prompt",
    "separator": "a recording without its stems",
    "presets": "--genre",
}


def run(args: Namespace) -> int:
    """Tell; a file with problems is exit code 0 all the same, since the problem is the answer."""
    console = Console(args)
    if args.duration is not None and args.plan is None:
        raise UserError("--duration belongs to a plan; add --plan with the GB of a card, or leave it out")
    roots = model_folders(args.models_dir)
    if args.plan is not None:
        plan = describe_memory(
            args.plan, _config(args.what, roots), dtype=torch.float16, duration=args.duration
        )
        console.say(plan)
        console.result({"plan": plan.splitlines()})
        return 0
    if args.what is None:
        report = _machine(roots)
        _show_machine(console, report)
    elif (path := _weight_file(args.what)) is not None:
        report = describe_file(path)
        _show_file(console, report)
    else:
        model = describe_model(args.what, roots)
        report = {**describe_file(Path(model["path"])), **model}
        _show_file(console, report)
    console.result(report)
    return 0


def _config(what: str | None, roots: list[Path]) -> LeLMConfig:
    """Sizes of a published variant or of a model on this machine. Raises UserError, CheckpointError."""
    if what is None:
        raise UserError(f"--plan needs a model; name one, or a variant: {', '.join(VARIANTS)}")
    if what in VARIANTS:
        return VARIANTS[what].lm
    files = find_model(what, roots)
    return language_model_config(files, files.tokenizer or QWEN2_FOLDER)


def _weight_file(what: str) -> Path | None:
    """A file that was named as such; folders and names are those of models."""
    path = Path(what).expanduser()
    return path if path.suffix in WEIGHT_SUFFIXES or path.is_file() else None


def describe_file(path: Path) -> dict[str, Any]:
    """Kind, size and problems of a file. Raises CheckpointError if it cannot be read."""
    if is_codes_file(path):
        return _describe_codes(path)
    kind = identify(path)
    state = _tensors(kind, path)
    dtypes: dict[str, int] = {}
    for tensor in state.values():
        name = str(tensor.dtype).removeprefix("torch.")
        dtypes[name] = dtypes.get(name, 0) + tensor.numel() * tensor.element_size()
    problems = [] if kind else ["it is none of the files that SongGen reads"]
    try:
        check_complete(kind, state, path)
    except UserError as error:
        problems.append(str(error))
    return {
        "path": str(path),
        "kind": kind,
        "bytes": path.stat().st_size,
        "tensors": len(state),
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "dtype_bytes": dtypes,
        "problems": problems,
    }


def _describe_codes(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"path": str(path), "kind": "codes", "bytes": path.stat().st_size}
    try:
        codes, notes = load_codes(path)
    except UserError as error:
        return {**about, "problems": [str(error)]}
    frames = codes.shape[-1]
    return {**about, "frames": frames, "seconds": frames / FRAME_RATE, "notes": notes, "problems": []}


def _tensors(kind: Kind | None, path: Path) -> dict[str, Tensor]:
    """Tensors by name. Raises CheckpointError if they cannot be read."""
    if kind == "presets":
        prompts = load_presets(path).prompts
        return {
            f"{genre} {language} {number}": codes
            for genre, languages in prompts.items()
            for language, found in languages.items()
            for number, codes in enumerate(found)
        }
    if kind == "separator":
        return separator_tensors(path)
    return read_state_dict(path)


def describe_model(name: str, roots: list[Path]) -> dict[str, Any]:
    """Where the files of a song model lie and what it can do. Raises CheckpointError if one is missing."""
    files = find_model(name, roots)
    config = language_model_config(files, files.tokenizer or QWEN2_FOLDER)
    return {
        "name": files.name,
        "path": str(files.weights),
        "variant": files.variant,
        "text_version": config.text_version,
        "max_seconds": config.max_duration,
        "config": files.config and str(files.config),
        "codec": str(files.codec),
        "vae": str(files.vae),
        **{kind: _found_file(files, kind) for kind in ("mixed_codec", "separator", "presets")},
    }


def _found_file(files: ModelFiles, kind: SharedKind) -> str | None:
    try:
        return str(files.find(kind))
    except UserError:
        return None


def _machine(roots: list[Path]) -> dict[str, Any]:
    device = choose_device()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "memory_bytes": _memory(device),
        "folders": [str(root) for root in roots],
        "models": [_found(name, path, roots) for name, path in list_models(roots).items()],
        "built_in": describe_model(str(MINI_FOLDER), []),
        "variants": {
            name: {
                "languages": list(variant.languages),
                "max_seconds": variant.lm.max_duration,
                "text_version": variant.lm.text_version,
                "bytes": variant.model_bytes,
            }
            for name, variant in VARIANTS.items()
        },
        "licence": LICENCE,
    }


def _memory(device: torch.device) -> int | None:
    """Bytes of the device, of the machine for CPU and MPS; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _found(name: str, path: Path, roots: list[Path]) -> dict[str, Any]:
    about: dict[str, Any] = {"name": name, "path": str(path), "bytes": 0, "problem": None}
    try:
        about["bytes"] = path.stat().st_size
        return {**about, **describe_model(str(path), roots)}
    except (UserError, OSError) as error:
        return {**about, "problem": str(error)}


def _show_machine(console: Console, report: dict[str, Any]) -> None:
    memory = size_text(report["memory_bytes"]) if report["memory_bytes"] else "memory unknown"
    console.say(f"SongGen {report['version']}, Python {report['python']}, torch {report['torch']}")
    console.say(f"device: {report['device']} ({report['device_name']}, {memory})")
    console.say(f"model folders: {', '.join(os.path.abspath(folder) for folder in report['folders'])}")
    for model in report["models"]:
        console.say(f"  {model['name']}: {model['path']}, {size_text(model['bytes'])}, {_ability(model)}")
    if not report["models"]:
        console.say("  no model there; put a folder with model.pt and config.yaml into one of them")
    mini = report["built_in"]
    console.say(f"  {mini['name']}: comes with SongGen, {mini['max_seconds']:g} s at most")
    console.say("published variants:")
    for name, variant in report["variants"].items():
        languages = ", ".join(variant["languages"])
        length = f"{variant['max_seconds']:.0f} s at most"
        console.say(f"  {name:<10} {languages:<15} {length}, {size_text(variant['bytes'])}")
    console.say(report["licence"])


def _ability(model: dict[str, Any]) -> str:
    if model["problem"]:
        return f"problem: {model['problem']}"
    variant = f"{model['variant']}, " if model["variant"] else ""
    return f"{variant}{model['text_version']} texts, {model['max_seconds']:g} s at most"


def _show_file(console: Console, report: dict[str, Any]) -> None:
    console.say(f"{report['path']}: {_KINDS[report['kind']]}, {size_text(report['bytes'])}")
    if "tensors" in report:
        dtypes = ", ".join(f"{name} {size_text(size)}" for name, size in report["dtype_bytes"].items())
        console.say(f"  {report['tensors']} tensors, {report['parameters']:,} parameters ({dtypes})")
    if "frames" in report:
        console.say(f"  {report['seconds']:.1f} s, {report['frames']} frames; hear it with: songgen decode")
    if "max_seconds" in report:
        console.say(f"  {report['text_version']} texts, {report['max_seconds']:g} s at most")
        console.say(f"  codec: {report['codec']}")
        console.say(f"  VAE: {report['vae']}")
        for kind, use in _OPTIONAL.items():
            console.say(f"  {_KINDS[kind]}: {report[kind] or f'not found; {use} needs it'}")
    for problem in report["problems"]:
        console.say(f"  problem: {problem}")
    if not report["problems"]:
        console.say("  no problems found")
