"""ComfyUI's page in a headless Chromium, as a user has it after the first start.

CHROMIUM is the browser, /usr/bin/chromium by default.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from comfy_client import Client

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
MODES = ("classic", "nodes2")  # nodes drawn on the canvas, and as elements of the page
PROTOTYPE = (1, 27)  # frontends whose second mode is hidden from users and has no text widgets or buttons
# The page opens a workflow of its own last.
READY = "window.app?.graph?.nodes.length && Object.keys(window.LiteGraph.registered_node_types).length > 100"
LOAD = """async workflow => {
  await app.loadGraphData(workflow);
  await new Promise(done => setTimeout(done, 500));
  app.canvas.deselectAll();  // its tools cover the nodes
}"""
# Where a widget of a node is in the window.
PLACE = """([type, name]) => {
  const node = app.graph.nodes.find(n => n.type === type), widget = node.widgets.find(w => w.name === name);
  const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2,
                                                      node.pos[1] + (widget.y ?? widget.last_y) + 10]);
  const canvas = app.canvas.canvas.getBoundingClientRect();
  return [canvas.left + x, canvas.top + y] }"""

LABEL = """([type, name]) =>
  app.graph.nodes.find(n => n.type === type).widgets.find(w => w.name === name).label"""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; one at a time, as Playwright wants it."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there; CHROMIUM names a Chromium or Chrome")
    arguments = ["--no-sandbox", "--disable-gpu"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


@contextmanager
def comfy_page(browser: Any, comfy: Client, mode: str = "classic", **settings: Any) -> Iterator[Any]:
    """A page with `settings` such as `Locale="zh"`, `mode` one of MODES. Fails on errors in our scripts."""
    defaults = {"Locale": "en", "ColorPalette": "dark", "TutorialCompleted": True}
    for name, value in {**defaults, "VueNodes.Enabled": mode == "nodes2", **settings}.items():
        comfy.post(f"/settings/Comfy.{name}", value)
    page = browser.new_page(viewport={"width": 1800, "height": 1000})
    errors: list[str] = []
    page.on("console", lambda said: said.type == "error" and errors.append(f"{said.location} {said.text}"))
    page.on("pageerror", lambda error: errors.append(error.stack or str(error)))
    page.goto(comfy.url, wait_until="domcontentloaded")
    page.wait_for_function(READY, timeout=120_000)
    if mode == "nodes2" and frontend(page) <= PROTOTYPE:
        pytest.skip("this frontend has only a prototype of Nodes 2.0")
    yield page
    page.close()
    assert [error for error in errors if "extensions/songgen" in error] == []


def frontend(page: Any) -> tuple[int, int]:
    """Version of the frontend, such as (1, 49)."""
    major, minor, *_ = page.evaluate("window.__COMFYUI_FRONTEND_VERSION__").split(".")
    return int(major), int(minor)


def load(page: Any, workflow: dict[str, Any]) -> None:
    """Open a workflow."""
    page.evaluate(LOAD, workflow)
    page.wait_for_function("n => app.graph.nodes.length === n", arg=len(workflow["nodes"]))


def press(page: Any, mode: str, node_type: str, name: str) -> None:
    """Press a button on the first node of a type, with the mouse."""
    if mode == "classic":
        page.mouse.click(*page.evaluate(PLACE, [node_type, name]))
        return
    label = page.evaluate(LABEL, [node_type, name])
    page.get_by_role("button", name=label, exact=True).first.click()
