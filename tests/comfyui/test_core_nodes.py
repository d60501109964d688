"""ComfyUI's own nodes do with our pack what they do without it: the same prompts on a server of each kind.

The server with the pack makes a song first, so that whatever a song might leave behind is there.
"""

import io
from collections.abc import Iterator

import pytest
import recordings
from comfy_client import ROOT, Prompt, id_of, song_prompt
from comfy_server import STUB_MODELS, Server

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")
soundfile = pytest.importorskip("soundfile")
safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def servers(start_comfy) -> Iterator[tuple[Server, Server]]:
    """One with the pack, which has made songs, and one without."""
    with (
        start_comfy("--cpu", packs=(ROOT, STUB_MODELS)) as ours,
        start_comfy("--cpu", packs=(STUB_MODELS,)) as plain,
    ):
        for server in (ours, plain):
            recordings.write_song(server.base / "input" / "song.wav", 2)
        for prompt in (song_prompt(), song_prompt("genre_prompt")):
            assert ours.run(prompt).end == "execution_success"
        yield ours, plain


def sampling(**changes) -> Prompt:
    settings = {"seed": 5, "steps": 4, "cfg": 3.0, "sampler_name": "euler_ancestral", "scheduler": "normal"}
    links = {"model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2], "latent_image": ["1", 3]}
    return {
        "1": {"class_type": "StubModel", "inputs": {}},
        "2": {"class_type": "KSampler", "inputs": {**settings, "denoise": 1.0, **links, **changes}},
        "3": {"class_type": "SaveLatent", "inputs": {"samples": ["2", 0], "filename_prefix": "latent"}},
    }


def audio_file() -> Prompt:
    return {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": "song.wav"}},
        "3": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "again"}},
    }


def video() -> Prompt:
    picture = {"width": 64, "height": 48, "batch_size": 24, "color": 0x2050A0}
    saved = {"video": ["3", 0], "filename_prefix": "clip", "format": "mp4", "codec": "h264"}
    return {
        "1": {"class_type": "LoadAudio", "inputs": {"audio": "song.wav"}},
        "2": {"class_type": "EmptyImage", "inputs": picture},
        "3": {"class_type": "CreateVideo", "inputs": {"images": ["2", 0], "fps": 24.0, "audio": ["1", 0]}},
        "4": {"class_type": "SaveVideo", "inputs": saved},
    }


def result(server: Server, prompt: Prompt, node: str, kind: str) -> bytes:
    """The file that `node` saved in this run."""
    run = server.run(prompt)
    assert run.end == "execution_success", run.error
    assert node in run.executed, "it did not come out of the cache"
    (file,) = run.outputs[node][kind]
    return server.view(file)


def test_a_sampler_samples_the_same(servers):
    for changes in ({}, {"sampler_name": "dpmpp_2m", "scheduler": "karras", "seed": 6}):
        ours, plain = (
            safetensors.load(result(server, sampling(**changes), "3", "latents"))["latent_tensor"]
            for server in servers
        )
        assert ours.std() > 0.1 and np.isfinite(ours).all(), "it really samples"
        assert (ours == plain).all()


def test_an_audio_file_is_the_same(servers):
    ours, plain = (soundfile.read(io.BytesIO(result(s, audio_file(), "3", "audio"))) for s in servers)
    assert ours[1] == plain[1] == 44100 and abs(ours[0]).max() > 0.05
    assert (ours[0] == plain[0]).all()


def decoded(video_file: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [B, H, W, 3] and samples [C, N]."""
    with av.open(io.BytesIO(video_file)) as container:
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(io.BytesIO(video_file)) as container:
        return pictures, np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)


def test_a_video_is_the_same(servers):
    ours, plain = (decoded(result(server, video(), "4", "images")) for server in servers)
    assert ours[0].shape == (24, 48, 64, 3) and ours[0].any() and abs(ours[1]).max() > 0.05
    assert all((a == b).all() for a, b in zip(ours, plain))


def test_all_other_nodes_look_the_same(servers):
    ours, plain = (server.get_json("/object_info") for server in servers)
    assert len(plain) > 300
    assert {name: node for name, node in ours.items() if not name.startswith("SongGen")} == plain


def test_songs_and_another_model_take_turns(servers):
    """A song, then another model, then the song again: each in its turn, and the song is the same."""
    ours, _ = servers
    songs = []
    for seed in (41, 42, 41):
        prompt = song_prompt(GenerateTokens__seed=seed, SaveAudio__format="wav32")
        run = ours.run(prompt)
        assert run.end == "execution_success"
        songs.append(ours.view(run.outputs[id_of(prompt, "SaveAudio")]["audio"][0]))
        ours.run(sampling(seed=seed))
        ours.post("/free", {"unload_models": True, "free_memory": True})
    assert songs[0] == songs[2] != songs[1]
