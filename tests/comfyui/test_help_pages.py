"""The help pages of the nodes, asked for in the way of ComfyUI's help panel."""

import urllib.error
import urllib.request

import pytest
from comfy_client import ROOT, Client
from node_texts import our_nodes, read

pytestmark = pytest.mark.comfyui

DOCS = ROOT / "web" / "docs"


@pytest.fixture(scope="module")
def nodes(comfy: Client):
    return our_nodes(comfy.get_json("/object_info"))


def help_of(comfy: Client, node: str, module: str, locale: str) -> str:
    """What the panel shows: the page of the locale, else the one without; the frontend's own order."""
    folder = f"/extensions/{module.removeprefix('custom_nodes.')}/docs"
    try:
        return comfy.get(f"{folder}/{node}/{locale}.md").decode()
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return comfy.get(f"{folder}/{node}.md").decode()


def test_every_node_has_help_in_three_languages(comfy, nodes):
    for node, told in nodes.items():
        pages = {lang: help_of(comfy, node, told["python_module"], lang) for lang in ("en", "zh", "ja")}
        assert pages["en"] == (DOCS / f"{node}.md").read_text(encoding="utf-8")
        assert pages["zh"] == (DOCS / node / "zh.md").read_text(encoding="utf-8")
        assert pages["ja"] == (DOCS / node / "ja.md").read_text(encoding="utf-8")


def test_another_language_gets_the_english_page(comfy, nodes):
    for node, told in nodes.items():
        assert help_of(comfy, node, told["python_module"], "fr").count("## ") == 4


def test_pages_are_not_served_as_html(comfy):
    """Newer frontends take HTML for the page of a server that has none."""
    with urllib.request.urlopen(f"{comfy.url}/extensions/songgen/docs/SongGenSong.md") as answer:
        assert "html" not in answer.headers["Content-Type"]


def test_japanese_texts_are_served(comfy):
    assert comfy.get_json("/i18n")["ja"]["nodeDefs"] == read("ja")
