"""The example workflows in a real browser: they open clean; those with no models of others run there."""

import os
from pathlib import Path

import pytest
import recordings
from comfy_client import WORKFLOWS, Client, api_workflow, ui_workflow
from comfy_page import MODES, chromium, comfy_page, load
from PIL import Image

pytestmark = pytest.mark.comfyui

# Boxes of the nodes as [title, left, top, right, bottom]; those of Nodes 2.0 are as high as their content.
OPENED = """async () => {
  const known = LiteGraph.registered_node_types, title = LiteGraph.NODE_TITLE_HEIGHT, { ds } = app.canvas;
  const box = node => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    const height = element ? element.height / ds.scale - title : node.size[1];
    return [node.title, node.pos[0], node.pos[1] - title, node.pos[0] + node.size[0], node.pos[1] + height] };
  const bad = node => node.has_errors || node.type.startsWith("SongGen") && (node.widgets ?? []).some(
    w => w.type === "combo" && !w.options.values.includes(w.value));
  const ours = app.graph.nodes.filter(n => !n.type.includes("Loader"));  // those of the core want models
  return { missing: app.graph.nodes.filter(n => !known[n.type] && !n.isVirtualNode).map(n => n.type),
           red: ours.filter(bad).map(n => n.title),
           boxes: app.graph.nodes.map(box),
           saved: Object.fromEntries(app.graph.serialize().nodes.map(n => [n.id, n.widgets_values ?? []])),
           prompt: (await app.graphToPrompt()).output } }"""
# Another seed makes every node run: one whose result is cached shows no picture.
QUICK = """() => {
  for (const node of app.graph.nodes.filter(n => n.type.startsWith("SongGen")))
    for (const [name, value] of [["duration", 2], ["steps", 2], ["seed", Date.now() % 2 ** 32]])
      for (const widget of (node.widgets ?? []).filter(w => w.name === name)) widget.value = value }"""
RUN = """() => new Promise(done => {
  for (const end of ["execution_success", "execution_error"])
    app.api.addEventListener(end, e => done([end, e.detail.exception_message ?? ""]), { once: true });
  const refused = () => Object.keys(app.lastNodeErrors ?? {}).length;  // what queuePrompt returns differs
  app.queuePrompt(0, 1).then(() => refused() && done(["refused", JSON.stringify(app.lastNodeErrors)])) })"""
PLAYER = """[...document.querySelectorAll('audio, video')].some(
  media => media.src.includes('/view') && media.duration > 0.9)"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def page(browser, comfy: Client, mode):
    recordings.write_song(comfy.base / "input" / "recording.flac", 2)  # what the examples name
    Image.new("RGB", (64, 64), "#808080").save(comfy.base / "input" / "example.png")
    with comfy_page(browser, comfy, mode) as page:
        yield page


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_opens_clean(page, mode, name):
    workflow = ui_workflow(name)
    load(page, workflow)
    opened = page.evaluate(OPENED)
    if folder := os.environ.get("SCREENSHOTS"):
        page.keyboard.press("Escape")  # the list of models that are missing
        page.screenshot(path=Path(folder, f"{name}_{mode}.png"))
    assert opened["missing"] == [] and opened["red"] == []
    assert overlapping(opened["boxes"]) == []
    notes = [n for n in workflow["nodes"] if n["type"] in ("Note", "MarkdownNote")]
    assert len(opened["prompt"]) == len(workflow["nodes"]) - len(notes)
    for key, node in api_workflow(name).items():  # the stored values are those of the widgets
        sent = opened["prompt"][key]["inputs"]
        assert {k: sent.get(k) for k in node["inputs"]} == node["inputs"], node["class_type"]
    for node in workflow["nodes"]:
        if node["type"].startswith("SongGen"):  # saved again, nothing is added or lost
            assert len(opened["saved"][str(node["id"])]) == len(node["widgets_values"]), node["type"]


def test_a_file_without_the_inputs_of_today_opens_clean(page):
    workflow, sent = ui_workflow("text_to_song"), {}
    for node in workflow["nodes"]:
        if node["type"] in ("SongGenLoadLeVoModel", "SongGenGenerateTokens"):
            new = 2 if node["type"] == "SongGenLoadLeVoModel" else 1
            sent[str(node["id"])] = {
                node["inputs"].pop()["name"]: node["widgets_values"].pop() for _ in range(new)
            }
    load(page, workflow)
    opened = page.evaluate(OPENED)
    assert opened["missing"] == [] and opened["red"] == []
    assert list(sent.values()) == [{"weights": "native", "engine": "auto"}, {"candidates": 1}]
    for key, inputs in sent.items():
        assert inputs.items() <= opened["prompt"][key]["inputs"].items()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_runs_from_the_page_and_shows_a_player(page, mode, name):
    nodes = {node["class_type"] for node in api_workflow(name).values()}
    if needs := sorted(n for n in nodes if "Loader" in n):  # ours begin with Load
        pytest.skip(f"needs models of others: {', '.join(needs)}")
    load(page, ui_workflow(name))
    page.evaluate(QUICK)
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.wait_for_function(PLAYER, timeout=20_000)
    page.wait_for_timeout(1000)  # pictures and players make their nodes higher
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}_{mode}_after.png"))
    assert overlapping(page.evaluate(OPENED)["boxes"]) == []


def overlapping(boxes):
    """Pairs of nodes of which one covers a part of the other."""
    return [
        (a[0], b[0])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]
