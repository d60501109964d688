"""Pictures of the example workflows, which ComfyUI shows among its templates.

`python tests/comfyui/thumbnails.py http://127.0.0.1:8188 [name ...]` writes workflows/NAME.jpg from a running
server, a newly made one: its settings are changed. Without names all workflows are pictured.
"""

import io
import sys
from pathlib import Path
from typing import Any

from comfy_client import ROOT, WORKFLOWS, Client, ui_workflow
from comfy_page import chromium, comfy_page, load
from PIL import Image

SIZE = (640, 400)
FINER = 4  # the page is pictured this much larger: far away, ComfyUI leaves the texts of nodes out
STRIP = 40  # pixels at the bottom, for the title
LARGEST = 60_000  # bytes
PLAIN = {"Minimap.Visible": False, "Graph.CanvasMenu": False, "Graph.CanvasInfo": False}
# All nodes in the middle of the window, as large as it allows; badges stand above the titles.
FRAME = """([width, height]) => {
  for (const node of app.graph.nodes) node.has_errors = false;  // models that are not on this machine
  const box = ({ pos: [x, y], size: [w, h] }) => [x, y - 55, x + w, y + h];
  const boxes = app.graph.nodes.map(box);
  const [left, top] = [0, 1].map(i => Math.min(...boxes.map(b => b[i])));
  const [right, bottom] = [2, 3].map(i => Math.max(...boxes.map(b => b[i])));
  const { ds } = app.canvas, canvas = app.canvas.canvas.getBoundingClientRect();
  ds.scale = Math.min(width / (right - left + 60), height / (bottom - top + 60));
  ds.offset[0] = (width / ds.scale - left - right) / 2 - canvas.left / ds.scale;
  ds.offset[1] = (height / ds.scale - top - bottom) / 2 - canvas.top / ds.scale;
  app.canvas.setDirty(true, true) }"""

TITLE = """([title, height]) => {
  const strip = document.getElementById("title") ?? document.body.appendChild(document.createElement("div"));
  Object.assign(strip, { id: "title", textContent: title });
  strip.style = `position: fixed; inset: auto 0 0; height: ${height}px; background: #15181c; color: #f0f0f0;
    font: ${height / 2}px / ${height}px sans-serif; text-align: center; z-index: 100000` }"""


def title_of(workflow: dict[str, Any], name: str) -> str:
    """The heading of its note, or the name of the file."""
    notes = (str(n["widgets_values"][0]) for n in workflow["nodes"] if n["type"] == "MarkdownNote")
    headings = (line.lstrip("# ") for note in notes for line in note.splitlines() if line.startswith("#"))
    return next(headings, name.replace("_", " "))


def picture(page: Any, name: str) -> Image.Image:
    """A workflow as the page shows it, with its title below."""
    workflow = ui_workflow(name)
    load(page, workflow)
    page.evaluate(FRAME, [FINER * SIZE[0], FINER * (SIZE[1] - STRIP)])
    page.evaluate(TITLE, [title_of(workflow, name), FINER * STRIP])
    page.wait_for_timeout(1500)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return shot.resize(SIZE, Image.Resampling.LANCZOS)


def write_jpeg(image: Image.Image, path: Path) -> None:
    """As good as LARGEST allows."""
    for quality in range(88, 20, -4):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= LARGEST:
            break
    path.write_bytes(buffer.getvalue())


def main(url: str, names: list[str]) -> None:
    with chromium() as browser, comfy_page(browser, Client(url, ROOT), **PLAIN) as page:
        page.set_viewport_size({"width": FINER * SIZE[0], "height": FINER * SIZE[1]})
        page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
        for name in names or WORKFLOWS:
            write_jpeg(picture(page, name), ROOT / "workflows" / f"{name}.jpg")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
