"""The folder list is the architecture: who may import whom, and what importing may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "songgen_core"

# Package -> packages of the core that it may import; `errors`, `configs` and `seeds` are free for all.
ALLOWED = {
    "errors": set(),
    "atomic": set(),
    "seeds": set(),
    "codes_file": {"atomic"},
    "configs": set(),
    "layers": {"layers"},
    "models": {"layers"},
    "text": {"text"},
    "audio": {"atomic", "audio", "progress"},
    "progress": set(),
    "devices": set(),
    "generation": {"generation", "models", "layers", "text"},
    "checkpoint": {"checkpoint", "layers", "models", "text", "progress"},
    "selftest": {"layers", "models", "text"},
    "prompts": {
        *(
            "atomic",
            "audio",
            "checkpoint",
            "devices",
            "generation",
            "layers",
            "models",
            "progress",
            "prompts",
        ),
        *("selftest", "text"),
    },
    "codec": {"checkpoint", "devices", "generation", "models", "progress", "prompts"},
    "writing": {"generation", "models", "progress", "text"},
    "engine": {"codec", "generation", "models", "progress"},
    "fast": {
        "codec",
        "devices",
        "engine",
        "fast",
        "generation",
        "layers",
        "models",
        "progress",
        "prompts",
        *("text", "writing"),
    },
    "pipeline": {
        *("checkpoint", "codec", "devices", "engine", "generation", "models", "progress", "prompts"),
        *("selftest", "text", "writing"),
    },
    "hub": {"atomic", "checkpoint", "hub", "progress", ""},
    "analysis": {"analysis", "audio", "layers", "progress", "text"},
    "checking": {"analysis", "checking", "codec", "pipeline", "progress", "text"},
    "cli": {
        *("analysis", "atomic", "audio", "checking", "checkpoint", "cli", "codec", "codes_file", "devices"),
        *("hub", "engine", "pipeline", "progress", "prompts", "selftest", "text", "writing", ""),
    },
    "": {"codec", "generation", "pipeline", "progress", "prompts", "writing"},  # songgen_core/__init__.py
}


def package_of(path: Path) -> str:
    parts = path.relative_to(CORE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imported_packages(path: Path) -> set[str]:
    """First-level packages of the core that a file imports, at any depth of nesting."""
    here = ("songgen_core", *path.relative_to(CORE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1] + tuple((node.module or "").split("."))
            target = [p for p in base if p][1:]
            names = (
                [target[0]]
                if target
                else [
                    a.name for a in node.names if (CORE / a.name).exists() or (CORE / f"{a.name}.py").exists()
                ]
                or [""]
            )
            found.update(names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(m and m.startswith("songgen_core") for m in modules), f"{path}: import relatively"
    return found


FILES = sorted(CORE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CORE)))
def test_imports_go_one_way(path: Path) -> None:
    package = package_of(path)
    assert package in ALLOWED, f"{package}/ is new; say in ALLOWED what it may import"
    forbidden = imported_packages(path) - ALLOWED[package] - {"errors", "configs", "seeds"}
    assert not forbidden, f"{package} must not import {sorted(forbidden)}"


def test_models_do_not_import_each_other() -> None:
    for path in (CORE / "models").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level == 1), (
                f"{path.name} imports another model"
            )


def module_graph() -> dict[str, set[str]]:
    """Module-level imports between the files of the core."""
    names = {p: ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in FILES}
    modules = set(names.values())
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for path, name in names.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
                base_name = ".".join(p for p in base if p)
                targets = {base_name, *(f"{base_name}.{a.name}" for a in node.names)}
                graph[name] |= (targets & modules) - {name}
    return graph


def test_no_import_cycles() -> None:
    graph = module_graph()
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join([*trail, name])}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_core_does_not_know_comfyui() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            modules += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            roots = {m.split(".")[0] for m in modules}
            assert not roots & {"comfy", "comfy_api", "folder_paths", "server", "nodes"}, path


def test_importing_the_core_does_nothing_but_define_names() -> None:
    """No file or folder is made, no network is used, no seed, thread count or logging is touched."""
    program = """
import logging, os, random, socket, sys, tempfile
import torch
os.chdir(tempfile.mkdtemp())
def refuse(*args, **kwargs): raise AssertionError("network at import")
socket.socket.connect = refuse
before = (torch.random.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(),
          random.getstate(), list(logging.getLogger().handlers))
import songgen_core
after = (torch.random.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(),
         random.getstate(), list(logging.getLogger().handlers))
assert before == after
assert os.listdir() == []
assert not torch.cuda.is_initialized()
assert "torchaudio" not in sys.modules and "av" not in sys.modules and "transformers" not in sys.modules
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    assert run.returncode == 0, run.stderr
