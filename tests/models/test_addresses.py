"""Names, addresses, hashes, cache: nothing is fetched unasked, nothing unchecked is used."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dapg import cli
from dapg.core.errors import UsageError, WeightsError
from dapg.models.weights import addresses
from dapg.models.weights.addresses import locate, zoo
from dapg.models.weights.backbone_weights import init_backbone, weights_hash

CONTENT = b"weights of some network"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAPG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DAPG_ZOO", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and the paths it was asked for."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = self.path == "/some%20weights.pth"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(CONTENT if known else b"")

        def log_message(self, *arguments: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_asked_for_checked_and_kept(served: tuple[str, list[str]], cache: Path) -> None:
    host, asked = served
    address = f"{host}/some%20weights.pth#sha256={DIGEST}"
    with pytest.raises(UsageError, match="--download"):
        locate(address)
    assert asked == []
    path = locate(address, download=True).path
    assert path.read_bytes() == CONTENT
    assert path == cache / DIGEST / "some weights.pth"
    assert locate(address).path == locate(address, download=True).path == path
    assert asked == ["/some%20weights.pth"], "the cache answers"
    path.write_bytes(b"changed")
    with pytest.raises(WeightsError, match="another SHA-256"):
        locate(address)


def test_what_arrives_with_another_hash_is_not_kept(served: tuple[str, list[str]], cache: Path) -> None:
    host, _ = served
    with pytest.raises(WeightsError, match="it is not kept"):
        locate(f"{host}/some%20weights.pth#sha256={'0' * 64}", download=True)
    with pytest.raises(WeightsError, match="could not be downloaded: Not Found"):
        locate(f"{host}/missing.pth#sha256={DIGEST}", download=True)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_addresses_need_a_hash_and_local_ones_are_checked_in_place(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(CONTENT)
    with pytest.raises(UsageError, match="does not end with #sha256="):
        locate(file.as_uri())
    assert locate(f"{file.as_uri()}#sha256={DIGEST}").path == file
    assert locate(str(file)).path == file
    with pytest.raises(WeightsError, match="another SHA-256"):
        locate(f"{file.as_uri()}#sha256={'1' * 64}")


def write_zoo(path: Path, **changes: Any) -> None:
    entry = {"name": "mine", "file": "w.pth", "sha256": DIGEST}
    card = {"data": "my street", "terms": "mine", "licence": "mine", "use": "my door"}
    path.write_text(json.dumps([{**entry, "card": card, **changes}]))


def test_a_zoo_file_gives_names_cards_and_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pth").write_bytes(CONTENT)
    write_zoo(tmp_path / "zoo.json")
    monkeypatch.setenv("DAPG_ZOO", str(tmp_path / "zoo.json"))
    source = locate("mine")
    assert source.path == tmp_path / "w.pth"
    assert source.card is not None
    assert source.card.terms == "mine"
    (tmp_path / "w.pth").write_bytes(b"other")
    with pytest.raises(WeightsError, match="another SHA-256"):
        locate("mine")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"card": {"data": "x"}}, "does not state its terms, licence, use"),
        ({"sha256": "12"}, "needs the sha256"),
        ({"weight": 1}, "weight is not a setting"),
    ],
)
def test_entries_without_card_or_hash_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zoo(tmp_path / "zoo.json", **changes)
    monkeypatch.setenv("DAPG_ZOO", str(tmp_path / "zoo.json"))
    with pytest.raises(UsageError, match=message):
        zoo()


def test_the_packages_own_models_are_there_with_cards_and_intact() -> None:
    for name in zoo():
        assert locate(name).path.is_file()
    backbone, report = init_backbone("mobilenet_v2", None, "mobilenet_v2-imagenet", 0)
    assert report is not None
    assert not report.missing
    assert backbone.feature_dim == 1280
    assert weights_hash("mobilenet_v2-imagenet") == zoo()["mobilenet_v2-imagenet"].sha256
    assert weights_hash("hf://no/where@1") is None


def test_the_command_lists_locates_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights"]) == 0
    listed = capsys.readouterr().out
    assert "mobilenet_v2-imagenet\n  data: ImageNet-1k" in listed
    assert "licence: MIT" in listed
    assert cli.main(["weights", "mobilenet_v2-imagenet"]) == 0
    assert "mobilenet_v2_imagenet.safetensors\ndata: ImageNet" in capsys.readouterr().out
    assert cli.main(["weights", f"https://example.org/w.pth#sha256={DIGEST}"]) == 2
    assert "nothing is downloaded unasked" in capsys.readouterr().err


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub client's cache with one repository in it, as a download leaves it; returns the snapshot's folder."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit, repository = "a" * 40, tmp_path / "hub" / "models--somebody--people"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    config = b"{}"
    for name, content, digest in (
        ("model.safetensors", CONTENT, DIGEST),
        ("config.json", config, git_hash(config)),
    ):
        (repository / "blobs" / digest).write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / digest)
    return snapshot


def test_a_revision_of_the_hub_is_read_from_its_cache_and_checked(hub: Path) -> None:
    assert locate("hf://somebody/people@v1").path == hub
    assert locate("hf://somebody/people@v1/model.safetensors").path == hub / "model.safetensors"
    (hub / "config.json").resolve().write_bytes(b"[]")
    with pytest.raises(WeightsError, match="the hash that the hub states"):
        locate("hf://somebody/people@v1")


@pytest.mark.parametrize(
    "address, message",
    [
        ("hf://somebody/people", "names no revision"),
        ("hf://somebody", "no address of the hub"),
        ("hf://somebody/people@v2", "--download"),
        ("hf://somebody/people@v1/other.pth", "--download"),
    ],
)
def test_what_is_not_in_the_hubs_cache_is_said(hub: Path, address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        locate(address)


def test_a_hub_that_does_not_answer_is_said(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *names, **options: real(*names, **options, endpoint="http://127.0.0.1:9"),
    )
    with pytest.raises(WeightsError, match="could not be downloaded"):
        locate("hf://somebody/people@v3", download=True)
    assert addresses.cache_folder().name == "cache"
