"""Audio files: round trips with soundfile as the independent reader, tags, and what happens when it fails."""

import errno
import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from songgen_core.audio import files
from songgen_core.audio.files import FORMATS, SavedAudio, load_audio, save_audio
from songgen_core.audio.limiter import limit_peaks
from songgen_core.errors import AudioError, Cancelled
from songgen_core.progress import Progress

RATE = 48000
TAGS = {
    "title": "夜空の歌 🎵",
    "artist": "Bjørk & Ärzte",
    "lyrics": "[verse]\n第一行 🎤\nsecond line\n",
    "comment": "seed=1; cfg=1.5",
    "prompt": '{"3": {"inputs": {"text": "\\u591c"}}}',
    "workflow": '{"nodes": "' + "n" * 150_000 + '"}',
}


def noise(channels: int = 2, length: int = 3 * RATE + 77, level: float = 0.2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(channels, length, generator=generator) * level).clamp(-0.999, 0.999)


def tone(length: int = 3 * RATE) -> torch.Tensor:
    time = torch.arange(length) / RATE
    return 0.4 * torch.stack([torch.sin(2 * torch.pi * 440 * time), torch.sin(2 * torch.pi * 660 * time)])


def read(path: Path) -> torch.Tensor:
    """[C, N] as soundfile sees it."""
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy())


def name_for(audio_format: str) -> str:
    return "song" + {"wav32": ".wav"}.get(audio_format, f".{audio_format}")


def tags_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("audio_format", "subtype"), [("flac", "PCM_24"), ("wav", "PCM_24"), ("wav32", "FLOAT")]
)
def test_lossless_round_trip(tmp_path, channels, audio_format, subtype):
    audio = noise(channels)
    path = tmp_path / name_for(audio_format)
    saved = save_audio(path, audio, RATE, audio_format=audio_format)
    assert saved == SavedAudio(path, audio_format, audio.shape[1] / RATE, float(audio.abs().max()), False)
    info = soundfile.info(path)
    assert (info.subtype, info.samplerate, info.channels) == (subtype, RATE, channels)
    assert info.frames == audio.shape[1]
    error = float((read(path) - audio).abs().max())
    assert error == 0.0 if audio_format == "wav32" else error < 2e-7
    loaded, rate = load_audio(path)
    assert rate == RATE and loaded.dtype == torch.float32
    assert torch.equal(loaded, read(path))


def test_values_of_24_bits_survive_exactly_and_again(tmp_path):
    codes = torch.randint(-(1 << 23), 1 << 23, (2, 5000), generator=torch.Generator().manual_seed(1))
    audio = codes.float() / (1 << 23)
    for name in ("song.flac", "song.wav"):
        save_audio(tmp_path / name, audio, 44100)
        assert torch.equal(read(tmp_path / name), audio)


def test_full_scale_does_not_wrap_around(tmp_path):
    audio = torch.tensor([[1.0, -1.0, 0.0, 1.0]]).repeat(1, 100)
    assert not save_audio(tmp_path / "a.flac", audio, RATE).limited
    assert float((read(tmp_path / "a.flac") - audio).abs().max()) < 2e-7


def test_wav32_keeps_every_bit_above_full_scale(tmp_path):
    audio = noise() * 7.0
    saved = save_audio(tmp_path / "a.wav", audio, RATE, audio_format="wav32")
    assert saved.peak == float(audio.abs().max()) > 1.0 and not saved.limited
    assert torch.equal(read(tmp_path / "a.wav"), audio)
    assert torch.equal(load_audio(tmp_path / "a.wav")[0], audio)


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_integer_formats_are_limited_not_clipped(tmp_path, audio_format):
    audio = noise() * 3.0
    saved = save_audio(tmp_path / name_for(audio_format), audio, RATE)
    assert saved.limited and saved.peak == float(audio.abs().max())
    assert float((read(saved.path) - limit_peaks(audio)).abs().max()) < 2e-7


@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_round_trip(tmp_path, channels):
    audio = tone()[:channels]
    saved = save_audio(tmp_path / "a.mp3", audio, RATE)
    for decoded in (read(saved.path), load_audio(saved.path)[0]):
        assert decoded.shape == audio.shape
        assert float(torch.corrcoef(torch.stack([decoded.flatten(), audio.flatten()]))[0, 1]) > 0.999
    with av.open(str(saved.path)) as container:
        assert container.streams.audio[0].bit_rate == 320_000


def test_loud_mp3_is_limited(tmp_path):
    assert save_audio(tmp_path / "a.mp3", tone() * 5.0, RATE).limited


@pytest.mark.parametrize("audio_format", FORMATS)
def test_blocks_leave_no_trace(tmp_path, monkeypatch, audio_format):
    path = tmp_path / name_for(audio_format)
    save_audio(path, noise(), RATE, audio_format=audio_format)
    whole = read(path)
    monkeypatch.setattr(files, "_BLOCK", 10_007)
    save_audio(path, noise(), RATE, audio_format=audio_format)
    assert torch.equal(read(path), whole)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_same_input_gives_the_same_bytes(tmp_path, audio_format):
    contents = set()
    for folder in ("1", "2"):
        path = tmp_path / folder / name_for(audio_format)
        save_audio(path, noise(), RATE, audio_format=audio_format, tags=TAGS)
        contents.add(path.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_batch_of_one_and_strided_audio(tmp_path, dtype):
    audio = noise(length=5000).T.contiguous().T.to(dtype).unsqueeze(0).requires_grad_()
    save_audio(str(tmp_path / "a.WAV"), audio, 22050, audio_format="wav32")
    assert torch.equal(read(tmp_path / "a.WAV"), audio[0].detach().float())


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_tags_read_back(tmp_path, name):
    save_audio(tmp_path / name, tone(RATE), RATE, tags=TAGS)
    found = tags_of(tmp_path / name)
    assert {key: found.get(key) for key in TAGS} == TAGS


def test_wav_keeps_the_tags_it_has_fields_for(tmp_path):
    save_audio(tmp_path / "a.wav", tone(RATE), RATE, tags=TAGS)
    found = tags_of(tmp_path / "a.wav")
    assert {key: found.get(key) for key in ("title", "artist", "comment")} == {
        key: TAGS[key] for key in ("title", "artist", "comment")
    }
    assert "workflow" not in found


def test_odd_tag_text_does_no_harm(tmp_path):
    save_audio(tmp_path / "a.flac", tone(RATE), RATE, tags={"title": "a\0b\ud800c", "comment": ""})
    assert tags_of(tmp_path / "a.flac")["title"] == "ab?c"


def test_huge_tags(tmp_path):
    for name in ("a.flac", "a.mp3"):
        save_audio(tmp_path / name, tone(RATE), RATE, tags={"workflow": "w" * 14_900_000})
        assert len(tags_of(tmp_path / name)["workflow"]) == 14_900_000
        assert load_audio(tmp_path / name)[0].shape == (2, RATE)
    with pytest.raises(AudioError, match="tags take 17 MB"):
        save_audio(tmp_path / "b.flac", tone(RATE), RATE, tags={"workflow": "w" * 17_000_000})
    assert not (tmp_path / "b.flac").exists()


def test_folder_is_created_and_file_replaced(tmp_path):
    path = tmp_path / "新しい" / "deep 100%d" / "a.flac"
    save_audio(path, noise(), RATE)
    save_audio(path, tone(), RATE)
    assert float((read(path) - tone()).abs().max()) < 2e-7
    assert [entry.name for entry in path.parent.iterdir()] == ["a.flac"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_file_mode_is_that_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save_audio(tmp_path / "a.wav", tone(100), RATE)
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


def fail_at_second_block(monkeypatch, error: BaseException) -> None:
    """The encoder stops half-way; the first block is already in the hidden file."""
    encode_frame, calls = files._frame, []

    def frame(*args):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return encode_frame(*args)

    monkeypatch.setattr(files, "_frame", frame)


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt(), SystemExit(1)])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, audio_format, error):
    path = tmp_path / name_for(audio_format)
    path.write_bytes(b"old")
    fail_at_second_block(monkeypatch, error)
    with pytest.raises(type(error)):
        save_audio(path, noise(), RATE, audio_format=audio_format)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_hidden_file_while_writing(tmp_path, monkeypatch):
    seen = []
    encode = files._encode

    def spy(path, *args):
        encode(path, *args)
        seen.extend(entry.name for entry in tmp_path.iterdir())

    monkeypatch.setattr(files, "_encode", spy)
    save_audio(tmp_path / "a.flac", noise(), RATE)
    assert len(seen) == 1 and seen[0].startswith(".") and seen[0].endswith(".flac")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full(tmp_path, monkeypatch, code):
    fail_at_second_block(monkeypatch, OSError(code, "No space left on device"))
    with pytest.raises(AudioError, match=r"disk is full.*free some space"):
        save_audio(tmp_path / "a.flac", noise(), RATE)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize("audio_format", FORMATS)
def test_encoder_reports_a_full_disk(tmp_path, monkeypatch, audio_format):
    """FFmpeg's own error, not a simulated one: the hidden file is a link to a device that is always full."""
    opened = av.open

    def open_full(path, *args, **kwargs):
        os.symlink("/dev/full", path)
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(av, "open", open_full)
    with pytest.raises(AudioError, match="disk is full"):
        save_audio(tmp_path / name_for(audio_format), tone(), RATE, audio_format=audio_format)
    assert not list(tmp_path.iterdir())


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(AudioError, match=r"no permission to write .*a\.flac; choose another folder"):
        save_audio(tmp_path / "a.flac", noise(), RATE)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="chmod does not stop this user")
def test_read_only_folder(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(AudioError, match="no permission to write"):
        save_audio(tmp_path / "locked" / "a.flac", noise(), RATE)


def test_read_only_file_system(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(AudioError, match="no permission to write"):
        save_audio(tmp_path / "a.flac", noise(), RATE)


def test_paths_that_cannot_be_files(tmp_path):
    (tmp_path / "folder.flac").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(AudioError, match="is a folder; add a file name"):
        save_audio(tmp_path / "folder.flac", noise(), RATE)
    with pytest.raises(AudioError, match="cannot be written"):
        save_audio(tmp_path / "file" / "a.flac", noise(), RATE)
    with pytest.raises(AudioError, match="cannot be written"):
        save_audio(tmp_path / ("x" * 300 + ".flac"), noise(), RATE)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.flac"]


@pytest.mark.parametrize(
    ("name", "audio_format", "message"),
    [
        ("a.ogg", None, r"unknown extension '\.ogg'; use \.flac, \.wav or \.mp3"),
        ("a", None, "unknown extension ''"),
        ("a.flac", "opus", "'opus'; use one of flac, wav, wav32, mp3"),
        ("a.flac", "mp3", r"must end in \.mp3"),
        ("a.wav32", "wav32", r"must end in \.wav"),
    ],
)
def test_unknown_formats(tmp_path, name, audio_format, message):
    with pytest.raises(AudioError, match=message):
        save_audio(tmp_path / name, noise(), RATE, audio_format=audio_format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(2, 0), "empty"),
        (torch.zeros(100), "must be"),
        (torch.zeros(3, 100), "1 or 2 channels"),
        (torch.zeros(0, 2, 100), "must be"),
        (torch.zeros(2, 2, 100), "batch of 2 takes"),
        (torch.zeros(1, 1, 2, 100), "must be"),
        (torch.zeros(2, 100, dtype=torch.int16), "float"),
        (torch.full((2, 100), float("nan")), "invalid samples"),
    ],
)
def test_unusable_audio(tmp_path, audio, message):
    with pytest.raises(AudioError, match=message):
        save_audio(tmp_path / "new" / "a.flac", audio, RATE)
    assert not list(tmp_path.iterdir())


def test_unusable_sample_rates(tmp_path):
    with pytest.raises(AudioError, match="sample_rate is 0"):
        save_audio(tmp_path / "a.wav", noise(), 0)
    with pytest.raises(AudioError, match="32000, 44100, 48000 Hz, not 96000"):
        save_audio(tmp_path / "a.mp3", noise(), 96000)
    with pytest.raises(AudioError, match=r"a\.flac"):
        save_audio(tmp_path / "a.flac", noise(), 5_000_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("audio_format", FORMATS)
def test_saving_is_watched_to_its_end(tmp_path, audio_format):
    seen: list[Progress] = []
    saved = save_audio(tmp_path / name_for(audio_format), tone(), RATE, on_progress=seen.append)
    assert saved.path.exists() and {p.stage for p in seen} == {"saving"}
    assert [p.done for p in seen] == list(range(1, len(seen) + 1)) and len(seen) == seen[-1].total > 1


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("blocks", [0, 2])
def test_a_stop_while_saving_leaves_what_was_there(tmp_path, audio_format, blocks):
    path, seen = tmp_path / name_for(audio_format), []
    for before in (None, b"the old one"):
        if before is not None:
            path.write_bytes(before)
        seen.clear()
        with pytest.raises(Cancelled):
            save_audio(
                path,
                tone(),
                RATE,
                audio_format=audio_format,
                on_progress=seen.append,
                cancelled=lambda: len(seen) == blocks,
            )
        assert len(seen) == blocks, "a stop takes effect at the next block"
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [before] * (before is not None)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (
        lambda: save_audio(tmp_path / "a.wav", noise(), RATE),
        lambda: load_audio(tmp_path / "a.wav"),
    ):
        with pytest.raises(AudioError, match="pip install av"):
            call()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_load_other_wav_files(tmp_path, subtype, channels):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(channels).T.numpy(), 44100, subtype=subtype)
    loaded, rate = load_audio(path)
    assert rate == 44100
    assert torch.equal(loaded, read(path))


@pytest.mark.parametrize(("extension", "codec"), [("m4a", "aac"), ("ogg", "libopus"), ("mp4", "aac")])
def test_load_compressed_and_video_files(tmp_path, extension, codec):
    path = tmp_path / f"a.{extension}"
    with av.open(str(path), "w") as container:
        if extension == "mp4":
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
        stream = container.add_stream(codec, rate=RATE, layout="stereo")
        if extension == "mp4":
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(video.encode(picture))
            container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(tone().numpy(), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    loaded, rate = load_audio(path)
    assert rate == RATE and loaded.shape[0] == 2
    assert abs(loaded.shape[1] - 3 * RATE) <= 2048
    assert 0.35 < float(loaded[:, RATE : 2 * RATE].abs().max()) < 0.45


def test_load_failures(tmp_path):
    with pytest.raises(AudioError, match="no such audio file"):
        load_audio(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="no such audio file"):
        load_audio(tmp_path)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"empty \(0 bytes\)"):
        load_audio(tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("these are words, not sound\n" * 200)
    with pytest.raises(AudioError, match=r"text\.wav (is no readable audio|holds no sound)"):
        load_audio(tmp_path / "text.wav")
    soundfile.write(tmp_path / "silent.wav", np.zeros((0, 2)), RATE)
    with pytest.raises(AudioError, match="holds no sound"):
        load_audio(tmp_path / "silent.wav")


def test_load_picture(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        container.mux(
            video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24"))
        )
        container.mux(video.encode(None))
    with pytest.raises(AudioError, match="holds no sound"):
        load_audio(tmp_path / "a.mp4")


def test_load_does_not_follow_playlists_into_the_network(tmp_path):
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError):
        load_audio(tmp_path / "a.m3u8")
