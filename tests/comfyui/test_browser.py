"""The example workflows in a real browser: they load, and one runs and shows the player."""

import os
from pathlib import Path

import pytest
import recordings
from comfy_client import WORKFLOWS, Client, api_workflow, ui_workflow

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.comfyui

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
READY = "window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100"
LOAD = """async workflow => {
  await app.loadGraphData(workflow);
  const known = LiteGraph.registered_node_types;
  return { missing: app.graph.nodes.filter(n => !known[n.type] && !n.isVirtualNode).map(n => n.type),
           boxes: app.graph.nodes.map(n => [n.title, n.pos[0], n.pos[1] - LiteGraph.NODE_TITLE_HEIGHT,
                                            n.pos[0] + n.size[0], n.pos[1] + n.size[1]]),
           prompt: (await app.graphToPrompt()).output } }"""
RUN = """() => {
  const set = (type, name, value) => {
    app.graph.nodes.find(n => n.type === type).widgets.find(w => w.name === name).value = value };
  set("SongGenGenerateTokens", "duration", 2);
  set("SongGenDiffusionRender", "steps", 2);
  return app.queuePrompt(0, 1) }"""
PLAYER = "[...document.querySelectorAll('audio')].some(a => a.src.includes('/view') && a.duration > 1.9)"


@pytest.fixture
def page(comfy: Client):
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there; CHROMIUM names a Chromium or Chrome")
    recordings.write_song(comfy.base / "input" / "recording.flac", 2)  # what the examples name
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1800, "height": 1000})
        page.goto(comfy.url, wait_until="domcontentloaded")
        page.wait_for_function(READY, timeout=120_000)
        yield page
        browser.close()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_loads_without_errors_and_overlaps(page, name):
    workflow = ui_workflow(name)
    loaded = load(page, workflow)
    assert loaded["missing"] == []
    assert len(loaded["prompt"]) == len(workflow["nodes"]) - 1  # the note is none of them
    assert overlapping(loaded["boxes"]) == []
    for key, node in api_workflow(name).items():  # the stored values are those of the widgets
        sent = loaded["prompt"][key]["inputs"]
        assert {k: sent.get(k) for k in node["inputs"]} == node["inputs"], node["class_type"]
    if folder := os.environ.get("SCREENSHOTS"):
        page.keyboard.press("Escape")  # the templates, which a new user is shown
        page.wait_for_timeout(1000)
        page.screenshot(path=Path(folder, f"{name}.png"))


def test_the_first_example_runs_and_shows_the_player(page):
    load(page, ui_workflow("text_to_song"))
    page.evaluate(RUN)
    page.wait_for_function(PLAYER, timeout=300_000)


def load(page, workflow):
    """Open a workflow. The page opens one of its own some time after it is ready, so look twice."""
    for _ in range(10):
        loaded = page.evaluate(LOAD, workflow)
        page.wait_for_timeout(2000)
        if page.evaluate("app.graph.nodes.some(n => n.type === 'SongGenLoadLeVoModel')"):
            return loaded
    raise AssertionError("the page does not keep the workflow")


def overlapping(boxes):
    """Pairs of nodes of which one covers a part of the other."""
    return [
        (a[0], b[0])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]
