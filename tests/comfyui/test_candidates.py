"""Several songs from the same lyrics in one go, and the engines that write them."""

import io

import pytest
from comfy_client import Client, id_of, song_prompt

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.comfyui


def saved(comfy, run, node):
    return [soundfile.read(io.BytesIO(comfy.view(file)))[0] for file in run.outputs[node]["audio"]]


def test_candidates_are_the_songs_of_the_seeds_that_follow(in_comfyui):
    """Side by side or one after the other, with any engine."""
    in_comfyui("""
    from pack.songgen_core.seeds import MAX_SEED
    def write(model, seed, **options):
        asked = (model, "[verse] La la la.", seed, 2.0, "mixed")
        return nodes["GenerateTokens"].execute(*asked, **options).result
    written, host.mm.get_free_memory = [], lambda *arguments, **options: 1 << 50
    for engine in ("auto", "reference"):
        with torch.inference_mode():
            model, _ = nodes["LoadLeVoModel"].execute("selftest", engine=engine).result
            assert host.place_for_songs(model, 2.0, 3)[1] == (3 if model.is_quick else 1)
            for first in (5, MAX_SEED - 1):
                codes, seconds, infos = write(model, first, candidates=3)
                seeds = [(first + n) % 2**64 for n in range(3)]
                assert seconds == [2.0] * 3 and all(f"seed {s}," in i for s, i in zip(seeds, infos))
                for seed, song in zip(seeds, codes):
                    (alone,), *_ = write(model, seed)
                    assert torch.equal(alone, song), (engine, seed)
                assert not torch.equal(codes[0], codes[1])
                written.append(torch.cat(codes))
    assert torch.equal(torch.cat(written[:2]), torch.cat(written[2:])), "the engines write other songs"
    for number in (0, 9):
        with torch.inference_mode():
            told = message(lambda: write(model, 1, candidates=number))
        assert told == f"candidates is {number}; choose 1 to 8"
    """)


def test_a_candidate_without_a_sound_is_left_out(in_comfyui):
    in_comfyui("""
    from pack.songgen_core.writing import WrittenSong
    write, silent = generate.write_songs, []
    def some(lm, tokenizers, requests, **options):
        songs = write(lm, tokenizers, requests, **options)
        empty = WrittenSong(torch.zeros(1, 3, 0, dtype=torch.int64), True)
        return [empty if r.seed in silent else song for r, song in zip(requests, songs)]
    generate.write_songs = some
    asked = (nodes["LoadLeVoModel"].execute("selftest").result[0], "[verse] La.", 7, 1.0, "mixed")
    with torch.inference_mode():
        whole = nodes["GenerateTokens"].execute(*asked, candidates=3).result
        silent.append(8)
        codes, seconds, infos = nodes["GenerateTokens"].execute(*asked, candidates=3).result
        assert torch.equal(torch.cat(codes), torch.cat(whole[0][::2])) and seconds == [1.0, 1.0]
        note = "seed 8 is left out: the model ended the song before its first sound"
        assert all(note in info.splitlines() for info in infos) and not any(note in i for i in whole[2])
        assert "seed 7," in infos[0] and "seed 9," in infos[1]
        silent.extend([7, 9])
        told = message(lambda: nodes["GenerateTokens"].execute(*asked, candidates=3))
    assert told.startswith("the model ended the song before its first sound; try another seed")
    """)


def test_every_node_behind_runs_once_per_candidate(comfy: Client):
    prompt = song_prompt(GenerateTokens__seed=301, GenerateTokens__candidates=3)
    node, writer = id_of(prompt, "SaveAudio"), id_of(prompt, "GenerateTokens")
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    songs = saved(comfy, run, node)
    assert len(songs) == 3 and not (songs[0] == songs[1]).all()
    (told,) = (v["text"] for key, v in run.outputs.items() if "seed 301" in str(v.get("text")))
    assert len(told) == 3 and all(f"seed {seed}," in text for seed, text in zip((301, 302, 303), told))
    assert any("writing 3 songs" in text for id_, text in run.texts if id_ == writer)
    again = comfy.run(prompt)
    assert again.end == "execution_success" and again.executed == set()
    assert again.outputs[node]["audio"] == run.outputs[node]["audio"]
    for seed, song in zip((301, 303), songs[::2]):
        alone = comfy.run(song_prompt(GenerateTokens__seed=seed))
        assert (saved(comfy, alone, node)[0] == song).all(), seed


def test_stems_of_several_candidates(comfy):
    prompt = song_prompt("stems", GenerateTokens__seed=311, GenerateTokens__candidates=2)
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    files = [v["audio"] for key, v in run.outputs.items() if prompt[key]["class_type"] == "SongGenSaveAudio"]
    assert len(files) >= 2 and {len(each) for each in files} == {2}


def test_a_video_of_each_candidate(comfy):
    prompt = song_prompt("lyric_video", GenerateTokens__seed=321, GenerateTokens__candidates=2)
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    videos = [v for key, v in run.outputs.items() if prompt[key]["class_type"] == "SaveVideo"]
    assert [len(v["images"]) for v in videos] == [2]


def test_another_engine_loads_the_model_again_and_makes_the_same_song(comfy):
    usual = song_prompt(GenerateTokens__seed=331)
    node = id_of(usual, "SaveAudio")
    (song,) = saved(comfy, comfy.run(usual), node)
    prompt = song_prompt(GenerateTokens__seed=331, LoadLeVoModel__engine="reference")
    run = comfy.run(prompt)
    assert run.end == "execution_success", run.error
    assert {id_of(prompt, name) for name in ("LoadLeVoModel", "GenerateTokens")} <= run.executed
    assert abs(saved(comfy, run, node)[0] - song).max() < 1e-3 < abs(song).max() / 10
