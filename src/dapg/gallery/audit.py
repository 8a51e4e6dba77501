"""Who did what, when and why: an append-only list of entries, each chained to the one before by its hash.

What may have to be forgotten later (hashes of query images) is not part of an entry. It lies apart, in ``secrets``,
and the entry holds its salted hash: after a deletion the secret is gone and the chain is still whole.

The fields follow Article 12(3) of the EU's AI Act: when a use began and ended, the reference database (gallery,
version, model), the input that led to a match (by hash), and who verified the result.
"""

import hashlib
import json
import secrets
import time
from dataclasses import dataclass

from dapg.core.types import JsonObject
from dapg.gallery.database import Database

_START = "0" * 64


@dataclass(frozen=True)
class Actor:
    """On whose behalf something is done, and why."""

    name: str
    reason: str = ""
    """In words that hold no personal data, such as the number of a case: entries are kept."""


@dataclass(frozen=True)
class Entry:
    """One line of the audit."""

    number: int
    time: float
    """Seconds since 1970."""
    actor: str
    action: str
    reason: str
    body: JsonObject
    secret: JsonObject | None
    """What may be forgotten; None where there was nothing, or it has been."""
    hash: str


def append(database: Database, actor: Actor, action: str, body: JsonObject, secret: JsonObject | None = None) -> int:
    """Add an entry, within the caller's transaction if there is one; its number.

    A secret of a search names it by ``body["search"]``, so that it can be found again.
    """
    with database.transaction():
        database.count("entries", 1)  # the lock of writers: two entries never chain to the same one
        previous = database.value("SELECT hash FROM audit ORDER BY id DESC LIMIT 1") or _START
        salt, content = secrets.token_hex(16), "" if secret is None else _canonical(secret)
        sealed = "" if secret is None else _seal(salt, content)
        fields = (round(time.time(), 3), actor.name, action, actor.reason, _canonical(body), sealed, previous)
        number = database.query(
            "INSERT INTO audit (time, actor, action, reason, body, sealed, previous, hash) VALUES (?,?,?,?,?,?,?,?) "
            "RETURNING id",
            *fields, _hash(*fields),
        )[0][0]  # fmt: skip
        if secret is not None:
            database.execute("INSERT INTO secrets VALUES (?, ?, ?, ?)", number, body.get("search"), salt, content)
        return int(number)


def forget(database: Database, searches: list[int]) -> None:
    """Remove the secrets of searches."""
    database.many("DELETE FROM secrets WHERE search = ?", [(number,) for number in searches])


def entries(database: Database, after: int = 0, limit: int = 1000) -> list[Entry]:
    """Entries with larger numbers than ``after``, oldest first."""
    rows = database.query(
        "SELECT a.id, a.time, a.actor, a.action, a.reason, a.body, s.content, a.hash FROM audit a "
        "LEFT JOIN secrets s ON s.audit = a.id WHERE a.id > ? ORDER BY a.id LIMIT ?",
        after, limit,
    )  # fmt: skip
    return [
        Entry(number, moment, actor, action, reason, json.loads(body), json.loads(secret) if secret else None, digest)
        for number, moment, actor, action, reason, body, secret, digest in rows
    ]


def verify(database: Database, expected: str = "") -> tuple[list[str], str]:
    """What is wrong with the chain, and the hash of its last entry.

    Entries cut off at the end leave a shorter chain that is whole: their number is kept apart, and whoever keeps the
    last hash elsewhere notices also who changed that.
    """
    problems, previous, hashes = list[str](), _START, {""}
    rows = database.query(
        "SELECT a.time, a.actor, a.action, a.reason, a.body, a.sealed, a.previous, a.hash, a.id, s.salt, s.content "
        "FROM audit a LEFT JOIN secrets s ON s.audit = a.id ORDER BY a.id"
    )
    for *fields, digest, number, salt, content in rows:
        if fields[6] != previous:
            problems.append(f"audit entry {number} does not follow the entry before it")
        if _hash(*fields) != digest:
            problems.append(f"audit entry {number} was changed")
        if content is not None and _seal(salt, content) != fields[5]:
            problems.append(f"the secret of audit entry {number} was changed")
        previous = digest
        hashes.add(digest)
    written = database.count("entries")
    if len(rows) != written:
        problems.append(f"the audit has {len(rows)} entries, but {written} were written")
    if expected not in hashes:
        problems.append(f"no entry has the hash {expected}, which was the last one once")
    return problems, previous


def _canonical(value: JsonObject) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _hash(*fields: object) -> str:
    return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()


def _seal(salt: str, content: str) -> str:
    return hashlib.sha256(f"{salt}{content}".encode()).hexdigest()
