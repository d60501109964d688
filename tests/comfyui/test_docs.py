"""The pages under docs/ say what is so: tables of the nodes, graphs, shell commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import node_tables
import pytest
from comfy_client import ROOT, Client, quick

pytestmark = pytest.mark.comfyui

PAGE = (ROOT / "docs" / "API.md").read_text(encoding="utf-8")
GRAPHS = dict(re.findall(r"<!-- (\w+\.json) -->\n```json\n(.*?)\n```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"```bash\n(.*?)\n```", PAGE, re.DOTALL)
UPDATE = "update with: python tests/comfyui/node_tables.py <server>"


@pytest.fixture(scope="module")
def object_info(comfy: Client):
    return comfy.get_json("/object_info")


def test_the_page_of_nodes_is_that_of_the_server(object_info):
    assert node_tables.PAGE.read_text(encoding="utf-8") == node_tables.node_page(object_info), UPDATE


def test_the_node_list_is_that_of_the_server(object_info):
    assert node_tables.LIST.read_text(encoding="utf-8") == node_tables.node_list(object_info), UPDATE


def test_the_graphs_name_nodes_and_inputs_that_exist(object_info):
    assert set(GRAPHS) == {"song.json", "steps.json", "stems.json", "prompt.json"}
    for name, text in GRAPHS.items():
        for node in json.loads(text).values():
            known = object_info[node["class_type"]]["input"]
            required, optional = known["required"], known.get("optional", {})
            given = set(node["inputs"])
            assert set(required) <= given <= {*required, *optional}, (name, node["class_type"])


def test_all_json_on_the_page_is_json():
    for text in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL):
        json.loads(text)


def test_the_commands_work_as_they_stand_there(comfy, tmp_path):
    for program in ("bash", "curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    for folder in ("samples", "workflows"):
        (tmp_path / folder).symlink_to(ROOT / folder, target_is_directory=True)
    for name, text in GRAPHS.items():
        (tmp_path / name).write_text(json.dumps(quick(json.loads(text))), encoding="utf-8")
    before = set(comfy.get_json("/history"))
    script = "\n".join(COMMANDS)
    assert script.count("SERVER=http://127.0.0.1:8188\n") == 1
    script = script.replace("http://127.0.0.1:8188", comfy.url).replace("--duration 10", "--duration 2")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=400,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "success" in lines and "did you mean [verse]?" in lines[-1]
    files = {path.name.partition("_0")[0]: path for path in tmp_path.glob("*_0*")}
    assert set(files) == {"song", "steps", "mixed", "vocal", "bgm", "prompt"}
    assert all(path.stat().st_size > 10_000 for path in files.values())
    assert len(list(tmp_path.glob("song_0*"))) == 4 and len(list(tmp_path.glob("steps_0*"))) == 2
    assert list((tmp_path / "songs").glob("*.flac"))
    history = comfy.get_json("/history")
    ends = [history[id_]["status"]["messages"][-1][0] for id_ in set(history) - before]
    assert ends.count("execution_success") == 9 and set(ends) <= {
        "execution_success",
        "execution_interrupted",
    }
