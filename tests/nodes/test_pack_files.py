"""What can be said about the pack without a ComfyUI: its root file, texts, workflows and script."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE_IDS = {
    found
    for path in (ROOT / "nodes").glob("*.py")
    for found in re.findall(r'node_id="(\w+)"', path.read_text())
}


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def texts_in(tree, path=()):
    """Path -> text of every leaf."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, branch in tree.items() for k, v in texts_in(branch, (*path, name)).items()}


def test_the_root_file_imports_nothing_and_takes_no_time():
    program = f"""
import importlib.util, sys, time
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r},
                                              submodule_search_locations=[{str(ROOT)!r}])
pack = importlib.util.module_from_spec(spec); sys.modules["pack"] = pack; spec.loader.exec_module(pack)
assert time.perf_counter() - start < 0.5
assert "torch" not in sys.modules and not any(name.startswith("pack.") for name in sys.modules)
assert pack.WEB_DIRECTORY == "./web" and callable(pack.comfy_entrypoint)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_node_has_a_unique_prefixed_id():
    assert len(NODE_IDS) == 16
    assert all(node_id.startswith("SongGen") for node_id in NODE_IDS)


def test_chinese_and_english_texts_cover_the_same_nodes_inputs_and_outputs():
    english, chinese = (
        texts_in(read_json(ROOT / "locales" / lang / "nodeDefs.json")) for lang in ("en", "zh")
    )
    assert set(english) == set(chinese)
    assert {path[0] for path in english} == NODE_IDS
    assert all(isinstance(text, str) and text for text in (*english.values(), *chinese.values()))


def test_no_chinese_text_was_left_in_english():
    chinese = texts_in(read_json(ROOT / "locales" / "zh" / "nodeDefs.json"))
    untranslated = [p for p, text in chinese.items() if not re.search("[\u4e00-\u9fff]", text)]
    assert {path[-2] for path in untranslated} <= {"top_k", "top_p"}, untranslated


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").rglob("*.json")), ids=lambda p: p.name)
def test_workflows_use_only_our_nodes_that_exist(path):
    used = set(re.findall(r'"(SongGen\w+)"', path.read_text(encoding="utf-8")))
    assert used and used <= NODE_IDS


def test_the_player_is_attached_to_a_node_that_exists():
    script = (ROOT / "web" / "js" / "songgen.js").read_text(encoding="utf-8")
    assert set(re.findall(r'"(SongGen\w+)"', script)) == {"SongGenSaveAudio"} <= NODE_IDS
