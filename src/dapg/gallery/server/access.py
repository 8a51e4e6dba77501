"""Who may come in: tokens, sessions, a login link that works once, limits on tries, and the headers of every answer.

Nobody is let in without a token or a session, but to ask whether the server lives, and to log in.
"""

import contextlib
import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dapg.gallery import users as accounts
from dapg.gallery.database import Database
from dapg.gallery.users import ROLES, Role, User

COOKIE = "dapg_session"
CSRF = "X-CSRF-Token"
_REMEDY = "reload the page; a program gets it from GET /api/v1/session, or sends Authorization: Bearer TOKEN instead"
SESSION_SECONDS = 8 * 3600.0
LINK_SECONDS = 600.0
MAX_BODY = 32 * 2**20
"""Bytes of a request, images included."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Visitor:
    """Somebody who was let in."""

    name: str
    role: Role
    csrf: str = ""
    """What a session must send back to change anything; empty for a token, which no browser sends by itself."""


@dataclass(frozen=True)
class _Session:
    user: User
    linked: bool
    """By the login link; else the user is looked up at every request: out is who was removed, or has a new token."""
    csrf: str
    ends: float


class Limiter:
    """At most ``count`` events in ``seconds`` for each key."""

    def __init__(self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.count, self.seconds, self.clock = count, seconds, clock
        self._events: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def check(self, key: str) -> None:
        """Refuse where the limit is reached.

        Raises:
            HTTPException: 429, with the seconds to wait.
        """
        with self._lock:
            events = self._recent(key)
            if len(events) >= self.count:
                wait = max(1, round(events[0] + self.seconds - self.clock()))
                raise HTTPException(429, "too many requests; wait a little", {"Retry-After": str(wait)})

    def count_one(self, key: str) -> None:
        """Remember one event."""
        with self._lock:
            self._recent(key).append(self.clock())

    def _recent(self, key: str) -> deque[float]:
        if len(self._events) > 10_000:  # forged keys must not fill the memory
            self._events = {
                name: events for name, events in self._events.items() if events and events[-1] > self._start
            }
        events = self._events.setdefault(key, deque(maxlen=self.count))
        while events and events[0] <= self._start:
            events.popleft()
        return events

    @property
    def _start(self) -> float:
        return self.clock() - self.seconds


class Access:
    """Sessions and limits of one running server."""

    def __init__(self, database: Database, secure: bool) -> None:
        self.database, self.secure = database, secure
        self.failures, self.requests = Limiter(10, 60.0), Limiter(600, 60.0)
        self._sessions: dict[str, _Session] = {}
        self._link: tuple[str, str, float] | None = None
        self._lock = threading.Lock()

    def login_key(self, name: str) -> str:
        """A key that logs its holder in as an administrator of this name, once, within ten minutes."""
        key = secrets.token_urlsafe(32)
        self._link = (key, name, time.monotonic() + LINK_SECONDS)
        return key

    def enter(self, request: Request, token: str = "", key: str = "") -> str:
        """A new session for the holder of a token or of the login link; the value of its cookie.

        Raises:
            HTTPException: 401, a wrong one; 429, too many wrong ones.
        """
        with self._lock:
            if key and self._link and hmac.compare_digest(key.encode(), self._link[0].encode()):
                (_, name, ends), self._link = self._link, None
                if time.monotonic() < ends:
                    return self._begin(User(name, "admin", time.time()), linked=True)
        user = accounts.of_token(self.database, token) if token else None
        if user is None:
            self._slow_down(request)
            raise HTTPException(401, "this token or link lets nobody in; a link works once, for ten minutes")
        with self._lock:
            return self._begin(user, linked=False)

    def _begin(self, user: User, linked: bool) -> str:
        now, value = time.monotonic(), secrets.token_urlsafe(32)
        self._sessions = {known: session for known, session in self._sessions.items() if session.ends > now}
        self._sessions[_hash(value)] = _Session(user, linked, secrets.token_urlsafe(32), now + SESSION_SECONDS)
        return value

    def leave(self, request: Request) -> None:
        """End the session of a request."""
        with self._lock:
            self._sessions.pop(_hash(request.cookies.get(COOKIE, "")), None)

    def visitor(self, request: Request, role: Role) -> Visitor:
        """Who sends a request.

        Raises:
            HTTPException: 401, nobody we know; 403, the role is too low, or the request may be forged; 429.
        """
        visitor = self._by_token(request) or self._by_session(request)
        if visitor is None:
            raise HTTPException(
                401, "log in, or send a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )
        if ROLES.index(visitor.role) < ROLES.index(role):
            raise HTTPException(403, f"this takes the role {role}; {visitor.name} has the role {visitor.role}")
        self.requests.check(visitor.name)
        self.requests.count_one(visitor.name)
        return visitor

    def _slow_down(self, request: Request) -> None:
        """After a wrong token; right ones are never kept out by somebody else's tries."""
        address = request.client.host if request.client else ""
        self.failures.check(address)
        self.failures.count_one(address)

    def _by_token(self, request: Request) -> Visitor | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        user = accounts.of_token(self.database, token.strip())
        if user is None:
            self._slow_down(request)
            raise HTTPException(401, "no user has this token", {"WWW-Authenticate": "Bearer"})
        return Visitor(user.name, user.role)

    def _by_session(self, request: Request) -> Visitor | None:
        session = self._sessions.get(_hash(request.cookies.get(COOKIE, "")))
        if session is None or session.ends <= time.monotonic():
            return None
        if not session.linked and session.user not in accounts.listed(self.database):
            return None
        if request.method not in ("GET", "HEAD"):
            sent = request.headers.get(CSRF, "")
            if not hmac.compare_digest(sent.encode(), session.csrf.encode()) or not _same_origin(request):
                raise HTTPException(403, f"the header {CSRF} is missing or wrong; {_REMEDY}")
        return Visitor(session.user.name, session.user.role, session.csrf)


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()


def _same_origin(request: Request) -> bool:
    """By the host alone: behind a proxy that has TLS, the page's scheme is not the one that arrives here."""
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("Host", "")


class _TooLargeError(Exception):
    pass


class Guard:
    """Puts the headers on every answer, and ends requests with too large a body, whatever they say about its length."""

    def __init__(self, app: ASGIApp, secure: bool) -> None:
        self.app = app
        self.headers = {**_HEADERS, **({"Strict-Transport-Security": "max-age=31536000"} if secure else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, size, limit = False, 0, MAX_BODY

        async def count() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise _TooLargeError
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            if size > limit and not started:
                return  # what the application makes of the error; the refusal follows
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        length = Headers(scope=scope).get("Content-Length", "0")
        if not length.isdecimal() or int(length[:20]) > limit:
            size = limit + 1
        else:
            with contextlib.suppress(_TooLargeError):
                await self.app(scope, count, answer)
        if size > limit and not started:
            size, body = 0, b'{"detail":"a request may have at most %d MB"}' % (MAX_BODY // 2**20)
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await answer({"type": "http.response.start", "status": 413, "headers": headers})
            await answer({"type": "http.response.body", "body": body})
