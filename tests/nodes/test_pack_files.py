"""What can be said about the pack without a ComfyUI: its root file, texts, workflows and script."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NODE_IDS = {
    found
    for path in (ROOT / "nodes").glob("*.py")
    for found in re.findall(r'node_id="(\w+)"', path.read_text())
}

# What a text holds that is in this language.
TRANSLATIONS = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30fa\u4e00-\u9fff]"}


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def texts_in(tree, path=()):
    """Path -> text of every leaf."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, branch in tree.items() for k, v in texts_in(branch, (*path, name)).items()}


def texts_of(language):
    return texts_in(read_json(ROOT / "locales" / language / "nodeDefs.json"))


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
    assert len(NODE_IDS) == 21
    assert all(node_id.startswith("SongGen") for node_id in NODE_IDS)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_covers_the_nodes_inputs_and_outputs_of_the_english_texts(language):
    english, translated = texts_of("en"), texts_of(language)
    assert list(english) == list(translated)
    assert {path[0] for path in english} == NODE_IDS
    assert all(isinstance(text, str) and text for text in (*english.values(), *translated.values()))


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_no_text_was_left_in_english(language):
    untranslated = {p: t for p, t in texts_of(language).items() if not re.search(TRANSLATIONS[language], t)}
    assert set(untranslated.values()) <= {"top_k", "top_p", "BPM", "LRC", "SRT"}, untranslated


def test_chinese_and_japanese_texts_are_not_mixed_up():
    kana = "[\u3040-\u30fa]"
    assert not [text for text in texts_of("zh").values() if re.search(kana, text)]
    tooltips = {path: text for path, text in texts_of("ja").items() if path[-1] in ("description", "tooltip")}
    assert not {path: text for path, text in tooltips.items() if not re.search(kana, text)}


@pytest.mark.parametrize(
    ("language", "quoted"), [("zh", "“([^”\\w]*\\w[^”]*)”"), ("ja", "「([^」\\w]*\\w[^」]*)」")]
)
def test_a_translation_calls_nodes_and_inputs_by_the_names_that_it_gave_them(language, quoted):
    texts = texts_of(language)
    names = {t.partition(" (")[0] for path, t in texts.items() if path[-1] in ("name", "display_name")}
    named = {name for text in texts.values() for name in re.findall(quoted, text)}
    assert named - names <= {"创建视频", "動画を作成", "License Terms of SongGeneration"}  # not ours


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").rglob("*.json")), ids=lambda p: p.name)
def test_workflows_use_only_our_nodes_that_exist(path):
    used = set(re.findall(r'"(SongGen\w+)"', path.read_text(encoding="utf-8")))
    assert used and used <= NODE_IDS


def test_the_player_is_attached_to_a_node_that_exists():
    script = (ROOT / "web" / "js" / "songgen.js").read_text(encoding="utf-8")
    assert set(re.findall(r'"(SongGen\w+)"', script)) == {"SongGenSaveAudio"} <= NODE_IDS


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.json")), ids=lambda p: p.name)
def test_every_workflow_has_a_picture_for_the_list_of_templates(path):
    picture = path.with_suffix(".jpg")
    assert picture.is_file(), "make it with: python tests/comfyui/thumbnails.py <server>"
    assert 8_000 < picture.stat().st_size <= 60_000
    with Image.open(picture) as image:
        assert (image.format, image.size) == ("JPEG", (640, 400))
