"""`dapg index`, `search` and `gallery` from the command line, with drawn figures and the colour histogram."""

import json
import socket
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest
import torch

from command_line import run
from dapg.core.errors import UsageError
from dapg.gallery.gallery import Gallery
from figures import make_figures

_EXPORT = "dapg gallery export {} --search 1 --out case.zip"
MODEL = ("--model", "histogram", "--height", "64", "--width", "32")


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A gallery of two persons, made by `dapg index`; their images are in ``figures`` beside it."""
    make_figures(tmp_path / "figures", persons=2)
    code, out, err = run(capsys, "index", tmp_path / "gallery", tmp_path / "figures", *MODEL, "--device", "cpu")
    assert code == 0, err
    assert "12 images added" in out
    return tmp_path / "gallery"


def test_index_says_what_it_needs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(capsys, "index", "--help")[0] == 0
    code, _, err = run(capsys, "index", folder)
    assert (code, "needs GALLERY and SOURCE" in err) == (2, True)
    code, _, err = run(capsys, "index", folder.parent / "new", folder.parent / "figures")
    assert (code, "needs --model" in err, (folder.parent / "new").exists()) == (2, True, False)
    code, _, err = run(capsys, "index", folder, folder.parent / "figures", "--model", "histogram")
    assert (code, "--migrate" in err) == (2, True)
    elsewhere = ("--store", "postgresql://me:secret@host/people")
    code, _, err = run(capsys, "index", folder, folder.parent / "figures", *elsewhere)
    assert (code, "in sqlite, not in postgresql://me@host/people" in err, err.count("\n")) == (2, True, 1)
    code, out, _ = run(capsys, "index", folder, "--model", "histogram", "--migrate", "true")
    assert (code, "12 images re-encoded" in out) == (0, True)
    code, out, _ = run(capsys, "index", folder, folder.parent / "figures")
    assert (code, "12 known" in out) == (0, True)


def test_search_prints_text_json_and_a_page(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query, page = folder.parent / "figures" / "camera1" / "001_0.png", folder.parent / "page.html"
    code, out, err = run(capsys, "search", folder, query, "--top", "3", "--html", page, "--reason", "case 17")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "search 1: visible query, 3 answers"
    assert lines[1].startswith("place, likeness")
    assert lines[2].startswith("  1  1.000  camera 1, person 001  #")
    assert lines[2].endswith(f" {query}")
    assert page.read_text().count("data:image/jpeg") == 3, "the query is also the first answer, and stored once"
    code, out, _ = run(capsys, "search", folder, query, "--camera", "camera 3", "--json", "true")
    answers = json.loads(out)["answers"]
    assert [answer["camera"] for answer in answers] == ["camera 3"] * 4
    code, out, _ = run(capsys, "search", folder, query, "--after", "0")
    assert (code, "0 answers" in out) == (0, True)  # no image of the list has a time
    code, _, err = run(capsys, "search", folder, query, "--after", "noon")
    assert (code, "is no time" in err) == (2, True)
    code, _, err = run(capsys, "search", folder)
    assert (code, "needs GALLERY and IMAGE" in err) == (2, True)


@pytest.mark.parametrize("copy", ["true", "false"])
def test_a_search_does_not_name_files_that_are_gone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, copy: str
) -> None:
    figures, folder, query = make_figures(tmp_path / "figures", persons=1), tmp_path / "gallery", tmp_path / "query.png"
    picture = figures / "camera1" / "000_0.png"
    assert run(capsys, "index", folder, figures, *MODEL, "--copy", copy)[0] == 0
    picture.rename(query)
    lines = run(capsys, "search", folder, query, "--top", "1")[1].splitlines()
    if copy == "true":
        assert lines[2].endswith(" copy of 000_0.png")
        assert lines[3] == f"to see the gallery's copies: --html PAGE, or {_EXPORT.format(folder)}"
        words = lines[3].partition(" or dapg ")[2].replace("case.zip", str(tmp_path / "case.zip")).split()
        assert run(capsys, *words)[0] == 0
        assert (tmp_path / "case.zip").is_file()
    else:
        assert lines[2:] == [lines[2]]
        assert lines[2].endswith(f" {picture} (gone)")


def test_what_is_known_of_a_gallery(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "gallery", "info", folder, "--json", "true")
    assert (code, json.loads(out)["pictures"]) == (0, 12)
    assert "licence: none needed" in run(capsys, "gallery", "info", folder)[1]
    code, out, _ = run(capsys, "gallery", "users", folder, "--add", "anna", "--role", "operator")
    token = out.splitlines()[0].rpartition(" ")[2]
    user = Gallery(folder).user(token)
    assert user is not None
    assert (user.name, "operator  anna" in out) == ("anna", True)
    assert "anna" not in run(capsys, "gallery", "users", folder, "--remove", "anna")[1]
    code, out, _ = run(capsys, "gallery", "retention", folder, "--unknown", "3")
    assert "unknown            0 images, 3 days" in out
    assert "confirmed         12 images, for ever" in out
    assert "0 images deleted" in run(capsys, "gallery", "retention", folder, "--enforce", "true")[1]


def test_delete_check_audit_backup_and_export(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = folder.parent / "figures" / "camera1" / "001_0.png"
    run(capsys, "search", folder, query)
    code, out, err = run(capsys, "gallery", "export", folder, "--search", "1", "--out", folder.parent / "case.zip")
    assert (code, (folder.parent / "case.zip").stat().st_size > 1000) == (0, True), err
    assert "if these are real people" in out
    code, out, _ = run(capsys, "gallery", "delete", folder, "--person", "person 001", "--reason", "asked for it")
    assert code == 0
    assert "6 images deleted" in out
    assert f"yours to delete, outside the gallery: {query}" in out
    assert run(capsys, "gallery", "check", folder, "--text", "person 001")[0] == 0
    code, out, err = run(capsys, "gallery", "check", folder, "--text", "person 000")
    assert (code, "'person 000'" in out, "problem" in err) == (1, True, True)
    entries = [json.loads(line) for line in run(capsys, "gallery", "audit", folder)[1].splitlines()]
    assert [entry["action"] for entry in entries] == ["create", "index", "search", "export", "delete"]
    assert entries[-1]["reason"] == "asked for it"
    code, out, _ = run(capsys, "gallery", "audit", folder, "--verify", "true", "--expect", entries[2]["hash"])
    assert (code, out) == (0, f"the chain is whole; last hash {entries[-1]['hash']}\n")
    code, _, err = run(capsys, "gallery", "audit", folder, "--expect", "5f3c")
    assert (code, "1 problem in the audit" in err) == (1, True)
    assert run(capsys, "gallery", "backup", folder, "--out", folder.parent / "backup")[0] == 0
    assert Gallery(folder.parent / "backup").info()["pictures"] == 6
    for words in (("delete", folder), ("export", folder), ("backup", folder)):
        assert run(capsys, "gallery", *words)[0] == 2


def test_a_demo_that_is_there_is_opened_with_the_model_that_was_given(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # were it served, this would end it
        port = taken.getsockname()[1]
        code, _, err = run(capsys, "serve", "--demo", folder, "--model", "random", "--port", port, "--device", "cpu")
    assert (code, "random is not the network that the gallery was made with" in err) == (2, True), err


def test_a_taken_port_is_refused_with_a_way_out(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run(capsys, "serve", folder, "--port", taken.getsockname()[1], "--device", "cpu")
    assert (code, "; --port 0 takes a free one" in err) == (2, True), err


@pytest.mark.parametrize(("host", "secure"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_cookies_are_for_tls_wherever_others_can_reach_the_server(
    host: str, secure: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    gallery, app = MagicMock(), Mock(side_effect=UsageError("made"))
    gallery.return_value.actor.name = "me"
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr("dapg.gallery.gallery.Gallery", gallery)
    monkeypatch.setattr("dapg.gallery.server.app.create_app", app)
    assert run(capsys, "serve", tmp_path, "--host", host, "--without_tls", "true")[2] == "dapg: made\n"
    assert app.call_args.args[1].secure is secure


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_wrong_certificate_is_named_before_anything_is_opened(
    content: str | None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    if content:
        (tmp_path / "c.pem").write_text(content)
    monkeypatch.setattr("dapg.gallery.gallery.Gallery", pytest.fail)
    code, out, err = run(capsys, "serve", tmp_path, "--certificate", tmp_path / "c.pem", "--key", tmp_path / "k.pem")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"--certificate {tmp_path}/c.pem and --key {tmp_path}/k.pem are not a chain in PEM and its key: " in err
