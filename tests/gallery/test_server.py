"""The server through its API: who comes in, what each role may do, and that hostile input harms nothing."""

import hashlib
import io
import re
import shlex
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from httpx2 import Response

from dapg.core.errors import BusyError, DapgError, DataError
from dapg.features.networks import NetworkSettings
from dapg.gallery.gallery import Gallery
from dapg.gallery.indexing import IndexReport
from dapg.gallery.server import access, uploads
from dapg.gallery.server.app import ServerSettings, _keep_retention, create_app
from dapg.gallery.server.uploads import Decoder, Prepared
from figures import make_figures

HOME = "http://localhost"


class Server:
    """An application over a gallery of four drawn persons, and everybody's tokens."""

    def __init__(self, folder: Path) -> None:
        self.figures = make_figures(folder / "figures", persons=4)
        self.gallery = Gallery.create(folder / "gallery", NetworkSettings("histogram", height=64, width=32), "cpu")
        self.gallery.index(self.figures)
        self.app = create_app(self.gallery, ServerSettings(login_name="root"))
        self.tokens = {role: self.gallery.add_user(f"an {role}", role) for role in ("viewer", "operator", "admin")}

    def client(self, role: str = "") -> TestClient:
        """Somebody with this role, or nobody."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return TestClient(self.app, HOME, headers=headers, raise_server_exceptions=True)

    def night(self, person: int = 2) -> bytes:
        return (self.figures / "camera3" / f"{person:03d}_0.png").read_bytes()

    def search(self, role: str = "viewer", **form: str) -> Response:
        """Search for an image of the second person by the first camera."""
        picture = (self.figures / "camera1" / "002_0.png").read_bytes()
        return self.client(role).post("/api/v1/search", files={"files": ("a.png", picture)}, data=form)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(tmp_path_factory.mktemp("server"))
    with TestClient(served.app):  # starts and ends its worker and its keeper of retention
        yield served


def test_nobody_comes_in_without_a_login(server: Server) -> None:
    nobody = server.client()
    assert nobody.get("/api/v1/health").json() == {"status": "ok"}
    tried = 0
    for path, operations in server.app.openapi()["paths"].items():
        for method in operations:
            if path in ("/api/v1/health", "/api/v1/login"):
                continue
            tried += 1
            place = path.replace("{number}", "1").replace("{name}", "x").replace("{person}", "x")
            assert nobody.request(method, place).status_code in (401, 422), path
            answer = nobody.request(method, place, headers={"Authorization": "Bearer wrong"})
            assert answer.status_code in (401, 422, 429), path
    assert tried == 21
    assert server.client("viewer").get("/api/v1/session").is_success  # others' wrong tries do not keep it out
    server.app.state.access.failures._events.clear()
    assert nobody.get("/", follow_redirects=False).headers["Location"] == "/login"
    assert nobody.get("/api/v1/openapi.json").status_code == 401


def test_the_schema_says_how_to_log_in_and_to_upload(server: Server) -> None:
    schema = server.app.openapi()
    schemes = schema["components"]["securitySchemes"].values()
    names = {(scheme["type"], scheme.get("scheme") or scheme["name"]) for scheme in schemes}
    assert names == {("http", "bearer"), ("apiKey", access.COOKIE)}
    calls = {path: call for path, methods in schema["paths"].items() for call in methods.values()}
    assert {path for path, call in calls.items() if "security" not in call} == {"/api/v1/health", "/api/v1/login"}
    assert [*calls["/api/v1/search"]["requestBody"]["content"]] == ["multipart/form-data"]


def test_the_docs_show_a_program_how_to_search(server: Server) -> None:
    """What the page tells ``curl`` to send is sent, with the token of a viewer and an image of this gallery."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "gallery.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in page.replace("\\\n", " ").splitlines() if line.startswith("curl ")]
    assert len(lines) == 2
    answers = []
    for words in lines:
        options = list(zip(words[1:-1:2], words[2:-1:2], strict=True))
        name, _, value = dict(options)["-H"].partition(": ")
        form = dict(text.split("=", 1) for option, text in options if option == "-F")
        files = {"files": ("night.png", server.night())} if form.pop("files", "").startswith("@") else None
        place = re.sub(r"/\d+/", "/1/", words[-1].removeprefix("http://127.0.0.1:8765"))
        headers = {name: value.replace("$TOKEN", server.tokens["viewer"])}
        client = server.client()
        answers.append(client.request("POST" if form else "GET", place, headers=headers, data=form, files=files))
    search, image = answers
    assert len(search.json()["answers"]) == 3
    assert {"search", "answers", "error_rates"} <= search.json().keys()
    assert image.content.startswith(b"\x89PNG")


def test_no_answer_without_login_has_content(server: Server) -> None:
    """Validation may come before the login (422), but nothing is done and nothing is told."""
    before = len(server.gallery.audit())
    nobody, picture = server.client(), server.night()
    assert nobody.post("/api/v1/search", files={"files": ("a.png", picture)}).status_code == 401
    assert nobody.delete("/api/v1/pictures/1?reason=x").status_code == 401
    assert nobody.get("/api/v1/pictures/1/image").status_code == 401
    assert nobody.post("/api/v1/users", json={"name": "me", "role": "admin"}).status_code == 401
    assert len(server.gallery.audit()) == before


@pytest.mark.parametrize(
    ("role", "allowed"), [("viewer", (200, 403, 403)), ("operator", (200, 200, 403)), ("admin", (200, 200, 200))]
)
def test_roles(server: Server, role: str, allowed: tuple[int, int, int]) -> None:
    client, search = server.client(role), server.search(role).json()
    verdict = {"picture": search["answers"][0]["picture"], "same": True}
    codes = (
        client.get(f"/api/v1/searches/{search['search']}/timeline").status_code,
        client.post(f"/api/v1/searches/{search['search']}/verdicts", json=verdict).status_code,
        client.get("/api/v1/audit").status_code,
    )
    assert codes == allowed


def test_a_search_finds_the_person_and_is_written_down(server: Server) -> None:
    answer = server.search("operator", reason="case 17", top="3").json()
    assert answer["answers"][0]["score"] == pytest.approx(1, abs=0.02)
    assert answer["answers"][0]["person"] == "person 002"
    assert "/" not in answer["answers"][0]["path"]
    entry = server.gallery.audit()[-1]
    assert (entry.actor, entry.action, entry.reason) == ("an operator", "search", "case 17")
    picture = (server.figures / "camera1" / "002_0.png").read_bytes()
    assert entry.secret == {"queries": [hashlib.sha256(picture).hexdigest()]}


def test_damage_moves_similarities_and_is_shown(server: Server) -> None:
    clean, damaged = server.search(), server.search(damage="fog", severity="5")
    assert damaged.json()["answers"][0]["score"] < clean.json()["answers"][0]["score"]
    assert server.gallery.audit()[-1].reason == "(query damaged: fog 5)"
    shown = server.client("viewer").post(
        "/api/v1/damage", files={"files": ("a.png", server.night())}, data={"damage": "fog", "severity": "5"}
    )
    assert (shown.headers["Content-Type"], shown.content[:4]) == ("image/png", b"\x89PNG")
    assert server.search(damage="no such", severity="2").status_code == 422


def test_a_box_is_cut_out(server: Server) -> None:
    assert server.search(box="0,0,20,20").json()["answers"][0]["score"] < server.search().json()["answers"][0]["score"]
    for box in ("1,2,3", "a,b,c,d", "nan,0,1,1", "50,50,40,40", "1e999,0,1,1"):
        assert server.search(box=box).status_code == 422


def test_filters_reach_the_search(server: Server) -> None:
    answer = server.search(among="infrared", top="50").json()
    assert {one["modality"] for one in answer["answers"]} == {"infrared"}
    assert {a["camera"] for a in server.search(camera="camera 2").json()["answers"]} == {"camera 2"}
    assert server.search(after="1e99").status_code == 422
    assert server.search(camera="no such camera").status_code == 409


def test_verdicts_make_a_timeline_and_a_case(server: Server) -> None:
    client, search = server.client("operator"), server.search("operator").json()
    number, pictures = search["search"], [answer["picture"] for answer in search["answers"]]
    for picture, same in ((pictures[0], True), (pictures[1], True), (pictures[1], False)):
        assert client.post(f"/api/v1/searches/{number}/verdicts", json={"picture": picture, "same": same}).is_success
    sightings = client.get(f"/api/v1/searches/{number}/timeline").json()["sightings"]
    assert [sighting["number"] for sighting in sightings] == [pictures[0]]
    case = client.post(f"/api/v1/searches/{number}/export", json={"reason": "case 3"})
    with zipfile.ZipFile(io.BytesIO(case.content)) as archive:
        for line in archive.read("SHA256SUMS").decode().splitlines():
            digest, name = line.split("  ")
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
    assert client.post("/api/v1/searches/999999/export", json={}).status_code == 404


def test_pictures_come_in_and_go_for_good(server: Server) -> None:
    picture, operator, admin = _png(48, 96, 77), server.client("operator"), server.client("admin")
    send = {"files": ("/etc/../night.png", picture)}
    assert operator.post("/api/v1/pictures", files=send, data={"camera": "yard", "time": "1e9"}).json()["added"] == 1
    assert operator.post("/api/v1/pictures", files=send, data={"camera": "yard"}).json()["duplicates"] == 1
    assert list(server.gallery.folder.glob("upload-*")) == []
    listed = operator.get("/api/v1/pictures?limit=500").json()["pictures"]
    new = next(item for item in listed if item["camera"] == "yard")
    assert new["clock"].startswith("2001-09-09")
    assert operator.delete(f"/api/v1/pictures/{new['number']}?reason=x").status_code == 403
    assert admin.delete(f"/api/v1/pictures/{new['number']}").status_code == 422  # without a reason
    assert admin.delete(f"/api/v1/pictures/{new['number']}?reason=asked%20to").json() == {"deleted": 1}
    assert server.gallery.audit()[-1].reason == "asked to"
    assert admin.get(f"/api/v1/pictures/{new['number']}").status_code == 404
    assert operator.post("/api/v1/pictures", files=send, data={"camera": "yard"}).json()["deleted"] == 1
    assert server.gallery.check() == []


def test_names_with_a_slash_can_be_taken_back(server: Server) -> None:
    picture, admin = _png(48, 96, 78), server.client("admin")
    admin.post("/api/v1/pictures", files={"files": ("a.png", picture)}, data={"camera": "yard"})
    number = admin.get("/api/v1/pictures?limit=500").json()["pictures"][-1]["number"]
    assert admin.post(f"/api/v1/pictures/{number}/label", json={"person": "a/b"}).is_success
    assert admin.delete("/api/v1/persons/a%2Fb?reason=x").json() == {"deleted": 1}
    assert admin.post("/api/v1/users", json={"name": "c/d"}).is_success
    assert admin.delete("/api/v1/users/c%2Fd").json() == {"removed": "c/d"}


def test_a_deletion_leaves_an_upload_alone_that_is_taken_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Gallery.index

    def index_after_deletion(self: Gallery, *arguments: Any) -> IndexReport:
        self.delete()
        return index(self, *arguments)

    monkeypatch.setattr(Gallery, "index", index_after_deletion)
    send = {"files": ("night.png", _png(48, 96, 99))}
    answer = server.client("operator").post("/api/v1/pictures", files=send, data={"camera": "hall"})
    assert answer.json()["added"] == 1
    assert list(server.gallery.folder.glob("upload-*")) == []


def test_retention_goes_on_after_a_failure_and_says_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is full, nothing is wrong, somebody else writes; then the server ends."""
    outcomes: list[Exception | int] = [DapgError("disk is full"), 0, BusyError("somebody writes")]
    ends = [True, False, False]

    def enforce(_: Gallery) -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return ends.pop()

    monkeypatch.setattr(Gallery, "enforce_retention", enforce)
    _keep_retention(server.gallery, Stop())
    assert (outcomes, ends) == ([], [])
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["disk is full", "somebody writes"]


def test_a_session_must_prove_that_its_page_asks(server: Server) -> None:
    client, session = server.client(), "/api/v1/session"
    assert client.post("/api/v1/login", json={"token": server.tokens["admin"]}).is_success
    cookie = client.cookies.jar
    assert [(c.has_nonstandard_attr("HttpOnly"), c.get_nonstandard_attr("SameSite")) for c in cookie] == [
        (True, "strict")
    ]
    csrf = client.get(session).json()["csrf"]
    body, place = {"name": "somebody", "role": "viewer"}, "/api/v1/users"
    assert client.post(place, json=body).status_code == 403
    refused = client.post(place, json=body, headers={access.CSRF: "wrong"})
    assert refused.status_code == 403
    assert f"GET {session}, or sends Authorization: Bearer TOKEN" in refused.json()["detail"]
    for origin in ("https://evil.example", "https://localhost:1", "null", ""):
        assert client.post(place, json=body, headers={access.CSRF: csrf, "Origin": origin}).status_code == 403
    for own in (HOME, "https://localhost"):  # the page of this server, and of it behind a proxy that has TLS
        assert client.post(place, json=body, headers={access.CSRF: csrf, "Origin": own}).is_success
        assert client.delete("/api/v1/users/somebody", headers={access.CSRF: csrf}).is_success
    assert client.post("/api/v1/logout", headers={access.CSRF: csrf}).is_success
    assert client.get(session).status_code == 401


def test_who_is_removed_is_out_at_once(server: Server) -> None:
    client, token = server.client(), server.gallery.add_user("guest", "viewer")
    client.post("/api/v1/login", json={"token": token})
    assert client.get("/api/v1/session").json()["name"] == "guest"
    server.gallery.remove_user("guest")
    assert client.get("/api/v1/session").status_code == 401
    new = server.client()
    new.post("/api/v1/login", json={"token": server.gallery.add_user("guest", "viewer")})
    assert new.get("/api/v1/session").json()["name"] == "guest"
    assert client.get("/api/v1/session").status_code == 401, "a new token does not let in who had the old one"


def test_the_login_link_works_once(server: Server) -> None:
    client = server.client()
    place = f"/login?key={server.app.state.login_key}"
    assert client.get(place, follow_redirects=False).headers["Location"] == "/"
    assert client.get("/api/v1/session").json() | {"csrf": ""} == {"name": "root", "role": "admin", "csrf": ""}
    assert server.client().get(place).status_code == 401


def test_wrong_tokens_are_slowed_down(tmp_path: Path) -> None:
    clock = [0.0]
    limiter = access.Limiter(3, 60.0, lambda: clock[0])
    for _ in range(3):
        limiter.check("somebody")
        limiter.count_one("somebody")
    limiter.check("another")
    with pytest.raises(HTTPException) as refused:
        limiter.check("somebody")
    assert refused.value.status_code == 429
    assert refused.value.headers == {"Retry-After": "60"}
    clock[0] = 61.0
    limiter.check("somebody")


def test_wrong_logins_end_in_429(server: Server) -> None:
    server.app.state.access.failures._events.clear()
    codes = [server.client().post("/api/v1/login", json={"token": str(number)}).status_code for number in range(12)]
    assert codes == [401] * 10 + [429] * 2
    server.app.state.access.failures._events.clear()


def test_headers_of_every_answer(server: Server) -> None:
    for place in ("/api/v1/health", "/login", "/page/app.js", "/nothing"):
        headers = server.client().get(place).headers
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_too_large_bodies(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_BODY", 10_000)
    client = server.client("viewer")
    large = {"files": ("a.png", b"x" * 20_000)}
    assert client.post("/api/v1/search", files=large).status_code == 413
    assert client.post("/api/v1/login", content=iter([b"x" * 6_000] * 3)).status_code == 413  # says no length
    assert client.get("/api/v1/session", headers={"Content-Length": "9" * 40}).status_code == 413


def _png(width: int, height: int, grey: int = 0, body: bytes | None = None) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes([grey]) * width) * height) if body is None else body
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _hostile() -> dict[str, bytes]:
    good = _png(40, 80, 5)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("../../x", "x")
    return {
        "nothing": b"",
        "a byte": b"\0",
        "text": b"a" * 1000,
        "html": b"<html><script>alert(1)</script>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/hostile) (w) file",
        "pdf": b"%PDF-1.7\n1 0 obj\n",
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94.",
        "zip": archive.getvalue(),
        "gif": b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
        "ico": b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0\x68\4\0\0\x16\0\0\0",
        "psd": b"8BPS\0\1" + bytes(20),
        "dds": b"DDS |\0\0\0" + bytes(120),
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "mpo": b"\xff\xd8\xff\xe2\0\x10MPF\0II*\0\x08\0\0\0",
        "png without data": good[:33],
        "png cut": good[:-20],
        "png with noise": good[:50] + bytes(range(30)) + good[80:],
        "png of no rows": _png(10, 10, body=zlib.compress(b"")),
        "png of zeros": _png(0, 0),
        "png bomb": _png(60_000, 60_000, body=zlib.compress(bytes(1_000_000))),
        "png bomb below": _png(9_000, 9_000, body=zlib.compress(bytes(1_000_000))),
        "png that lies": _png(2_000_000_000, 1, body=zlib.compress(bytes(100))),
        "jpeg head": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1",
        "jpeg of markers": b"\xff\xd8" + b"\xff\xe1\xff\xff" * 3000,
        "bmp of a huge size": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "webp head": b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0" + bytes(10),
        "tiff that loops": b"II*\0\x08\0\0\0\x01\0\x00\x01\x03\0\x01\0\0\0\x01\0\0\0\x08\0\0\0",
        "ppm without end": b"P6 100000 100000 255\n",
        "xml of entities": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>",
    }


def test_thirty_hostile_uploads(server: Server, tmp_path: Path) -> None:
    before, viewer, operator = server.gallery.info()["pictures"], server.client("viewer"), server.client("operator")
    assert len(_hostile()) == 30
    for name, data in _hostile().items():
        searched = viewer.post("/api/v1/search", files={"files": ("a.png", data)})
        added = operator.post("/api/v1/pictures", files={"files": ("a.png", data)}, data={"camera": "x"})
        assert (searched.status_code, added.status_code) == (422, 422), name
        assert "\n" not in searched.json()["detail"] if isinstance(searched.json()["detail"], str) else True, name
    assert server.gallery.info()["pictures"] == before
    assert server.search().is_success


def test_thirty_forged_requests(server: Server) -> None:
    admin = server.client("admin")
    numbers = ("0", "-1", "1e3", "1.5", "x", "9" * 30, "%00", "../../users", "1;DROP TABLE pictures", "1'--")
    places = [f"/api/v1/pictures/{number}/image" for number in numbers]
    places += [
        f"/page/{name}" for name in ("../app.py", "..%2fapp.py", "%2e%2e/access.py", "/etc/passwd", "app.py", "")
    ]
    places += [f"/api/v1/queries/{name}" for name in ("..", "%2e%2e%2fgallery.sqlite", "a" * 300)]
    places += [f"/api/v1/pictures?{query}" for query in ("after=-1", "limit=0", "limit=1e9", "after=" + "9" * 40)]
    assert all(400 <= admin.get(place).status_code < 500 for place in places)
    bodies = [
        {"picture": 10**30, "same": True},
        {"picture": 1, "same": "perhaps"},
        {"picture": 1, "same": True, "note": "x" * 1000},
        {"picture": 1, "same": True, "note": "\x00"},
        {},
    ]
    number = server.search().json()["search"]
    assert all(admin.post(f"/api/v1/searches/{number}/verdicts", json=body).status_code == 422 for body in bodies)
    assert admin.get("/api/v1/session", headers={"Host": "evil.example"}).status_code == 400
    assert admin.post("/api/v1/users", json={"name": "x", "role": "king"}).status_code == 422
    half = admin.post("/api/v1/login", content=rb'{"token": "\ud800"}', headers={"Content-Type": "application/json"})
    assert half.status_code == 422
    assert len(places) + len(bodies) + 2 == 30
    assert server.gallery.verify_audit()[0] == []


def test_a_picture_that_takes_too_long_is_refused() -> None:
    decoder = Decoder(seconds=0.0)
    with pytest.raises(DataError, match="within 0 seconds"):
        decoder.prepare(_png(8, 8))
    decoder.close()


def _prepare_or_hang(data: bytes, box: None, damage: None) -> Prepared:
    """In a worker: what is no image hangs it until the file of that name is there."""
    while not data.startswith(b"\x89PNG") and not Path(data.decode()).exists():
        time.sleep(0.01)
    return Prepared(data, False)


def test_a_picture_that_hangs_its_decoder_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_prepare", _prepare_or_hang)
    decoder = Decoder(seconds=600.0, workers=2)
    go = tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(decoder.prepare, str(go).encode())
        assert decoder.prepare(_png(8, 8)).data == _png(8, 8)
        assert decoder.prepare(_png(9, 9)).data == _png(9, 9)
        assert not hanging.done()
        go.touch()
        assert hanging.result().data == str(go).encode()
    decoder.close()
    with pytest.raises(BusyError, match="busy with other images"):
        Decoder(seconds=0.01, workers=0).prepare(_png(8, 8))


@pytest.mark.slow
def test_generated_requests_never_crash_the_server(server: Server) -> None:
    """Schemathesis reads the API's own description and tries what it allows, and what it does not."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    server.app.openapi_url = None
    schema = schemathesis.openapi.from_dict(server.app.openapi())
    client, crashes, let_in = server.client("admin"), list[str](), set[str]()
    server.app.state.access.requests.count = 10**9
    for found in schema.get_all_operations():
        call: Any = found.ok()  # type: ignore[union-attr]
        assert call is not None
        if call.path.endswith(("/login", "/logout")) or (call.method.upper() == "DELETE" and "users" in call.path):
            continue

        @given(case=call.as_strategy())
        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        def attempt(case: Any) -> None:
            keywords = case.as_transport_kwargs(base_url=HOME)
            keywords.pop("cookies", None)
            keywords["headers"].pop("Authorization", None)  # a made-up token: it would hide the client's own
            answer = client.request(**{name: keywords[name] for name in keywords if name != "timeout"})
            if answer.status_code >= 500:
                crashes.append(f"{case.method} {case.path}: {answer.status_code}")
            if answer.status_code not in (401, 403, 429):
                let_in.add(case.path)

        attempt()
        assert call.path in let_in
    assert crashes == []
    assert server.gallery.check() == []
