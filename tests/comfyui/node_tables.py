"""Tables of our nodes as ComfyUI knows them: docs/NODES.md for people, node_list.json for ComfyUI Manager.

`python tests/comfyui/node_tables.py http://127.0.0.1:8188` writes both from a running server.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from node_texts import our_nodes

ROOT = Path(__file__).parents[2]
PAGE, LIST = ROOT / "docs" / "NODES.md", ROOT / "node_list.json"
MOST_CHOICES = 14
LONGEST_DEFAULT = 60
# Combos that list what is on the disk, which differs from one install to the next.
ON_THE_DISK = {
    "model": ("the first model found, else `mini`", "models found, published variants, `mini`, `selftest`"),
    "file": ("the first file found", "files found"),
}
INTRODUCTION = """# Nodes

Every node with its inputs and outputs, as `GET /object_info` tells them. Inputs have their names of the API;
the editor shows some with their unit, such as `duration (s)`. **Bold** inputs are sockets, which are linked;
all others may be typed in or linked. *Italic* inputs may be left out.

<!-- Written by tests/comfyui/node_tables.py; edit the nodes, not this page. -->
"""


def node_list(object_info: dict[str, Any]) -> str:
    """/object_info -> the content of node_list.json."""
    descriptions = {name: _line(node["description"]) for name, node in sorted(our_nodes(object_info).items())}
    return json.dumps(descriptions, indent=2, ensure_ascii=False) + "\n"


def node_page(object_info: dict[str, Any]) -> str:
    """/object_info -> the content of docs/NODES.md; nodes in the order of the pack."""
    nodes = our_nodes(object_info)
    contents = [f"- [{node['display_name']}](#{name.lower()})" for name, node in nodes.items()]
    sections = [_section(name, node) for name, node in nodes.items()]
    return "\n".join([INTRODUCTION, *contents, *sections, ""])


def _section(name: str, node: dict[str, Any]) -> str:
    kinds = [(kind, node["input"].get(kind, {})) for kind in ("required", "optional")]
    inputs = [_input(key, spec, kind == "optional") for kind, found in kinds for key, spec in found.items()]
    found = zip(node["output_name"], node["output"], node["output_is_list"], node["output_tooltips"])
    outputs = [
        f"| {label} | {kind}{' (list)' * is_list} | {_cell(text)} |" for label, kind, is_list, text in found
    ]
    lines = [
        f'\n<a id="{name.lower()}"></a>\n\n## {node["display_name"]}\n\n`{name}`\n',
        _line(node["description"]),
        "\n| input | type | default | values | meaning |\n| --- | --- | --- | --- | --- |",
        *inputs,
    ]
    if outputs:
        lines += ["\n| output | type | meaning |\n| --- | --- | --- |", *outputs]
    return "\n".join(lines)


def _input(key: str, spec: list[Any], is_optional: bool) -> str:
    kind, settings = spec
    is_socket = "default" not in settings
    label = f"**{key}**" if is_socket else f"`{key}`"
    label = f"*{label}*" if is_optional else label
    default, values = ON_THE_DISK[key] if kind == "COMBO" and key in ON_THE_DISK else _values(settings)
    return f"| {label} | {kind} | {default} | {values} | {_cell(settings.get('tooltip', ''))} |"


def _values(settings: dict[str, Any]) -> tuple[str, str]:
    """Default, and what may stand there."""
    default, options = settings.get("default", ""), settings.get("options")
    if options:
        shown = ", ".join(f"`{option}`" for option in options[:MOST_CHOICES])
        more = f", ... ({len(options)} in all)" if len(options) > MOST_CHOICES else ""
        return f"`{default}`", shown + more
    if "min" in settings and "max" in settings:
        return f"`{_number(default)}`", f"{_number(settings['min'])} to {_number(settings['max'])}"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`", "`true`, `false`"
    text = _cell(str(default))
    return (f"`{text}`" if 0 < len(text) <= LONGEST_DEFAULT else "an example" if text else ""), ""


def _number(value: Any) -> str:
    return "2^64 - 1" if value == 2**64 - 1 else f"{value:.10g}" if isinstance(value, float) else str(value)


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    """`text` in a cell of a table: on one line, nothing that Markdown or HTML would take for its own."""
    return _line(text).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def write(object_info: dict[str, Any]) -> None:
    PAGE.write_text(node_page(object_info), encoding="utf-8")
    LIST.write_text(node_list(object_info), encoding="utf-8")


if __name__ == "__main__":
    with urllib.request.urlopen(f"{sys.argv[1]}/object_info") as answer:
        write(json.load(answer))
