"""Downloading from a server that is well, slow, broken or hostile: nothing half-written is ever in place."""

import errno
import hashlib
import os
import pickle
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import ALL_FILES, IMPATIENT, TOY_BYTES, Toy, make_toy

from songgen_core.checkpoint.layout import find_shared, list_models
from songgen_core.errors import Cancelled, CheckpointError, DownloadError, UserError
from songgen_core.hub import download as library
from songgen_core.hub import remote, transfer
from songgen_core.hub.download import download
from songgen_core.hub.transfer import Patience
from songgen_core.progress import Progress

ROOT = Path(__file__).parents[2]
MODEL = "model.pt"
GOOD = 65536 * 2  # bytes after which the connection breaks; whole pieces for every HTTP library


def failing(toy: Toy, match: str, **options) -> str:
    """The one-line message of a download that fails and leaves nothing in the place of model.pt."""
    with pytest.raises(DownloadError, match=match) as caught:
        toy.get(**options)
    nothing_half_written(toy)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leave_a_part(toy: Toy) -> None:
    toy.hub.trouble(where=MODEL, drop_after=GOOD, times=1)
    toy.hub.trouble(where=MODEL, drop_after=0)
    failing(toy, "start it again to go on")


def nothing_half_written(toy: Toy) -> None:
    assert not toy.path.exists()
    assert list_models([toy.root]) == {}
    with pytest.raises(CheckpointError):
        find_shared("codec", [toy.root])


def complete(toy: Toy) -> None:
    assert toy.path.read_bytes() == toy.model
    assert toy.files == ALL_FILES and toy.parts == []


def test_everything_arrives_in_its_place(toy):
    progress: list[Progress] = []
    new = toy.get(on_progress=progress.append)
    assert {str(p.relative_to(toy.root)) for p in new} == ALL_FILES
    complete(toy)
    assert progress[-1].done == progress[-1].total == 1 and progress[-1].stage.startswith("downloading ")
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert toy.plan().missing == () and toy.get() == []


def test_only_the_features_that_were_asked_for(toy):
    assert [f.target for f in toy.plan("genres").missing][-1] == "presets.pt"
    download(toy.plan("genres"), patience=IMPATIENT)
    assert (toy.root / "presets.pt").is_file() and not (toy.root / "htdemucs.pth").exists()
    assert any(s.path.startswith("/spaces/o/toy/resolve/main/") for s in toy.hub.seen)
    with pytest.raises(UserError, match="feature 'stems' is unknown; choose from text, prompts, genres"):
        toy.plan("stems")


def test_the_token_goes_to_the_hub_and_nowhere_else(toy, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    toy.get(token="hf_given")
    tokens = {
        s.is_cdn: {v for k, v in s.headers.items() if k.lower() == "authorization"} for s in toy.hub.seen
    }
    assert tokens == {False: {"Bearer hf_given"}, True: set()}
    toy.path.unlink()
    toy.hub.seen.clear()
    toy.get()
    assert "hf_of_the_environment" in str(toy.hub.seen[0].headers)


def test_a_broken_connection_is_taken_up_again(toy):
    toy.hub.trouble(where=MODEL, drop_after=GOOD, times=2)
    toy.get()
    complete(toy)
    ranges = [s.headers.get("Range") for s in toy.hub.gets(MODEL)]
    assert ranges == [None, f"bytes={GOOD}-", f"bytes={2 * GOOD}-"]
    assert sum(s.sent[0] for s in toy.hub.gets(MODEL)) == TOY_BYTES


def test_a_later_run_goes_on_where_this_one_stopped(toy):
    toy.hub.trouble(where=MODEL, drop_after=GOOD, times=1)
    toy.hub.trouble(where=MODEL, drop_after=0)
    message = failing(toy, "start it again to go on")
    assert "what has arrived is kept: start it again to go on" in message
    (part,) = toy.parts
    assert part.name.startswith(".") and part.stat().st_size == GOOD == toy.plan().arrived_bytes
    toy.hub.well_again()
    before = toy.hub.sent
    toy.get()
    complete(toy)
    assert toy.hub.gets(MODEL)[-1].headers["Range"] == f"bytes={GOOD}-"
    assert toy.hub.sent - before == TOY_BYTES - GOOD + 5000 + 3000


def test_a_cancelled_run_goes_on_too(toy):
    toy.hub.trouble(where=MODEL, slow=0.02)
    done: list[int] = []
    seen = lambda: len(toy.parts) == 1 and toy.parts[0].stat().st_size > 20_000 and not done.append(1)  # noqa: E731
    with pytest.raises(Cancelled):
        toy.get(cancelled=seen)
    nothing_half_written(toy)
    there = toy.parts[0].stat().st_size
    assert there > 20_000
    toy.hub.well_again()
    toy.get()
    complete(toy)
    assert toy.hub.gets(MODEL)[-1].headers["Range"] == f"bytes={there}-"


def test_a_listener_that_raises_stops_the_work(toy):
    def interrupt(progress: Progress) -> None:
        raise InterruptedError("as ComfyUI does")

    with pytest.raises(InterruptedError):
        toy.get(on_progress=interrupt)
    toy.get()
    complete(toy)


def test_another_version_on_the_server_is_begun_anew(toy):
    toy.change(bytes=None, sha256=None)
    leave_a_part(toy)
    toy.hub.well_again()
    toy.model = os.urandom(TOY_BYTES)
    toy.hub.put("o/toy", MODEL, toy.model)
    toy.get()
    complete(toy)
    assert toy.hub.gets(MODEL)[-1].headers.get("Range") is None


def test_a_server_without_ranges_sends_all_again(toy):
    toy.hub.trouble(where=MODEL, drop_after=GOOD, times=1)
    toy.hub.trouble(where=MODEL, no_range=True)
    toy.get()
    complete(toy)
    assert [s.sent[0] for s in toy.hub.gets(MODEL)] == [GOOD, TOY_BYTES]


def test_without_ranges_a_line_that_always_breaks_is_given_up(toy):
    toy.hub.trouble(where=MODEL, no_range=True, drop_after=GOOD)
    failing(toy, "tried 3 times")
    assert len(toy.hub.gets(MODEL)) == 3


@pytest.mark.parametrize("sha256", [True, False], ids=["hash of the registry", "hash that the server tells"])
def test_wrong_bytes_are_refused_and_deleted(toy, sha256):
    if not sha256:
        toy.change(sha256=None)
    toy.hub.trouble(where=MODEL, body=os.urandom(TOY_BYTES))
    assert "deleted; try again" in failing(toy, r"o/toy: model.pt from 127.* arrived damaged \(SHA-256")
    assert toy.parts == []
    toy.hub.well_again()
    toy.get()
    complete(toy)


def test_a_rotten_part_is_found_out(toy):
    leave_a_part(toy)
    toy.parts[0].write_bytes(b"0" * GOOD)
    toy.hub.well_again()
    failing(toy, "damaged")
    toy.get()
    complete(toy)


def test_a_part_that_is_too_long_is_begun_anew(toy):
    leave_a_part(toy)
    toy.parts[0].write_bytes(b"0" * (TOY_BYTES + 1))
    toy.hub.well_again()
    toy.get()
    complete(toy)


@pytest.mark.parametrize("entries", [{"bytes": 7}, {"sha256": "0" * 64}], ids=["size", "hash"])
def test_another_file_than_the_registry_means_is_not_even_begun(toy, entries):
    toy.change(**entries)
    failing(toy, "correct the entry in registry.json, or choose another mirror")
    assert toy.hub.sent == 0


def test_more_bytes_than_announced(toy):
    toy.hub.trouble(where=MODEL, body=toy.model + b"x")
    failing(toy, "sends more than the 400,000 bytes")


def test_a_wrong_content_length(toy):
    toy.hub.trouble(where=MODEL, length=1000, times=1)
    toy.get()
    complete(toy)
    toy.path.unlink()
    toy.hub.trouble(where=MODEL, length=TOY_BYTES + 1000, times=1)
    toy.get()
    complete(toy)


@pytest.mark.parametrize(
    ("status", "headers", "match"),
    [
        (401, {}, r"model.pt \(main\) \(401\): the repository is private or gone.*set HF_TOKEN"),
        (403, {}, r"\(403\).*set HF_TOKEN .*hf auth login"),
        (
            403,
            {"X-Error-Code": "GatedRepo"},
            r"is gated \(403\): ask for access at http.*/o/toy, then set HF_TO",
        ),
        (
            404,
            {"X-Error-Code": "RepoNotFound"},
            r"private or gone|moved or removed; set HF_ENDPOINT to a mirror",
        ),
        (
            404,
            {"X-Error-Code": "RevisionNotFound"},
            r"moved or removed; set HF_ENDPOINT to a mirror or name an",
        ),
        (404, {"X-Error-Code": "EntryNotFound"}, r"another repository in registry.json"),
        (410, {}, r"moved or removed"),
        (418, {}, r"refuses o/toy: model.pt \(main\) with 418"),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_refusals_are_explained_at_once(toy, status, headers, match, method):
    toy.hub.trouble(where=MODEL, status=status, headers=headers, method=method)
    failing(toy, match)
    assert len([s for s in toy.hub.seen if s.method == method and MODEL in s.path]) == 1
    toy.hub.well_again()
    toy.get()
    complete(toy)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_server_errors_pass(toy, method):
    toy.hub.trouble(where=MODEL, status=503, method=method, times=2)
    toy.get()
    complete(toy)


def test_server_errors_that_stay(toy):
    toy.hub.trouble(where=MODEL, status=500, cdn=True)
    failing(toy, r"fails with 500; try again later, or set HF_ENDPOINT to a mirror \(tried 3 times\)")


def test_too_many_requests(toy):
    toy.hub.trouble(where=MODEL, status=429, headers={"Retry-After": "0.3"}, times=1)
    began = time.monotonic()
    toy.get()
    assert 0.3 <= time.monotonic() - began < 3
    complete(toy)


@pytest.mark.parametrize(
    ("wait", "match"),
    [("3600", "try again in 3600 s"), ("Wed, 21 Oct 2099 07:28:00 GMT", "in 2"), (None, "later")],
)
def test_too_many_requests_for_long(toy, wait, match):
    toy.hub.trouble(where=MODEL, status=429, headers={"Retry-After": wait} if wait else {})
    began = time.monotonic()
    assert match in failing(toy, r"limits how much .* \(429\).*HF_TOKEN")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "trouble",
    [{"silent": True, "method": "HEAD"}, {"silent": True, "method": "GET"}, {"stall_after": GOOD}],
    ids=["head", "get", "body"],
)
def test_a_stop_takes_effect_while_the_server_stalls(toy, trouble):
    toy.hub.trouble(where=MODEL, **trouble)
    stop_at = time.monotonic() + 0.4
    with pytest.raises(Cancelled):
        toy.get(cancelled=lambda: time.monotonic() > stop_at, patience=Patience())
    assert time.monotonic() - stop_at < 1
    nothing_half_written(toy)


def test_a_stop_takes_effect_during_a_pause(toy):
    toy.hub.trouble(where=MODEL, status=503)
    stop_at = time.monotonic() + 0.3
    with pytest.raises(Cancelled):
        toy.get(cancelled=lambda: time.monotonic() > stop_at, patience=Patience(pause=30))
    assert time.monotonic() - stop_at < 1


def test_a_server_that_falls_silent_is_given_up(toy):
    toy.hub.trouble(where=MODEL, stall_after=GOOD, times=1)
    toy.hub.trouble(where=MODEL, stall_after=0)
    patience = Patience(attempts=2, silence=0.2, pause=0.01)
    message = failing(toy, "sent nothing for|timed out", patience=patience)
    assert "start it again to go on" in message
    toy.hub.well_again()
    toy.hub.released.set()
    toy.get()
    complete(toy)


def test_by_default_a_silent_server_is_given_up_after_a_minute():
    patience = Patience()
    pauses = sum(patience.pause * 2**n for n in range(patience.attempts - 1))
    assert 60 <= patience.attempts * patience.silence + pauses <= 90


def test_no_network(toy, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        failing(toy, r"connection to 127.* failed \(.*[Rr]efused\); check network, proxy and firewall")
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    failing(toy, r"connection to no-such-host.invalid failed \(.*\)")


def test_the_endpoint_is_read_when_it_is_needed(toy, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", toy.hub.url + "/")
    toy.get()
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.com")
    with pytest.raises(DownloadError, match=r"HF_ENDPOINT is 'hf-mirror\.com'; give an address"):
        remote.Hub()
    monkeypatch.delenv("HF_ENDPOINT")
    assert remote.Hub().endpoint.startswith("http")


def test_offline_mode(toy, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    failing(toy, "HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or copy")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub = remote.Hub()

    def refuse(*_: object, **__: object) -> None:
        raise hub._errors.OfflineModeIsEnabled("set when huggingface_hub was imported")

    monkeypatch.setattr(hub._utils, "get_session", refuse)
    failing(toy, "HF_HUB_OFFLINE is set")
    assert toy.hub.gets() == []


def test_without_huggingface_hub(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    failing(toy, "needs huggingface_hub, .*; pip install huggingface_hub")


def test_a_full_disk_is_noticed_before_the_start(toy, monkeypatch):
    usage = shutil.disk_usage(toy.root)
    monkeypatch.setattr(library.shutil, "disk_usage", lambda _: usage._replace(free=100_400_000))
    message = failing(toy, r"has 0\.1 GB free, the download takes 0\.1 GB; free some space or choose")
    assert str(toy.root) in message and toy.hub.sent == 0
    monkeypatch.setattr(library.shutil, "disk_usage", lambda _: usage._replace(free=100_409_000))
    toy.get()


def test_a_part_takes_no_more_room(toy, monkeypatch):
    leave_a_part(toy)
    toy.hub.well_again()
    needed = TOY_BYTES - GOOD + 8000 + 100_000_000
    usage = shutil.disk_usage(toy.root)
    monkeypatch.setattr(library.shutil, "disk_usage", lambda _: usage._replace(free=needed))
    toy.get()
    complete(toy)


def test_a_disk_that_fills_up_meanwhile(toy):
    """The limit on file sizes is met as a full disk is: some bytes fit, the next ones do not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        message = failing(toy, "no space left in .*songgeneration_toy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "what has arrived is kept: free some space, start it again" in message
    there = toy.parts[0].stat().st_size
    assert 0 < there <= 150_000
    toy.get()
    complete(toy)
    assert toy.hub.gets(MODEL)[-1].headers["Range"] == f"bytes={there}-"


def test_no_permission_to_write(toy, monkeypatch):
    def refuse(path: Path, mode: str = "r", *_: object, **options: object) -> object:
        if path.suffix == ".part":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really_open(path, mode, **options)

    really_open = Path.open
    monkeypatch.setattr(transfer.Path, "open", refuse)
    failing(toy, r"\.part cannot be written to \(Permission denied\); choose another models folder or change")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_in_the_models_folder(toy):
    toy.root.chmod(0o500)
    failing(toy, "cannot be written to")
    toy.root.chmod(0o700)


def test_files_and_folders_in_the_wrong_place(toy):
    toy.path.parent.write_text("a file")
    failing(toy, r"songgeneration_toy cannot be written to \(.*exists\)|Not a directory")
    toy.path.parent.unlink()
    toy.path.mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"model\.pt is a folder, a file belongs there; rename or remo"):
        toy.get()


def test_the_models_folder_is_a_file(toy, tmp_path, monkeypatch):
    toy.root = tmp_path / "file"
    toy.root.write_text("")
    monkeypatch.setattr(library, "require_acceptance", lambda _: None)
    with pytest.raises(DownloadError, match=r"file cannot be written to \(it is a file\); choose another"):
        toy.get()


def test_the_licence_comes_first(toy):
    (toy.root / ".songgen-licence.json").unlink()
    with pytest.raises(UserError, match="--accept-licence"):
        toy.get()
    assert toy.hub.seen == [] and toy.files == set()


def test_two_processes_do_not_write_the_same_file(toy):
    """The second is told so; when the first is done, it finds everything there."""
    plan = toy.plan()
    with library._alone(toy.root):
        failing(toy, "another download into .* is running; wait for it or stop it")
    toy.get()
    toy.hub.seen.clear()
    assert download(plan, patience=IMPATIENT) == []  # a plan made before the first one was done
    assert toy.hub.gets() == []


def test_a_killed_process_leaves_a_part_and_no_lock(toy):
    toy.hub.trouble(where=MODEL, slow=0.1)
    program = (
        "import sys, pickle\nfrom songgen_core.hub.download import download\n"
        "download(pickle.load(sys.stdin.buffer))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE)
    process.stdin.write(pickle.dumps(toy.plan()))
    process.stdin.close()
    deadline = time.monotonic() + 20
    while toy.plan().arrived_bytes < 20_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    failing(toy, "another download into .* is running; wait for it or stop it")
    process.kill()
    process.wait()
    nothing_half_written(toy)
    there = toy.plan().arrived_bytes
    assert there >= 20_000
    toy.hub.well_again()
    toy.get()
    complete(toy)
    assert toy.hub.gets(MODEL)[-1].headers["Range"] == f"bytes={there}-"


def test_files_of_our_own_place_that_are_no_files_are_replaced(toy):
    toy.path.parent.mkdir()
    for wrong in (b"", toy.model[:-1], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"):
        toy.path.write_bytes(wrong)
        assert "songgeneration_toy/model.pt" in {f.target for f in toy.plan().missing}
    toy.get()
    complete(toy)


def test_small_files_are_checked_too(toy):
    toy.hub.trouble(where="config.yaml", body=b"x: 2\n", method="GET")
    with pytest.raises(DownloadError, match=r"config\.yaml from .* arrived damaged"):
        toy.get()
    toy.hub.well_again()
    toy.get()
    assert (
        hashlib.sha256(b"x: 1\n").digest()
        == hashlib.sha256((toy.path.parent / "config.yaml").read_bytes()).digest()
    )


def test_a_server_that_sends_another_part_than_was_asked_for(toy):
    leave_a_part(toy)
    toy.hub.well_again()
    toy.hub.trouble(where=MODEL, shift=512)
    message = failing(toy, "sends another part of o/toy: model.pt than was asked for")
    assert "start it again to go on" in message and toy.parts[0].stat().st_size == GOOD


def test_a_repository_name_that_the_library_refuses(toy):
    toy.change(repo="o/a--b")
    failing(toy, r"o/a--b: model\.pt cannot be had from 127.* name another repository in registry\.json")


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/model.pt", "http://[", "//"])
def test_redirects_lead_to_web_servers_only(toy, place):
    toy.hub.trouble(where=MODEL, method="GET", status=302, headers={"Location": place})
    failing(toy, "model.pt|127.0.0.1")


def test_two_toys_do_not_see_each_other(hub, tmp_path):
    first, second = make_toy(hub, tmp_path / "a"), make_toy(hub, tmp_path / "b")
    with library._alone(first.root):
        second.get()
    complete(second)
