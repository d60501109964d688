"""`songgen download`: a published model, or the part of it that is not there yet."""

import shlex
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import Cancelled, UserError
from ..hub.download import DownloadPlan, download, plan_download
from ..hub.licence import LICENCE_ID, LICENCE_LINK, accept, is_accepted, licence_text, require_acceptance
from ..hub.override import load_registry
from ..hub.registry import FEATURES, Registry
from .model import model_folders
from .options import Interrupted, UsageError
from .show import Console, size_text
from .stopping import ctrl_c


def run(args: Namespace) -> int:
    """List, plan or download."""
    console = Console(args)
    # Unlike other commands this one makes the folder if need be.
    roots = args.models_dir or model_folders(None)
    registry = load_registry(roots)
    if args.list:
        _list(console, registry)
        return 0
    if args.variant is None:
        raise UsageError("name a variant; see 'songgen download --list'")
    features = [name.strip() for name in args.features.split(",") if name.strip()]
    plan = plan_download(args.variant, features, roots[0], roots, registry)
    _show_plan(console, plan)
    files: list[Path] = []
    began = time.perf_counter()
    if plan.missing and not args.dry_run:
        _ask_for_licence(args, plan.root)
        files = _download(console, plan)
    took = time.perf_counter() - began
    if not args.dry_run:
        console.say(_what_next(args, plan))
    console.result(_result(plan, files, args.dry_run, took))
    return 0


def _download(console: Console, plan: DownloadPlan) -> list[Path]:
    try:
        with console.library_warnings(), ctrl_c() as cancelled, console.progress() as on_progress:
            return download(plan, on_progress=on_progress, cancelled=cancelled)
    except (KeyboardInterrupt, Cancelled):
        raise Interrupted("stopped; what has arrived is kept, the same command goes on from there") from None


def _ask_for_licence(args: Namespace, root: Path) -> None:
    """Once per models folder. Raises UserError where the terms are not accepted."""
    if args.accept_licence:
        accept(root)
    elif sys.stdin.isatty() and sys.stderr.isatty() and not is_accepted(root):
        print(licence_text(), file=sys.stderr)
        print("Do you accept these terms? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UserError("the licence was not accepted; nothing was downloaded")
        accept(root)
    require_acceptance(root)


def _list(console: Console, registry: Registry) -> None:
    rows: dict[str, Any] = {}
    for name, release in registry.releases.items():
        rows[name] = {
            "languages": list(release.languages),
            "max_seconds": release.max_seconds,
            "memory_gb": release.memory_gb,
            "memory_gb_with_prompt": release.memory_gb_with_prompt,
            "licence": release.licence,
            "bytes": {feature: registry.download_bytes(name, [feature]) for feature in FEATURES},
        }
        console.say(_row(name, rows[name]))
    console.say("GPU memory is what upstream asks for; sizes are for lyrics and descriptions alone")
    console.say(f"licence: {LICENCE_ID}, research and education only: {LICENCE_LINK}")
    source = registry.source and str(registry.source)
    if source:
        console.say(f"changed by {source}")
    console.result(
        {"variants": rows, "licence": LICENCE_ID, "licence_link": LICENCE_LINK, "registry": source}
    )


def _row(name: str, about: dict[str, Any]) -> str:
    languages = ", ".join(about["languages"]) or "languages unknown"
    length = f"{about['max_seconds']:.0f} s at most" if about["max_seconds"] else "length unknown"
    memory = f"{about['memory_gb']:g} GB" if about["memory_gb"] else "unknown memory"
    if about["memory_gb_with_prompt"]:
        memory += f" ({about['memory_gb_with_prompt']:g} GB with a prompt)"
    return (
        f"  {name:<10} {languages:<15} {length}, GPU {memory}, download {size_text(about['bytes']['text'])}"
    )


def _show_plan(console: Console, plan: DownloadPlan) -> None:
    for path in plan.found.values():
        console.say(f"  there: {path}")
    for file in plan.missing:
        exact = "" if file.bytes is not None else "about "
        console.say(f"  missing: {file.target}, {exact}{size_text(file.size)} from {file.repo}")
    if plan.missing:
        kept = f", {size_text(plan.arrived_bytes)} of it have arrived" if plan.arrived_bytes else ""
        console.say(f"{size_text(plan.total_bytes)} to download into {plan.root}{kept}")
    else:
        console.say(f"{plan.variant} is complete")


def _what_next(args: Namespace, plan: DownloadPlan) -> str:
    folders = "".join(f" --models-dir {shlex.quote(str(folder))}" for folder in args.models_dir or ())
    return f"next: songgen sing lyrics.txt -o song.flac --model {shlex.quote(plan.model_name)}{folders}"


def _result(plan: DownloadPlan, files: list[Path], dry_run: bool, seconds: float) -> dict[str, Any]:
    return {
        "variant": plan.variant,
        "model": plan.model_name,
        "dry_run": dry_run,
        "found": {target: str(path) for target, path in plan.found.items()},
        "missing": [
            {"target": f.target, "repo": f.repo, "revision": f.revision, "path": f.path, "bytes": f.bytes}
            for f in plan.missing
        ],
        "bytes": plan.total_bytes,
        "files": [str(path) for path in files],
        "elapsed_seconds": round(seconds, 2),
    }
