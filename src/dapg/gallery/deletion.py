"""Deletion that leaves nothing but a tombstone, and the search for what must be gone in the bytes of the files.

A tombstone holds keyed digests alone: of the image's content, so that it is not taken in again, and of its feature.
To find a feature among gigabytes, eight of its bytes are marked by a keyed permutation of 64-bit numbers, which NumPy
applies to every position of a file; where a mark occurs, the digest of the whole feature decides.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dapg.core.errors import UsageError
from dapg.gallery.audit import Actor, append, forget, verify
from dapg.gallery.database import Database
from dapg.gallery.indexing import Keys

CLASSES = ("unknown", "matched", "confirmed")
"""Nothing connects the image with a query; a search called it the same person; a person's last word did, or a name."""
_CLASSED = (
    "SELECT p.id AS id, p.added AS added, CASE WHEN p.person IS NOT NULL OR EXISTS (SELECT 1 FROM verdicts v "
    "WHERE v.picture = p.id AND v.same = 1 AND v.id = (SELECT MAX(w.id) FROM verdicts w WHERE w.search = v.search "
    "AND w.picture = v.picture)) THEN 'confirmed' WHEN EXISTS (SELECT 1 FROM results r WHERE r.picture = p.id "
    "AND r.verdict = 'same') THEN 'matched' ELSE 'unknown' END AS class FROM pictures p"
)
_CHUNK, _LONGEST = 2**25, 2**17


def delete(database: Database, pictures: Sequence[int], actor: Actor, action: str = "delete") -> int:
    """Remove images with crops, features, results and the query hashes of searches that found or used them; how many.

    When this returns, the database has overwritten what it held, the log is cut, and the matrix is new.

    Raises:
        BusyError: another process holds an old state open; everything is deleted, and the log is cut at the next try.
    """
    keys, removed = Keys(database), list[int]()
    with database.transaction():
        version = database.count("version", 1)
        for number in pictures:
            rows = database.query("SELECT sha256, box FROM pictures WHERE id = ?", number)
            if not rows:
                continue
            _bury(database, keys, number, *rows[0])
            searches = database.query("SELECT DISTINCT search FROM results WHERE picture = ?", number)
            forget(database, [int(row[0]) for row in searches])
            database.execute("DELETE FROM pictures WHERE id = ?", number)
            removed.append(number)
        _forget_queries(database)
        database.execute("DELETE FROM tracks WHERE id NOT IN (SELECT track FROM pictures WHERE track IS NOT NULL)")
        database.count("epoch", 1)
        append(database, actor, action, {"pictures": removed, "version": version})
    database.forget()
    return len(removed)


def _bury(database: Database, keys: Keys, number: int, sha256: str, box: str) -> None:
    digest, file = keys.picture(sha256, box), keys.of(sha256.encode())
    for (stored,) in database.query("SELECT vector FROM features WHERE picture = ?", number):
        data = database.feature(stored).astype("<f2").tobytes()
        place = _place(data)
        mark = _mark(np.frombuffer(data[place : place + 8].ljust(8, b"\0"), "<u8"), keys.secret).tobytes()
        database.execute(
            "INSERT INTO tombstones (picture, digest, file, place, size, mark, feature, time) VALUES (?,?,?,?,?,?,?,?) "
            "ON CONFLICT DO NOTHING",
            number, digest, file, place, len(data), mark, keys.of(data), time.time(),
        )  # fmt: skip
        digest = keys.of(digest.encode())  # of a second model's feature, while a gallery is being re-encoded


def unburied(database: Database, hashes: Iterable[str]) -> list[str]:
    """Hashes of files without those of deleted images."""
    keys, buried = Keys(database), {str(row[0]) for row in database.query("SELECT file FROM tombstones")}
    return [sha256 for sha256 in hashes if keys.of(sha256.encode()) not in buried]


def _forget_queries(database: Database) -> None:
    """Of searches by a deleted image's own file, which a filter may have kept out of the results."""
    rows = database.query("SELECT search, content FROM secrets WHERE search IS NOT NULL")
    asked = {int(search): set(json.loads(content)["queries"]) for search, content in rows}
    kept = set(unburied(database, set[str]().union(*asked.values())))
    forget(database, [search for search, hashes in asked.items() if hashes - kept])


def _place(feature: bytes) -> int:
    """Where the eight bytes begin that differ most among themselves: zeros are everywhere."""
    return max(range(0, max(len(feature) - 7, 1), 2), key=lambda place: len(set(feature[place : place + 8])))


def _mark(numbers: NDArray[np.uint64], secret: bytes) -> NDArray[np.uint64]:
    """A permutation of 64-bit numbers that depends on the secret: xor, and multiplication with an odd number, twice."""
    first, second, odd, other = np.frombuffer(secret[:32], "<u8")
    mixed = (numbers ^ first) * (odd | np.uint64(1))
    marks: NDArray[np.uint64] = ((mixed ^ (mixed >> np.uint64(32))) ^ second) * (other | np.uint64(1))
    return marks


def pictures_of(database: Database, person: str) -> list[int]:
    """Images that people gave this name.

    Raises:
        UsageError: there are none.
    """
    numbers = [int(row[0]) for row in database.query("SELECT id FROM pictures WHERE person = ? ORDER BY id", person)]
    if not numbers:
        raise UsageError(f"no image of the gallery is labelled {person!r}")
    return numbers


def classes(database: Database) -> dict[str, int]:
    """How many images are of each class."""
    rows = database.query(f"SELECT class, COUNT(*) FROM ({_CLASSED}) AS classed GROUP BY class")
    return dict.fromkeys(CLASSES, 0) | {name: int(count) for name, count in rows}


def overdue(database: Database, now: float) -> list[int]:
    """Images that were taken in longer ago than their class may be kept."""
    too_old = "JOIN retention USING (class) WHERE added < ? - days * 86400.0 ORDER BY id"
    return [int(row[0]) for row in database.query(f"SELECT id FROM ({_CLASSED}) AS classed {too_old}", now)]


def check(database: Database, texts: Sequence[str] = ()) -> list[str]:
    """Everything that is wrong with a gallery, a line each; empty: it is whole, and what was deleted is gone.

    The database's own checks; every image with a feature and a source; the chain of the audit; and every file, byte
    by byte, for features of deleted images, for hashes of their files and for ``texts``, such as a deleted name.
    """
    problems = database.problems()
    problems += [
        f"image {number} has no feature of the gallery's model"
        for (number,) in database.query(
            "SELECT p.id FROM pictures p WHERE NOT EXISTS (SELECT 1 FROM features f JOIN models m ON m.id = f.model "
            "WHERE f.picture = p.id AND m.state = 'active') ORDER BY p.id"
        )
    ]
    problems += [
        f"image {number}: its file {path} is gone"
        for number, path in database.query(
            "SELECT p.id, p.path FROM pictures p LEFT JOIN crops c ON c.picture = p.id WHERE c.picture IS NULL"
        )
        if not Path(path).is_file()
    ]
    problems += verify(database)[0]
    return problems + list(remains(database, texts))


def remains(database: Database, texts: Sequence[str] = ()) -> Iterator[str]:
    """A line for each trace of a deleted image, or of a text, in the bytes of a file."""
    keys = Keys(database)
    rows = database.query("SELECT mark, picture, place, size, feature FROM tombstones")
    marks = {bytes(mark): rest for mark, *rest in rows}
    hashes: dict[str, int] = dict(database.query("SELECT file, picture FROM tombstones"))
    for (sha256,) in database.query("SELECT DISTINCT sha256 FROM pictures"):  # another box of the same file
        hashes.pop(keys.of(sha256.encode()), None)
    sought = np.frombuffer(b"".join(marks), "<u8")
    living: set[str] = set()
    needles = [text.encode() for text in texts]
    for path in database.files():
        traces: set[str] = set()
        for data in _chunks(path):
            for place in _places(data, sought, keys.secret):
                number, shift, size, feature = marks[_mark(np.frombuffer(data, "<u8", 1, place), keys.secret).tobytes()]
                if keys.of(data[max(place - shift, 0) : place - shift + size]) == feature:
                    living = living or _living(database, keys)
                    traces |= {f"the feature of deleted image {number}"} if feature not in living else set()
            for digest in (keys.of(text) for text in set(_HEX.findall(data))):
                traces |= {f"the file hash of deleted image {hashes[digest]}"} if digest in hashes else set()
            traces.update(repr(needle.decode()) for needle in needles if needle in data)
        yield from (f"{path}: {trace}" for trace in sorted(traces))


def _living(database: Database, keys: Keys) -> set[str]:
    """Digests of the features that are there by right: two images may have the same, such as one of a black frame."""
    stored = database.query("SELECT vector FROM features")
    return {"", *(keys.of(database.feature(vector).astype("<f2").tobytes()) for (vector,) in stored)}


_HEX = re.compile(rb"(?=([0-9a-f]{64}))")


def _places(data: bytes, sought: NDArray[np.uint64], secret: bytes) -> Iterable[int]:
    """Where a mark occurs, at whatever alignment."""
    if not len(sought):
        return
    for shift in range(8):
        count = (len(data) - shift) // 8
        if count > 0:
            marked = _mark(np.frombuffer(data, "<u8", count, shift), secret)
            yield from (8 * int(index) + shift for index in np.flatnonzero(np.isin(marked, sought)))


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file in pieces that overlap, so that nothing sought is cut in two."""
    tail = b""
    try:
        with path.open("rb") as handle:
            while piece := handle.read(_CHUNK):
                yield tail + piece
                tail = piece[-_LONGEST:]
    except FileNotFoundError:  # a temporary file of another process
        return
