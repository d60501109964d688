"""Node classes and their helpers, called in a process of ComfyUI's own Python without a server."""

import pytest

pytestmark = pytest.mark.comfyui


def test_saving_takes_any_audio_and_names_what_it_cannot_take(in_comfyui):
    in_comfyui("""
    folder_paths.set_output_directory(TMP)
    execute = nodes["SaveAudio"].execute
    def audio(*shape, rate=48000, **kind):
        return {"waveform": (torch.rand(*shape) - 0.5).to(**kind), "sample_rate": rate}
    for given, format, takes in [
        (audio(1, 1, 4800), "flac", 1), (audio(3, 2, 4800), "flac", 3), (audio(1, 6, 4800), "wav", 1),
        (audio(1, 2, 4800, dtype=torch.float16), "wav32", 1), (audio(1, 2, 1100, rate=11025), "mp3", 1),
        (audio(1, 8, 4410, rate=44100), "mp3", 1), (audio(2, 4800), "flac", 1),
    ]:
        output = execute(given, "songs/take", format)
        assert output.result[0] is given
        files = [os.path.join(TMP, f["subfolder"], f["filename"]) for f in output.ui["audio"]]
        assert len(set(files)) == takes and all(map(os.path.getsize, files))
    assert "no sound" in message(execute, None, "x", "flac")
    assert "not AUDIO" in message(execute, {"samples": 1}, "x", "flac")
    assert "[batch, channels, samples]" in message(execute, audio(1, 2, 0), "x", "flac")
    assert "[batch, channels, samples]" in message(execute, audio(4800), "x", "flac")
    assert "9 channels" in message(execute, audio(1, 9, 4800), "x", "flac")
    bad = audio(1, 2, 4800); bad["waveform"][0, 0, 9] = float("nan")
    assert "NaN" in message(execute, bad, "x", "flac")
    assert "format is 'exe'" in message(execute, audio(1, 2, 4800), "x", "exe")
    assert not any(name.startswith("x") for name in os.listdir(TMP))
    """)


def test_saving_shows_how_far_it_is_and_can_be_cancelled(in_comfyui):
    in_comfyui("""
    import comfy.model_management as mm, comfy.utils
    folder_paths.set_output_directory(TMP)
    seen = []
    class Bar:  # ComfyUI's own passes on a few of many steps
        def __init__(self, total):
            pass
        def update_absolute(self, done, total, preview):
            seen.append((done, total))
            if len(seen) == cancel_after:
                mm.interrupt_current_processing()
    comfy.utils.ProgressBar = Bar
    audio = {"waveform": torch.zeros(2, 2, 3 * 48000), "sample_rate": 48000}
    cancel_after = None
    nodes["SaveAudio"].execute(audio, "whole", "mp3")
    assert seen == [(done, 6) for done in range(1, 7)], seen
    seen, cancel_after = [], 4
    try:
        nodes["SaveAudio"].execute(audio, "half", "mp3")
    except mm.InterruptProcessingException:
        pass
    else:
        raise AssertionError("not cancelled")
    assert len(seen) == 4
    assert sorted(os.listdir(TMP)) == ["half_00001_.mp3", "whole_00001_.mp3", "whole_00002_.mp3"]
    assert save.io.Hidden.unique_id in nodes["SaveAudio"].GET_SCHEMA().hidden
    """)


def test_metadata_can_be_switched_off(in_comfyui):
    in_comfyui("""
    class Hidden:
        prompt, extra_pnginfo = {"1": "歌"}, {"workflow": {"nodes": []}}
    assert save.workflow_tags(Hidden) == {"prompt": '{"1": "\\\\u6b4c"}', "workflow": '{"nodes": []}'}
    args.disable_metadata = True
    assert save.workflow_tags(Hidden) == {} == save.workflow_tags(None)
    """)


def test_the_model_handle_is_what_the_memory_manager_expects(in_comfyui):
    in_comfyui("""
    from comfy.model_patcher import ModelPatcher
    with torch.inference_mode():  # as in the executor; "unload models" works outside of it
        model, info = nodes["LoadLeVoModel"].execute("selftest", "float16", "auto").result
    asked = ("selftest", "auto", "auto", "never", "text", "not accepted", "x")
    assert "engine 'x' is unknown" in message(nodes["LoadLeVoModel"].execute, *asked)
    for patcher in model.get_models():
        assert not any(weight.is_inference() for weight in patcher.model.parameters())
    assert "noise" in info and model.dtype == torch.float32
    assert model.get_models() == [model.lm, model.renderer, model.vae] and model.patcher is model.lm
    with torch.inference_mode():
        model.readers.encoders(lambda progress: None)
    encoders = model.get_models()[3:]
    assert len(encoders) == 3 and model.readers.encoders(print)[0].networks == [p.model for p in encoders]
    assert not any(weight.is_inference() for p in encoders for weight in p.model.parameters())
    assert all(type(patcher) is ModelPatcher for patcher in model.get_models())
    assert len({id(patcher.model) for patcher in model.get_models()}) == 6
    assert model.is_dynamic() is False
    assert host.lm_memory(model, 270.0) > host.lm_memory(model, 10.0) > 512 << 20
    assert "this model makes 1 to 270 s" in message(host.lm_memory, model, 300.0)
    options = generate.sampling_options(model.config, -1, 40, 0.0, -1.0, -1)
    assert (options.temperature, options.top_k, options.top_p) == (0.8, 40, 0.0)
    assert generate.sampling_options(model.config, -0.5, 40, 0.0, -0.05, -2) == options
    """)


def test_a_full_load_moves_every_weight_and_buffer(in_comfyui):
    """The meta device plays the card; plain layers that a partial load leaves behind must all follow."""
    in_comfyui("""
    from comfy.model_patcher import ModelPatcher
    model, _ = nodes["LoadLeVoModel"].execute("selftest", "auto", "auto").result
    model.readers.encoders(print)
    card = torch.device("meta")
    for patcher in model.get_models():
        size = patcher.model_size()
        moved = ModelPatcher(patcher.model, load_device=card, offload_device=torch.device("cpu"))
        assert size == sum(t.nbytes for t in moved.model.state_dict().values())
        moved.patch_model(device_to=card)
        left = [n for n, t in moved.model.state_dict().items() if not t.is_meta]
        left += [n for n, t in moved.model.named_buffers() if not t.is_meta]
        assert not left, left
    """)


def test_no_vram_still_brings_networks_to_their_device(in_comfyui):
    """--novram tells ComfyUI to leave plain layers behind; a network cannot run half on the card."""
    in_comfyui("""
    import comfy.model_management as mm
    from comfy.model_patcher import ModelPatcher
    model, _ = nodes["LoadLeVoModel"].execute("selftest", "auto", "auto").result
    mm.load_models_gpu = lambda patchers, **kw: None  # as if nothing had been moved
    card = torch.device("meta")
    patchers = [ModelPatcher(p.model, load_device=card, offload_device=torch.device("cpu"))
                for p in model.get_models()]
    assert host.place_whole(patchers, 0) == card
    assert all(t.is_meta for p in patchers for t in p.model.parameters())
    """)


def test_a_batch_number_in_the_prefix_never_overwrites_a_song(in_comfyui):
    in_comfyui("""
    folder_paths.set_output_directory(TMP)
    names = [save.save_take(torch.zeros(2, 480), 48000, take, "x%batch_num%", "wav", {}, print)["filename"]
             for run in range(2) for take in range(2)]
    assert names == ["x0_00001_.wav", "x1_00001_.wav", "x0_00002_.wav", "x1_00002_.wav"], names
    assert "filename_prefix holds ':'" in message(save.check_prefix, "song:take")
    """)


def test_models_are_found_under_both_folders_and_a_users_own(in_comfyui):
    in_comfyui("""
    folder_paths.folder_names_and_paths["songgen"] = ([os.path.join(TMP, "own")], set())
    folder_paths.models_dir = TMP
    host.register_model_folders(); host.register_model_folders()
    names = [root.name for root in host.model_roots()]
    assert names == ["own", "songgen", "SongGeneration"]
    for root in ("own", "SongGeneration"):
        folder = os.path.join(TMP, root, f"model-in-{root}")
        os.makedirs(folder)
        open(os.path.join(folder, "config.yaml"), "w").close()
        open(os.path.join(folder, "model.pt"), "w").close()
    load = nodes["LoadLeVoModel"]
    (options,) = [i.options for i in load.define_schema().inputs if i.id == "model"]
    assert options == ["model-in-own", "model-in-SongGeneration", *VARIANTS, "mini", "selftest"]
    assert load.fingerprint_inputs("model-in-own", "auto", "auto")  # a message: codec and VAE are missing
    assert "model-in-own" not in message(load.execute, "/etc/passwd", "auto", "auto").split(";")[0]
    assert message(load.execute, "model-in-own", "auto", "auto")
    """)


def test_a_new_tokenizer_is_a_new_model(in_comfyui):
    in_comfyui("""
    import shutil
    from pathlib import Path
    from pack.songgen_core.checkpoint.layout import MINI_FOLDER
    folder_paths.folder_names_and_paths["songgen"] = ([os.path.join(TMP, "own")], set())
    own = Path(shutil.copytree(MINI_FOLDER, os.path.join(TMP, "own", "copy")))
    state = lambda: nodes["LoadLeVoModel"].fingerprint_inputs("copy", "auto", "auto")
    before = state()
    assert "model.safetensors" in before and state() == before
    (own / "lexicon.txt.gz").write_bytes(b"another one")
    assert state() != before
    """)


def test_lyrics_that_the_model_does_not_read_to_their_end_are_told_of(in_comfyui):
    in_comfyui("""
    model, _ = nodes["LoadLeVoModel"].execute("mini").result
    line = "I walk along the shoreline while the morning light is breaking"
    with torch.inference_mode():
        def info(lines):
            asked = (model, "[verse] " + f"{line}. " * lines, 1, 1.0, "mixed")
            return nodes["GenerateTokens"].execute(*asked).result[2][0]
        assert "is lost" not in info(3)
        assert f'the model reads the first 384: "{line}" and what follows is lost' in info(12)
    """)


def test_a_short_stage_of_a_patient_node_says_nothing(in_comfyui):
    in_comfyui("""
    from types import SimpleNamespace as Some
    told = []
    host.PromptServer.instance = Some(send_progress_text=lambda text, node: told.append(text), client_id=None)
    node = Some(hidden=Some(unique_id="7"))
    patient = host.NodeProgress(node, patience=0.5)
    patient(Progress("saving", 1, 4)); patient(Progress("saving", 4, 4))
    assert told == []
    host.NodeProgress(node)(Progress("saving", 4, 4))
    assert told.pop() == "saving audio 4/4"
    patient(Progress("rendering", 1, 4)); host.time.sleep(0.6); patient(Progress("rendering", 4, 4))
    assert told == ["rendering audio 4/4"]
    """)


def test_status_text_tells_the_time_left(in_comfyui):
    in_comfyui("""
    first = (10, 100.0)
    assert host.status_text(Progress("rendering", 10, 110), first, 100.0) == "rendering audio 10/110"
    half_way = host.status_text(Progress("rendering", 60, 110), first, 190.0)
    assert half_way == "rendering audio 60/110, about 1:30 left"
    assert host.status_text(Progress("rendering", 110, 110), first, 280.0) == "rendering audio 110/110"
    song = host.status_text(Progress("tokens", 60 * 25, 90 * 25), (0, 0.0), 120.0)
    assert song == "writing the song 1:00 of 1:30, about 1:00 left"
    several = host.status_text(Progress("tokens", 60 * 25, 90 * 25), (0, 0.0), 120.0, 3)
    assert several == "writing 3 songs 1:00 of 1:30, about 1:00 left"
    mb = host.status_text(Progress("downloading x.pt", 10, 20), (10, 0.0), 0.0)
    assert mb == "downloading x.pt 10/20 MB"
    """)


def test_several_takes_and_many_channels(in_comfyui):
    """Prompts take the first of several takes and say so; separation takes them all."""
    in_comfyui("""
    def audio(*shape):
        return {"waveform": torch.rand(*shape) - 0.5, "sample_rate": 44100}
    source, notes = sockets.source_of(audio(2, 6, 4410), None, audio(1, 2, 4410))
    assert notes == ["audio holds 2 takes; the first one is used",
                     "the stem that is not connected is the difference of the others"]
    assert source.song.samples.shape == (2, 4410) and source.vocal is None
    assert "no recording is given" in message(sockets.source_of, None, None, None)
    assert "vocal is not AUDIO" in message(sockets.source_of, None, {"x": 1}, None)
    odd = {**audio(1, 2, 4410), "sample_rate": 0}
    assert message(sockets.source_of, odd, None, None).startswith("audio: sample_rate is 0")
    batch = audio(2, 6, 44100)
    stopped, seen = host.stop_if_cancelled, []
    host.NodeProgress.__call__ = lambda self, progress: seen.append(progress)
    vocals, *_, rest = nodes["SeparateAudio"].execute(batch, "selftest", 0).result
    assert vocals["waveform"].shape == rest["waveform"].shape == (2, 2, 44100)
    assert [p.done for p in seen] == sorted(p.done for p in seen) and seen[-1].done == seen[-1].total
    other, *_ = nodes["SeparateAudio"].execute(audio(1, 1, 4410), "selftest", 0, 0, 0.5).result
    assert other["waveform"].shape == (1, 2, 4410) and other["sample_rate"] == 44100
    assert "separator is 'x'" in message(nodes["SeparateAudio"].execute, batch, "x", 0)
    assert "no sound" in message(nodes["SeparateAudio"].execute, None, "selftest", 0)
    """)


def test_without_demucs_the_message_says_how_to_get_it(in_comfyui):
    in_comfyui("""
    sys.modules["demucs"] = sys.modules["demucs.htdemucs"] = None
    audio = {"waveform": torch.rand(1, 2, 48000) - 0.5, "sample_rate": 48000}
    model, _ = nodes["LoadLeVoModel"].execute("selftest").result
    folder_paths.set_user_directory(TMP)
    prompt = nodes["AudioPrompt"].execute
    asked = (model, 0, True, 0.0, 1.0)
    for call, values in [(nodes["SeparateAudio"].execute, (audio, "selftest", 0)),
                         (nodes["EncodeAudioTokens"].execute, (model, 0, audio)), (prompt, (*asked, audio))]:
        assert 'pip install "demucs>=4.1"' in message(call, *values)
    result, clip, info = prompt(*asked, None, audio, audio).result  # voice and accompaniment given
    assert result.codes.shape[:2] == (1, 3) and clip["waveform"].shape == (1, 2, 48000)
    assert os.listdir(os.path.join(TMP, "songgen", "prompts"))
    """)


def test_codes_are_found_in_input_and_output_and_nowhere_else(in_comfyui):
    in_comfyui("""
    from pathlib import Path
    from pack.songgen_core.codes_file import save_codes
    home = Path(TMP)
    folder_paths.set_input_directory(str(home / "in")); folder_paths.set_output_directory(str(home / "out"))
    assert codec.list_files() == []
    (options,) = [i.options for i in nodes["LoadTokens"].define_schema().inputs if i.id == "file"]
    assert options == [codec.NOTHING] and "save some" in message(nodes["LoadTokens"].execute, codec.NOTHING)
    codes = torch.randint(100, (1, 3, 50))
    for name in ("in/a.safetensors", "in/sub/b.safetensors", "out/songgen/c.safetensors", "out/d.safetensors",
                 "in/.hidden.safetensors", "elsewhere.safetensors"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        save_codes(home / name, codes, {"notes": "mine"})
    (home / "in" / "link.safetensors").symlink_to(home / "elsewhere.safetensors")
    listed = ["a.safetensors", "songgen/c.safetensors [output]", "sub/b.safetensors"]
    assert codec.list_files() == listed
    load = nodes["LoadTokens"].execute
    for file in ("a.safetensors", "songgen/c.safetensors [output]", "d.safetensors [output]"):
        loaded, seconds, info = load(file).result
        assert torch.equal(loaded, codes) and seconds == 2.0 and info.endswith("notes: mine")
    assert torch.equal(load("x", str(home / "out" / "d.safetensors")).result[0], codes)
    for name in ("link.safetensors", "../elsewhere.safetensors", str(home / "elsewhere.safetensors"),
                 "../../elsewhere.safetensors [output]", "a.safetensors/../../../x.safetensors",
                 "a\\0.safetensors"):
        assert "inside ComfyUI" in message(codec.path_of, name), name
    assert "no such file" in message(load, "missing.safetensors")
    (home / "in" / "bad.safetensors").write_bytes(b"no")
    assert "damaged" in message(load, "bad.safetensors")
    state = nodes["LoadTokens"].fingerprint_inputs
    before = state("a.safetensors", ""); os.utime(home / "in" / "a.safetensors", ns=(1, 1))
    assert before != state("a.safetensors", "")
    assert "inside ComfyUI" in state("../elsewhere.safetensors", None)
    check = nodes["LoadTokens"].validate_inputs
    assert check(codec.NOTHING, None) is True is check("gone.safetensors", None)  # a path may be linked
    assert "inside ComfyUI" in check("../x.safetensors", None) and check("../x", "a.safetensors") is True
    assert "inside ComfyUI" in check("a.safetensors", "../x.safetensors")
    assert message(codec.path_of, "two\\nlines")  # on one line
    save_tokens = nodes["SaveTokens"].execute
    saved, path = save_tokens(codes, "songgen/take", "notes of mine").result
    assert saved is codes and torch.equal(load("x", path).result[0], codes)
    assert save_tokens(codes, "songgen/take").result[1] != path
    assert "leads out" in message(save_tokens, codes, "../x")
    """)


def test_a_missing_codec_is_named_before_a_long_separation(in_comfyui):
    in_comfyui("""
    from pathlib import Path
    from pack.songgen_core.checkpoint.layout import SharedFiles
    from pack.songgen_core.prompts.readers import PromptReaders
    model, _ = nodes["LoadLeVoModel"].execute("selftest").result
    files = SharedFiles(codec=Path(TMP, "codec"), vae=Path(TMP, "vae"), roots=(Path(TMP),))
    model.readers.core, separated = PromptReaders(files), []
    model.readers.core.separator = lambda: separated.append(1)
    audio = {"waveform": torch.rand(1, 2, 4800), "sample_rate": 48000}
    folder_paths.set_user_directory(TMP)
    for call, values in [(nodes["EncodeAudioTokens"].execute, (model, 0, audio)),
                         (nodes["AudioPrompt"].execute, (model, 0, True, 0.0, 0.1, audio))]:
        assert "the mixed codec" in message(call, *values) and not separated
    """)


def test_seeds_that_change_little_stay_as_they_are(in_comfyui):
    """Else the frontend draws another one after each run, and everything behind the node runs again."""
    in_comfyui("""
    for name, node in nodes.items():
        seeds = [i.control_after_generate for i in node.define_schema().inputs if i.id == "seed"]
        small = name in ("AudioPrompt", "EncodeAudioTokens", "SeparateAudio")
        assert seeds in ([], [not small]), name
    """)


def test_published_models_answer_to_their_names(in_comfyui):
    in_comfyui("""
    folder_paths.folder_names_and_paths["songgen"] = ([TMP], set())
    folder = os.path.join(TMP, "songgeneration_v2_medium")
    os.makedirs(folder)
    for name in ("config.yaml", "model.pt"):
        open(os.path.join(folder, name), "w").close()
    assert loaders.model_choices()[0] == "songgeneration_v2_medium"
    assert "v2-medium" not in loaders.model_choices() and "v2-large" in loaders.model_choices()
    check = nodes["LoadLeVoModel"].validate_inputs
    assert check("v2-medium") is True and check("songgeneration_v2_medium") is True and check(None) is True
    assert check("v2-large") is True and check("selftest") is True
    assert "choose one of" in check("/etc/passwd") and "choose one of" in check("v9")
    assert "choose one of" in check({}) and "\\\\n" in check("two\\nlines")
    assert loaders.published_name("songgeneration_v2_medium", "auto") == "v2-medium"
    assert loaders.published_name("selftest", "v2-large") is None
    load = nodes["LoadLeVoModel"].execute
    assert "model.pt" in message(load, "v2-medium")  # found, and empty
    assert "v2-large is not on this machine" in message(load, "v2-large")
    asked = ("v2-large", "auto", "auto", "if missing")
    assert "research and education purposes only" in message(load, *asked)
    assert "download is 'always'" in message(load, "v2-large", "auto", "auto", "always")
    assert "features is 'all'" in message(load, *asked, "all")
    """)


def test_lyrics_of_any_form_are_mended_and_the_report_tells(in_comfyui):
    in_comfyui("""
    formatter = nodes["LyricsFormatter"]
    typed = "[Verse 1]\\nHello there\\n\\n**Chorus**\\nSing it loud (x2)\\n[Guitar solo]"
    lyrics, report, seconds = formatter.execute(typed).result
    assert lyrics.startswith("[verse] Hello there. ; [chorus] Sing it loud."), lyrics
    assert "mended:" in report and "[Verse 1]" in report and seconds > 0
    hinted = formatter.execute("[Verse 1 - whispered]\\nHello there").result[1]
    assert hinted.index("not sung") < hinted.index("mended:") and "whispered" in hinted
    assert "not a structure tag" in message(formatter.execute, typed, False)
    assert formatter.validate_inputs(typed) is True
    assert "not a structure tag" in formatter.validate_inputs(typed, False)
    assert formatter.validate_inputs(None) is True
    """)


def test_pictures_show_codes_and_latents(in_comfyui):
    in_comfyui("""
    import numpy
    from pack.nodes.preview import picture
    codes = torch.tensor([[5, 5, 7, 7], [9, 9, 9, 9], [16385, 1, 1, 1]])
    shown = numpy.asarray(picture(codes, 8))
    assert shown.shape == (104, 512, 3)
    bands = shown[[0, 36, 72]].astype(int)  # the first row of each
    assert (bands[0, 0] == bands[0, 127]).all() and (bands[0, 128] == bands[0, 255]).all()
    assert abs(bands[0, 0] - bands[0, 255]).max() > 50, "other codes, other colours"
    assert (bands[1, :256] == bands[1, 0]).all()
    assert (bands[:, 256:] == 24).all(), "not written yet"
    known = numpy.asarray(picture(codes, 8, num_codes=16384))  # 16384 ends a stream, 16385 is silence
    assert (known[72, :64] == 72).all() and (known[72, 64:] == shown[72, 64:]).all()
    assert (known[:68] == shown[:68]).all(), "codes keep their colours"
    assert (numpy.asarray(picture(codes, 8, num_codes=9))[36, :256] == 72).all(), "the first id that is none"
    latents = torch.full((10, 4), -9.0)
    latents[5:, 3] = 9.0  # later, highest channel
    shown = numpy.asarray(picture(latents, 2))
    assert shown.shape == (128, 512, 3)
    assert (shown[0, 300] == (252, 255, 164)).all() and (shown[0, 200] == (0, 0, 16)).all()
    assert (shown[127] == (0, 0, 16)).all()
    picture(latents.fill_(float("nan")), 2)
    """)


def test_number_formats_follow_the_node_then_the_flags_then_the_card(in_comfyui):
    in_comfyui("""
    from types import SimpleNamespace
    assert host.compute_dtype("auto") == torch.float32  # on the CPU
    host.args = SimpleNamespace(bf16_unet=True)
    assert host.compute_dtype("auto") == torch.bfloat16
    assert host.compute_dtype("float32") == torch.float32
    host.args = SimpleNamespace(fp32_unet=True)
    host.mm.should_use_fp16 = lambda *a, **k: True
    assert host.compute_dtype("auto") == torch.float32
    host.args = SimpleNamespace()
    assert host.compute_dtype("auto") == torch.float16
    """)
