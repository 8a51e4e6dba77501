"""The application: routes of the API and the page, over one gallery.

A viewer looks: searches, images, timelines. An operator also takes images in, judges answers, names persons and
exports cases. An admin also deletes, reads the audit and lets others in.
"""

import contextlib
import hashlib
import json
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi import Path as Place
from fastapi import Query as Parameter
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, Field, StringConstraints
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dapg.core.errors import BusyError, DapgError, DataError, UsageError
from dapg.core.files import csv_text, folder_lock
from dapg.core.images import thumbnail
from dapg.core.types import JsonObject, Modality
from dapg.corruptions import library
from dapg.data.listing import IMAGE_SUFFIXES
from dapg.data.sets.folder import LABELS
from dapg.data.sightings import clock
from dapg.gallery import verdicts
from dapg.gallery.audit import Entry
from dapg.gallery.database import OWNER, UPLOAD, Filters
from dapg.gallery.gallery import Gallery
from dapg.gallery.indexing import IndexSettings
from dapg.gallery.search import Picture, Query
from dapg.gallery.server.access import COOKIE, CSRF, MAX_BODY, SESSION_SECONDS, Access, Guard, Visitor
from dapg.gallery.server.uploads import Box, Damage, Decoder, Prepared
from dapg.gallery.users import Role

PAGE = Path(__file__).with_name("page")
API = "/api/v1"
MAX_FILES = 8
_RETENTION_SECONDS = 3600.0

_BREAKS = r"^[^\x00-\x1f\x7f]*$"
Text = Annotated[str, StringConstraints(max_length=200, pattern=_BREAKS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_BREAKS)]
Number = Annotated[int, Place(ge=1, le=2**53)]
Moment = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e11)]
Light = Literal["visible", "infrared"]
Infrared = Literal["unknown", "near", "thermal"]
_LOGIN = f"POST {API}/login sets it; all but GET then takes the header {CSRF}, which GET {API}/session tells"
_Token = Annotated[object, Depends(HTTPBearer(description="dapg gallery users GALLERY --add NAME", auto_error=False))]
_Session = Annotated[object, Depends(APIKeyCookie(name=COOKIE, description=_LOGIN, auto_error=False))]


@dataclass(frozen=True)
class ServerSettings:
    """How a server shows itself."""

    secure: bool = False
    """Whether it speaks TLS: cookies then travel over nothing else."""
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Names that it answers to."""
    login_name: str = ""
    """Whom the login link lets in as an administrator; empty: there is no link."""
    queries: Path | None = None
    """Folder of images that the page offers as queries."""


class VerdictBody(BaseModel):
    """A person's word on an answer."""

    picture: int = Field(ge=1, le=2**53)
    same: bool
    note: Text = ""


class ReasonBody(BaseModel):
    """Why something is done, for the audit."""

    reason: Text = ""


class LabelBody(BaseModel):
    """A person's name; null takes it away."""

    person: Name | None = None


class UserBody(BaseModel):
    """Somebody to let in."""

    name: Name
    role: Role = "viewer"


class LoginBody(BaseModel):
    """A token."""

    token: Annotated[str, StringConstraints(max_length=200)]


class SearchForm(BaseModel):
    """Images of one person, and which images of the gallery are searched."""

    files: list[UploadFile]
    box: list[str] | None = Field(None, description="left,top,right,bottom in pixels; one for each file")
    modality: Light | None = None
    infrared: Infrared = "unknown"
    among: Light | None = None
    camera: list[Text] | None = None
    after: Moment | None = None
    before: Moment | None = None
    top: int = Field(20, ge=1, le=200)
    damage: Text = Field("", description="corruption of the query, to see how ranks move")
    severity: int = Field(0, ge=0, le=5)
    reason: Text = ""


def create_app(gallery: Gallery, settings: ServerSettings | None = None) -> FastAPI:
    """The application of a gallery; its ``state.login_key`` is the key of the login link, if there is one."""
    settings = settings or ServerSettings()
    decoder, access = Decoder(), Access(gallery.database, settings.secure)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        threading.Thread(target=_keep_retention, args=(gallery, stop), daemon=True).start()
        yield
        stop.set()
        decoder.close()

    app = FastAPI(title="dapg gallery", version="1", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*settings.hosts])
    app.add_middleware(Guard, secure=settings.secure)
    app.state.access = access
    app.state.login_key = access.login_key(settings.login_name) if settings.login_name else ""

    @app.exception_handler(DapgError)
    def refuse(_: Request, error: DapgError) -> JSONResponse:
        code = 503 if isinstance(error, BusyError) else 409 if isinstance(error, UsageError) else 422
        return JSONResponse({"detail": str(error)}, code)

    @app.exception_handler(RequestValidationError)
    def correct(_: Request, error: RequestValidationError) -> Response:
        """In ASCII: what was sent is named, and half a surrogate pair has no UTF-8."""
        return Response(json.dumps({"detail": jsonable_encoder(error.errors())}), 422, media_type="application/json")

    def let_in(role: Role) -> Callable[..., Visitor]:
        def check(request: Request, _token: _Token, _session: _Session) -> Visitor:  # FastAPI reads the types
            return access.visitor(request, role)

        return check

    Viewer = Annotated[Visitor, Depends(let_in("viewer"))]
    Operator = Annotated[Visitor, Depends(let_in("operator"))]
    Admin = Annotated[Visitor, Depends(let_in("admin"))]

    def known(number: int) -> Picture:
        pictures = gallery.known([number])
        if not pictures:
            raise HTTPException(404, f"the gallery has no image {number}")
        return pictures[0]

    def content(number: int) -> bytes:
        known(number)
        try:
            return gallery.picture_file(number)
        except DataError:  # its text holds a path of the server
            raise HTTPException(410, f"the file of image {number} is gone") from None

    def searched(number: int) -> None:
        if not gallery.database.value("SELECT 1 FROM searches WHERE id = ?", number):
            raise HTTPException(404, f"the gallery has no search {number}")

    # Coming in

    @app.get(f"{API}/health", tags=["server"])
    def health() -> JsonObject:
        """Whether the server lives; the only answer that takes no login."""
        return {"status": "ok"}

    def session(response: Response, value: str) -> None:
        seconds = int(SESSION_SECONDS)
        response.set_cookie(COOKIE, value, seconds, httponly=True, samesite="strict", secure=settings.secure)

    @app.post(f"{API}/login", tags=["server"])
    def login(request: Request, response: Response, body: LoginBody) -> JsonObject:
        """Trade a token for the cookie of a session."""
        session(response, access.enter(request, token=body.token))
        return {"status": "ok"}

    @app.get("/login", include_in_schema=False)
    def login_page(request: Request, key: Annotated[str, Parameter(max_length=200)] = "") -> Response:
        if not key:
            return FileResponse(PAGE / "login.html")
        try:
            value = access.enter(request, key=key)
        except HTTPException as error:
            return FileResponse(PAGE / "login.html", error.status_code)
        response = RedirectResponse("/", 303)
        session(response, value)
        return response

    @app.post(f"{API}/logout", tags=["server"])
    def logout(request: Request, response: Response, _: Viewer) -> JsonObject:
        """End the session."""
        access.leave(request)
        response.delete_cookie(COOKIE)
        return {"status": "ok"}

    @app.get(f"{API}/session", tags=["server"])
    def who(visitor: Viewer) -> JsonObject:
        """Who is asking, and, of a session, what it must send back in the header X-CSRF-Token to change anything."""
        return asdict(visitor)

    @app.get(f"{API}/openapi.json", include_in_schema=False)
    def schema(_: Viewer) -> JsonObject:
        return app.openapi()

    # Looking

    @app.get(f"{API}/info", tags=["gallery"])
    def info(_: Viewer) -> JsonObject:
        """What is in the gallery: counts, cameras, the network and its terms, thresholds."""
        facts = gallery.info()
        offered = [path.name for path in _offered(settings)]
        return {**facts, "folder": gallery.folder.name, "damages": library.names(), "queries": offered}

    @app.get(f"{API}/queries/{{name}}", tags=["gallery"])
    def offered_query(_: Viewer, name: Annotated[str, Place(max_length=200)]) -> Response:
        """An image that the page offers as a query (in the demonstration)."""
        for path in _offered(settings):
            if path.name == name:
                return Response(path.read_bytes(), media_type="image/png")
        raise HTTPException(404, "there is no such query")

    @app.post(f"{API}/search", tags=["search"])
    def search(visitor: Viewer, form: Annotated[SearchForm, Form(media_type="multipart/form-data")]) -> JsonObject:
        """The tracks most similar to the person in the images, and what each similarity means."""
        kind = _damage(form.damage, form.severity)
        query = _query(gallery, decoder, (form.files, form.box or []), form.modality, kind)
        note = f"(query damaged: {kind.name} {kind.severity})" if kind else ""
        why = " ".join(filter(None, (form.reason, note)))
        among = Modality[form.among.upper()] if form.among else None
        filters = Filters(tuple(form.camera or ()), form.after, form.before, among)
        result = gallery.acting(visitor.name, why).search(query, None, filters, form.top, form.infrared)
        tables = verdicts.thresholds_of(gallery.database, gallery.model_number(), query.modality)
        plain = result.to_json()
        plain["answers"] = [{**answer, "path": _short(answer["path"])} for answer in plain["answers"]]
        return {**plain, "error_rates": {light.name.lower(): table.said for light, table in tables.items()}}

    @app.post(f"{API}/damage", tags=["search"])
    def damaged(
        _: Viewer,
        files: Annotated[list[UploadFile], File()],
        box: Annotated[list[str] | None, Form()] = None,
        damage: Annotated[Text, Form()] = "",
        severity: Annotated[int, Form(ge=0, le=5)] = 0,
    ) -> Response:
        """The first image, cut to its box and damaged, as the network would see it (PNG)."""
        kind = _damage(damage, severity)
        return Response(_prepared(decoder, (files[:1], (box or [])[:1]), kind)[0][1].data, media_type="image/png")

    @app.get(f"{API}/pictures", tags=["gallery"])
    def pictures(
        _: Viewer,
        after: Annotated[int, Parameter(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        person: Annotated[Text | None, Parameter()] = None,
    ) -> JsonObject:
        """Images by number, page by page: ``after`` is the last number of the page before."""
        listed = gallery.pictures(after, limit, person)
        return {
            "pictures": [_picture(picture) for picture in listed],
            "next": listed[-1].number if len(listed) == limit else None,
        }

    @app.get(f"{API}/pictures/{{number}}", tags=["gallery"])
    def picture(_: Viewer, number: Number) -> JsonObject:
        """What is known about an image."""
        return _picture(known(number))

    @app.get(f"{API}/pictures/{{number}}/image", tags=["gallery"])
    def image(_: Viewer, number: Number) -> Response:
        """The image itself, as PNG."""
        return Response(decoder.prepare(content(number)).data, media_type="image/png")

    @app.get(f"{API}/pictures/{{number}}/thumbnail", tags=["gallery"])
    def small(_: Viewer, number: Number) -> Response:
        """The image at 256 x 128 pixels, as JPEG."""
        return Response(thumbnail(content(number)), media_type="image/jpeg")

    @app.get(f"{API}/searches/{{number}}/timeline", tags=["search"])
    def timeline(_: Viewer, number: Number) -> JsonObject:
        """The sightings that people confirmed, oldest first."""
        searched(number)
        return {"sightings": [_picture(picture) for picture in gallery.timeline(number)]}

    # Working

    @app.post(f"{API}/searches/{{number}}/verdicts", tags=["search"])
    def verdict(visitor: Operator, number: Number, body: VerdictBody) -> JsonObject:
        """A person's word on an answer: the same person, or not."""
        searched(number)
        return {"verdict": gallery.acting(visitor.name).verdict(number, body.picture, body.same, body.note)}

    @app.post(f"{API}/searches/{{number}}/export", tags=["search"])
    def export(visitor: Operator, number: Number, body: ReasonBody) -> Response:
        """The search as a case: a zip file of images, answers, verdicts and audit entries, with their hashes."""
        searched(number)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.zip"
            gallery.acting(visitor.name, body.reason).export(number, path)
            data = path.read_bytes()
        headers = {"Content-Disposition": f'attachment; filename="case-{number}.zip"'}
        return Response(data, media_type="application/zip", headers=headers)

    @app.post(f"{API}/pictures", tags=["gallery"])
    def index(
        visitor: Operator,
        files: Annotated[list[UploadFile], File()],
        camera: Annotated[Name, Form()],
        modality: Annotated[Light, Form()] = "visible",
        infrared: Annotated[Infrared, Form()] = "unknown",
        time: Annotated[Moment | None, Form(description="seconds since 1970")] = None,
        reason: Annotated[Text, Form()] = "",
    ) -> JsonObject:
        """Take images of one camera and moment in."""
        prepared = _prepared(decoder, (files, []), None)  # none that a decoder dies of reaches this process
        folder = tempfile.TemporaryDirectory(prefix=UPLOAD, dir=gallery.folder)
        with folder as name, folder_lock(Path(name), OWNER):
            rows: list[Sequence[object]] = [("path", "modality", "time")]
            for file, (data, _) in zip(files, prepared, strict=True):
                suffix = Path(file.filename or "").suffix.lower()
                path = hashlib.sha256(data).hexdigest()[:20] + (suffix if suffix in IMAGE_SUFFIXES else ".png")
                Path(name, path).write_bytes(data)
                rows.append((path, modality, "" if time is None else time))
            Path(name, LABELS).write_text(csv_text(dict.fromkeys(rows)), encoding="utf-8")
            acting = gallery.acting(visitor.name, reason)
            return acting.index(name, IndexSettings(camera=camera, infrared=infrared, threads=1)).counts()

    @app.post(f"{API}/pictures/{{number}}/label", tags=["gallery"])
    def label(visitor: Operator, number: Number, body: LabelBody) -> JsonObject:
        """Name the person in an image."""
        known(number)
        gallery.acting(visitor.name).label([number], body.person)
        return _picture(known(number))

    # Ruling

    Reason = Annotated[Text, Parameter(min_length=1, description="for the audit")]

    @app.delete(f"{API}/pictures/{{number}}", tags=["gallery"])
    def delete(visitor: Admin, number: Number, reason: Reason) -> JsonObject:
        """Remove an image and all that came of it, for good."""
        known(number)
        return {"deleted": gallery.acting(visitor.name, reason).delete([number])}

    @app.delete(f"{API}/persons/{{person:path}}", tags=["gallery"])
    def forget(visitor: Admin, person: Annotated[Name, Place()], reason: Reason) -> JsonObject:
        """Remove all images of a named person, for good."""
        if not gallery.pictures(0, 1, person):
            raise HTTPException(404, "nobody is called so")
        return {"deleted": gallery.acting(visitor.name, reason).delete(person=person)}

    @app.get(f"{API}/audit", tags=["server"])
    def audit(
        _: Admin,
        after: Annotated[int, Parameter(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    ) -> JsonObject:
        """Who did what, when and why, page by page; and whether the chain of all entries is whole."""
        entries: list[Entry] = gallery.audit(after, limit)
        problems, last = gallery.verify_audit()
        return {
            "entries": [asdict(entry) for entry in entries],
            "next": entries[-1].number if len(entries) == limit else None,
            "problems": problems,
            "last": last,
        }

    @app.get(f"{API}/users", tags=["server"])
    def users(_: Admin) -> JsonObject:
        """Who may come in."""
        return {"users": [asdict(user) for user in gallery.users()]}

    @app.post(f"{API}/users", tags=["server"])
    def add_user(visitor: Admin, body: UserBody) -> JsonObject:
        """Let somebody in; the token is shown this once."""
        return {"name": body.name, "token": gallery.acting(visitor.name).add_user(body.name, body.role)}

    @app.delete(f"{API}/users/{{name:path}}", tags=["server"])
    def remove_user(visitor: Admin, name: Annotated[Name, Place()]) -> JsonObject:
        """Let somebody in no longer; sessions end at once."""
        if name not in {user.name for user in gallery.users()}:
            raise HTTPException(404, f"there is no user {name!r}")
        gallery.acting(visitor.name).remove_user(name)
        return {"removed": name}

    # The page

    @app.get("/", include_in_schema=False)
    def page(request: Request) -> Response:
        try:
            access.visitor(request, "viewer")
        except HTTPException:
            return RedirectResponse("/login", 303)
        return FileResponse(PAGE / "index.html")

    @app.get("/page/{name}", include_in_schema=False)
    def part(name: Literal["app.js", "login.js", "style.css", "icon.svg"]) -> Response:
        return FileResponse(PAGE / name)

    return app


def _keep_retention(gallery: Gallery, stop: threading.Event) -> None:
    while True:
        try:
            gallery.acting("retention").enforce_retention()
        except (DapgError, OSError) as error:
            print(f"dapg: retention, which is tried again in an hour: {error}", file=sys.stderr, flush=True)
        if stop.wait(_RETENTION_SECONDS):
            return


def _offered(settings: ServerSettings) -> list[Path]:
    return sorted(settings.queries.glob("*.png")) if settings.queries else []


def _prepared(
    decoder: Decoder, uploads: tuple[Sequence[UploadFile], Sequence[str]], damage: Damage | None
) -> list[tuple[bytes, Prepared]]:
    """(file as it came, what can be trusted of it) for each."""
    files, boxes = uploads
    if not 1 <= len(files) <= MAX_FILES:
        raise HTTPException(422, f"give 1 to {MAX_FILES} images")
    if boxes and len(boxes) != len(files):
        raise HTTPException(422, "give one box for each file, or none; an empty one is the whole image")
    contents = [file.file.read(MAX_BODY) for file in files]
    cuts = [_box(text) for text in boxes] or [None] * len(files)
    return [(data, decoder.prepare(data, box, damage)) for data, box in zip(contents, cuts, strict=True)]


def _damage(name: str, severity: int) -> Damage | None:
    if name and name not in library.names():
        raise HTTPException(422, f"{name!r} is no corruption; /info lists them")
    return Damage(name, severity) if name and severity else None


def _box(text: str) -> Box | None:
    if not text.strip():
        return None
    try:
        left, top, right, bottom = (max(-(2**31), min(2**31, round(float(side)))) for side in text.split(","))
    except (ValueError, OverflowError):
        raise HTTPException(422, "a box is left,top,right,bottom in pixels") from None
    return left, top, right, bottom


def _query(
    gallery: Gallery,
    decoder: Decoder,
    uploads: tuple[Sequence[UploadFile], Sequence[str]],
    modality: Light | None,
    damage: Damage | None,
) -> Query:
    prepared = _prepared(decoder, uploads, damage)
    grey = sum(safe.infrared for _, safe in prepared)
    light = (
        Modality[modality.upper()] if modality else Modality.INFRARED if 2 * grey > len(prepared) else Modality.VISIBLE
    )
    query = gallery.encode([safe.data for _, safe in prepared], light)
    return replace(query, hashes=tuple(hashlib.sha256(data).hexdigest() for data, _ in prepared))


def _short(path: str) -> str:
    """The name alone: where files lie on the server is nobody's business."""
    return path.replace("\\", "/").rpartition("/")[2]


def _picture(picture: Picture) -> JsonObject:
    return {
        **asdict(picture),
        "path": _short(picture.path),
        "modality": picture.modality.name.lower(),
        "clock": clock(picture.time),
    }
