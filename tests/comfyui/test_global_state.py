"""What all packs of an install share stays as it was: after our import, and after every node has run."""

import time

import pytest
from comfy_client import SECONDS_TO_RUN, Client, Prompt, id_of, song_prompt

pytestmark = pytest.mark.comfyui

SNAPSHOT = """
import atexit, gc, locale, logging, os, random, signal, socket, sys, tempfile, threading, warnings
import folder_paths, numpy as np, torch
import server, nodes as core_nodes  # what main.py has imported before any pack
from comfy import model_management, model_patcher, ops, utils as comfy_utils

for name in ("output", "input", "temp", "user"):
    os.makedirs(f"{TMP}/{name}")
    getattr(folder_paths, f"set_{name}_directory")(f"{TMP}/{name}")

SWITCHES = {
    "cudnn": ("enabled", "benchmark", "deterministic", "allow_tf32"),
    "cuda.matmul": ("allow_tf32", "allow_fp16_reduced_precision_reduction",
                    "allow_bf16_reduced_precision_reduction"),
    "mkldnn": ("enabled", "deterministic"),
    "mps": (), "opt_einsum": ("enabled", "strategy"),
}

def torch_state():
    for name, switches in SWITCHES.items():
        part = torch.backends
        for step in name.split("."):
            part = getattr(part, step)
        for switch in switches:
            if hasattr(part, switch):
                yield f"torch.backends.{name}.{switch}", getattr(part, switch)
    for kind in ("flash", "mem_efficient", "math", "cudnn"):
        yield f"sdp {kind}", getattr(torch.backends.cuda, f"{kind}_sdp_enabled")()
    for name in ("get_default_dtype", "get_default_device", "get_num_threads", "get_num_interop_threads",
                 "is_grad_enabled", "is_inference_mode_enabled", "are_deterministic_algorithms_enabled",
                 "is_deterministic_algorithms_warn_only_enabled", "get_float32_matmul_precision",
                 "is_anomaly_enabled", "is_autocast_enabled", "is_warn_always_enabled"):
        yield f"torch.{name}", getattr(torch, name)()
    yield "torch.manual_seed", torch.get_rng_state().numpy().tobytes()
    from torch.nn.modules import module
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks"):
        yield name, list(getattr(module, name))

def library_state():
    keys = np.random.get_state()
    yield "numpy random", (keys[1].tobytes(), keys[2:])
    yield "python random", random.getstate()
    yield "numpy errors", np.geterr()
    yield "environment", dict(os.environ)
    yield "folder", os.getcwd()
    yield "sys.path", list(sys.path)
    yield "meta_path", list(sys.meta_path)
    yield "warnings", list(warnings.filters)
    yield "showwarning", warnings.showwarning
    for name, switch in (("stdout", sys.stdout), ("stderr", sys.stderr), ("excepthook", sys.excepthook)):
        yield name, switch
    yield "recursion", sys.getrecursionlimit()
    root = logging.getLogger()
    yield "logging", (root.level, list(root.handlers), list(root.filters), logging.root.manager.disable)
    yield "handlers of our log", list(logging.getLogger("songgen").handlers)
    yield "signals", {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield "locale", locale.setlocale(locale.LC_ALL)
    yield "tempfile", tempfile.tempdir
    yield "sockets", socket.getdefaulttimeout()
    yield "gc", (gc.isenabled(), gc.get_threshold())
    mask = os.umask(0); os.umask(mask)
    yield "umask", mask
    yield "threads", sorted(thread.name for thread in threading.enumerate())
    yield "open files", sorted(os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                               if os.path.exists(f"/proc/self/fd/{n}"))

def comfy_state():
    # Our key of the model folders is the one thing that a pack is meant to add.
    folders = {k: v for k, v in folder_paths.folder_names_and_paths.items() if k != "songgen"}
    yield "model folders", repr(sorted(folders.items()))
    yield "progress hook", comfy_utils.PROGRESS_BAR_HOOK
    yield "vram state", (model_management.vram_state, model_management.cpu_state)
    for owner in (model_management, model_patcher.ModelPatcher, ops.disable_weight_init.Linear,
                  torch.nn.Linear, torch.nn.Module, torch.Tensor, torch.nn.functional, core_nodes, server):
        yield f"functions of {owner.__name__}", {k: id(v) for k, v in vars(owner).items() if callable(v)}
    yield "core nodes", list(core_nodes.NODE_CLASS_MAPPINGS)

def snapshot():
    return dict([*torch_state(), *library_state(), *comfy_state()])

def assert_same(first, second, when):
    changed = [name for name in first if first[name] != second[name]]
    told = {name: (first[name], second[name]) for name in changed if "random" not in name}
    assert not changed, f"{when}: {changed} {str(told)[:3000]}"

warnings.simplefilter("default")
before = snapshot()
assert before.keys() == snapshot().keys() and len(before) > 60
assert_same(before, snapshot(), "nothing was done")
"""

EVERY_NODE = """
assert_same(before, snapshot(), "import of the pack")

rate = 48000
time = torch.arange(2 * rate) / rate
sound = {"waveform": (0.3 * torch.sin(1400 * time)).repeat(1, 2, 1), "sample_rate": rate}
pool = {"AUDIO": sound, "IMAGE": torch.zeros(12, 64, 64, 3)}  # a value for every type of socket
values = {"model": "selftest", "separator": "selftest", "duration": 1.0, "steps": 1, "seconds": 1.0,
          "lyrics": "[verse]\\nLa la la", "subtitles": "[00:00.10]La", "shifts": 0, "max_seconds": 1.0,
          "beats": [0.0, 0.5, 1.0], "size": 64}
paths = {}

def arguments(node):
    for asked in node.GET_SCHEMA().inputs:
        kind = asked.get_io_type()
        if kind in pool:
            yield asked.id, pool[kind]
        elif node.__name__ == "LoadTokens" and asked.id == "path":
            yield asked.id, paths["SaveTokens"]
        else:
            value = values.get(asked.id, getattr(asked, "default", None))
            assert value is not None, f"{node.__name__} takes a {kind} as {asked.id}: put one into the pool"
            yield asked.id, value

def run(node):
    with torch.inference_mode():
        result = node.execute(**dict(arguments(node))).result
    for output, value in zip(node.GET_SCHEMA().outputs, result):
        if output.get_io_type().startswith("SONGGEN_") and output.get_io_type() not in pool:
            pool[output.get_io_type()] = value[0] if output.is_output_list else value
        if output.id == "path":
            paths[node.__name__] = value

first = ("LoadLeVoModel", "AudioPrompt", "GenerateTokens", "SaveTokens")  # what others go on with
for name in [*first, *(name for name in nodes if name not in first)]:
    run(nodes[name])
    assert_same(before, snapshot(), name)
assert {"SONGGEN_MODEL", "SONGGEN_PROMPT", "SONGGEN_CODES"} <= pool.keys()
print("OK")
"""


def test_no_shared_state_is_changed_by_import_or_by_any_node(in_comfyui):
    pytest.importorskip("demucs", reason="one of the nodes: pip install --no-deps 'demucs>=4.1' einops")
    in_comfyui(EVERY_NODE, before=SNAPSHOT)


SPOILERS = {
    "torch.manual_seed(1)": "torch.manual_seed",
    "torch.set_num_threads(3)": "torch.get_num_threads",
    "torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark": "torch.backends.cudnn.benchmark",
    "random.random()": "python random",
    "np.random.rand()": "numpy random",
    "os.environ['X'] = '1'": "environment",
    "warnings.simplefilter('ignore')": "warnings",
    "logging.getLogger().addHandler(logging.NullHandler())": "logging",
    "signal.signal(signal.SIGUSR1, lambda *_: None)": "signals",
    "model_management.load_models_gpu = lambda *a, **k: None": "functions of comfy.model_management",
    "kept = open(os.devnull)": "open files",
}


def test_the_snapshot_notices_each_kind_of_change(in_comfyui):
    program = "".join(
        f"""
assert_same(before, snapshot(), "in between")
{code}
after = snapshot()
assert [name for name in before if before[name] != after[name]] == [{name!r}], {code!r}
before = after
"""
        for code, name in SPOILERS.items()
    )
    in_comfyui(program, before=SNAPSHOT)


def songs_of(comfy: Client, outputs: dict, prompt: Prompt) -> list[bytes]:
    """The files of a finished prompt; wav32 holds samples and nothing else."""
    nodes = sorted(key for key, node in prompt.items() if node["class_type"] == "SongGenSaveAudio")
    return [comfy.view(file) for node in nodes for file in outputs[node]["audio"]]


def two_prompts(seed: int) -> tuple[Prompt, Prompt]:
    first = song_prompt(GenerateTokens__seed=seed, GenerateTokens__duration=4.0, SaveAudio__format="wav32")
    second = song_prompt("genre_prompt", GenerateTokens__seed=seed + 1, SaveAudio__format="wav32")
    return first, second


def alone(comfy: Client, prompt: Prompt) -> list[bytes]:
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    assert id_of(prompt, "GenerateTokens") in run.executed, "it did not come out of the cache"
    return songs_of(comfy, run.outputs, prompt)


def finished(comfy: Client, prompt_id: str) -> dict:
    """Outputs of a queued prompt, once it has run."""
    end = time.monotonic() + SECONDS_TO_RUN
    while not (history := comfy.get_json(f"/history/{prompt_id}")):
        assert time.monotonic() < end, "the queue does not come to an end"
        time.sleep(0.2)
    return history[prompt_id]["outputs"]


def test_prompts_in_a_queue_do_not_disturb_each_other(comfy: Client):
    prompts = two_prompts(seed=501)
    expected = [alone(comfy, prompt) for prompt in prompts]
    queued = [comfy.post("/prompt", {"prompt": prompt})["prompt_id"] for prompt in (*prompts, *prompts)]
    found = [songs_of(comfy, finished(comfy, name), prompt) for name, prompt in zip(queued, prompts * 2)]
    assert found == expected * 2
    assert expected[0] != expected[1]


@pytest.mark.parametrize("node, seed", [("GenerateTokens", 511), ("DiffusionRender", 521)])
def test_a_song_after_a_cancel_is_the_song_before_it(comfy: Client, node: str, seed: int):
    prompt, other = two_prompts(seed)
    prompt[id_of(prompt, "DiffusionRender")]["inputs"]["steps"] = 20
    before, pressed = alone(comfy, prompt), []
    alone(comfy, other)

    def press_cancel(event, prompt_id):
        data = event["data"]
        here = event["type"] == "progress" and data["node"] == id_of(prompt, node)
        if here and 2 * data["value"] > data["max"] and not pressed:
            comfy.post("/interrupt", {"prompt_id": prompt_id})
            pressed.append(prompt_id)

    assert comfy.run(prompt, on_event=press_cancel).end == "execution_interrupted"
    assert alone(comfy, other) and alone(comfy, prompt) == before
