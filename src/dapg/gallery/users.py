"""Who may do what: names, roles, and the hash of each one's token, which is shown once."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Literal

from dapg.core.errors import UsageError
from dapg.gallery.audit import Actor, append
from dapg.gallery.database import Database

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
"""May look; may also index, judge and export; may also delete and let others in."""


@dataclass(frozen=True)
class User:
    """Somebody with a token."""

    name: str
    role: Role
    added: float
    """Seconds since 1970."""


def add(database: Database, name: str, role: Role, actor: Actor) -> str:
    """Let somebody in; the token, of which only the hash is stored (it has 256 random bits, so one hash is enough).

    Raises:
        UsageError: the name is taken.
    """
    token = secrets.token_urlsafe(32)
    with database.transaction():
        if database.value("SELECT 1 FROM users WHERE name = ?", name):
            raise UsageError(f"there is a user {name!r} already; remove it first")
        database.execute(
            "INSERT INTO users (name, role, token, added) VALUES (?, ?, ?, ?)", name, role, _hash(token), time.time()
        )
        append(database, actor, "add user", {"user": name, "role": role})
    return token


def remove(database: Database, name: str, actor: Actor) -> None:
    """Let somebody in no longer.

    Raises:
        UsageError: there is no such user.
    """
    with database.transaction():
        if not database.execute("DELETE FROM users WHERE name = ?", name):
            raise UsageError(f"there is no user {name!r}")
        append(database, actor, "remove user", {"user": name})


def listed(database: Database) -> list[User]:
    """All of them by name."""
    return [User(*row) for row in database.query("SELECT name, role, added FROM users ORDER BY name")]


def of_token(database: Database, token: str) -> User | None:
    """Whose token it is; None: nobody's."""
    rows = database.query("SELECT name, role, added FROM users WHERE token = ?", _hash(token))
    return User(*rows[0]) if rows else None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
