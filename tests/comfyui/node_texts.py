"""Texts of our nodes as ComfyUI knows them, in the form of locales/<language>/nodeDefs.json.

`python tests/comfyui/node_texts.py http://127.0.0.1:8188` writes the English file from a running server.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).parents[2] / "locales"


def our_nodes(object_info: dict[str, Any]) -> dict[str, Any]:
    return {name: node for name, node in object_info.items() if name.startswith("SongGen")}


def english(object_info: dict[str, Any]) -> dict[str, Any]:
    """/object_info -> the content of locales/en/nodeDefs.json."""
    return {name: _texts(node) for name, node in sorted(our_nodes(object_info).items())}


def _texts(node: dict[str, Any]) -> dict[str, Any]:
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    outputs = zip(node["output_name"], node["output_tooltips"])
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {
            i: {"name": spec[1].get("display_name") or i, "tooltip": spec[1].get("tooltip")}
            for i, spec in inputs.items()
        },
        "outputs": {str(n): {"name": name, "tooltip": text} for n, (name, text) in enumerate(outputs)},
    }


def read(language: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def write(language: str, texts: dict[str, Any]) -> None:
    text = json.dumps(texts, indent=2, ensure_ascii=False)
    (LOCALES / language / "nodeDefs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    with urllib.request.urlopen(f"{sys.argv[1]}/object_info") as answer:
        write("en", english(json.load(answer)))
