from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from FewShotSegLib import checkpoints
from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import list_downloadable, load_checkpoint, save_checkpoint
from FewShotSegLib.download import DownloadError, cached_path, default_cache_dir, fetch
from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.errors import CheckpointError, OutputError

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """An HTTP server on the loopback interface that serves `files` and remembers what it was asked for."""

    def __init__(self) -> None:
        self.files = {"/good.bin": CONTENT, "/truncated.bin": CONTENT}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        content = self.files.get(request.path)
        if content is None:
            request.send_error(404)
            return
        request.send_response(200)
        if request.path != "/no-length.bin":
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:5000] if request.path == "/truncated.bin" else content)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_file_is_fetched_once_and_then_comes_from_the_cache(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(server.url("/good.bin"), DIGEST, cache_dir=tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path.name == "good.bin"
    assert len(steps) > 1 and steps[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert fetch(server.url("/good.bin"), DIGEST.upper(), cache_dir=tmp_path) == path
    assert server.asked == ["/good.bin"]
    assert leftovers(tmp_path) == [path]


def test_server_that_does_not_tell_the_length_is_served_too(server: Server, tmp_path: Path) -> None:
    server.files["/no-length.bin"] = CONTENT
    totals = set()
    path = fetch(server.url("/no-length.bin"), DIGEST, cache_dir=tmp_path, progress=lambda done, total: totals.add(total))
    assert path.read_bytes() == CONTENT
    assert totals == {None}


def test_damaged_cache_is_replaced(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url("/good.bin"), DIGEST, cache_dir=tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert fetch(server.url("/good.bin"), DIGEST, cache_dir=tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_wrong_content_never_appears(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"has SHA-256 {DIGEST}. Expected: SHA-256 {'0' * 64}"):
        fetch(server.url("/good.bin"), "0" * 64, cache_dir=tmp_path)
    assert not leftovers(tmp_path)


def test_truncated_transfer_is_noticed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"broke off after 5000 of {len(CONTENT)} bytes.*run again"):
        fetch(server.url("/truncated.bin"), DIGEST, cache_dir=tmp_path)
    assert not leftovers(tmp_path)


def test_missing_file_gives_the_servers_answer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="answered 404"):
        fetch(server.url("/moved.bin"), DIGEST, cache_dir=tmp_path)
    assert not leftovers(tmp_path)


def test_offline_says_where_to_put_the_file_and_putting_it_there_works(server: Server, tmp_path: Path) -> None:
    url = server.url("/good.bin")
    server.http.server_close()  # nobody listens on this port any more
    place = cached_path(url, DIGEST, tmp_path)
    with pytest.raises(DownloadError, match="Cannot download") as caught:
        fetch(url, DIGEST, cache_dir=tmp_path)
    assert str(place) in caught.value.action
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    assert fetch(url, DIGEST, cache_dir=tmp_path) == place


def test_only_web_addresses_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="https://"):
        fetch((tmp_path / "secret").as_uri(), DIGEST, cache_dir=tmp_path / "cache")


def test_cache_that_cannot_be_written_is_an_output_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="Cannot write"):
        fetch(server.url("/good.bin"), DIGEST, cache_dir=tmp_path / "cache")


def test_user_who_stops_the_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("/good.bin"), DIGEST, cache_dir=tmp_path, progress=stop)
    assert not leftovers(tmp_path)


def test_cache_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWSHOTSEG_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("FEWSHOTSEG_CACHE")
    assert default_cache_dir().name == "fewshotseg"


# ---- checkpoints that come from a server


@pytest.fixture
def remote(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A checkpoint named `far` that only the server has, and an empty cache."""
    torch.manual_seed(0)
    path = save_checkpoint(create_encoder("resnet50v2", channels=8), Card("far", licence="Apache-2.0"), tmp_path / "origin")
    card = Card.read(path.with_suffix(".json"))
    server.files["/far.safetensors"] = path.read_bytes()
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    entry = {"name": "far", "url": server.url("/far.safetensors"), "sha256": card.sha256, "card": asdict(card)}
    (bundled / "index.json").write_text(json.dumps([entry]))
    monkeypatch.setattr(checkpoints, "resource_dir", lambda kind: bundled)
    monkeypatch.setenv("FEWSHOTSEG_CACHE", str(tmp_path / "cache"))
    return card


def test_named_checkpoint_is_downloaded_once(server: Server, remote: Card) -> None:
    assert list_downloadable() == [remote]
    assert checkpoints.list_checkpoints() == []
    done: list[int] = []
    assert load_checkpoint("far", progress=lambda n, total: done.append(n))[1] == remote
    assert done
    assert checkpoints.list_checkpoints() == [remote]
    assert load_checkpoint("far")[1] == remote
    assert server.asked == ["/far.safetensors"]


def test_unreachable_checkpoint_is_named(server: Server, remote: Card) -> None:
    del server.files["/far.safetensors"]
    with pytest.raises(CheckpointError, match="The checkpoint 'far' is not on this computer.*answered 404"):
        load_checkpoint("far")
    assert checkpoints.list_checkpoints() == []


def test_index_with_a_bad_card_is_refused_before_anything_is_downloaded(server: Server, remote: Card, tmp_path: Path) -> None:
    index = tmp_path / "bundled" / "index.json"
    entry = json.loads(index.read_text())[0]
    entry["card"] = asdict(replace(remote, channels="8"))  # type: ignore[arg-type]
    index.write_text(json.dumps([entry]))
    with pytest.raises(CheckpointError, match="channels"):
        load_checkpoint("far")
    assert server.asked == []
