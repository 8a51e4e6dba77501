"""What every store of a gallery promises, on features written by hand."""

import math
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hand_made import ME, put, query, sha256_of, tables, unit

from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DapgError, UsageError
from dapg.core.types import Modality
from dapg.features.networks import NetworkSettings
from dapg.gallery import audit
from dapg.gallery.database import CACHE, Database, Filters, SqliteDatabase
from dapg.gallery.deletion import check, delete, remains
from dapg.gallery.gallery import Gallery
from dapg.gallery.indexing import IndexSettings
from dapg.gallery.postgres import PostgresDatabase, without_password
from dapg.gallery.search import answers
from figures import make_figures
from postgres_server import running_server

SQLITE, POSTGRES = "sqlite", "postgres"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server with pgvector, from a wheel; its address."""
    with running_server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(params=[SQLITE, pytest.param(POSTGRES, marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == SQLITE:
        store: Database = SqliteDatabase(tmp_path)
    else:
        address = request.getfixturevalue("server")
        name = f"gallery{len(_made)}"
        _made.append(name)
        PostgresDatabase(address).execute(f"CREATE DATABASE {name}")
        store = PostgresDatabase(address.replace("/postgres?", f"/{name}?"))
    yield tables(store)
    store.close()


_made: list[str] = []


def found(database: Database, vector: list[float], filters: Filters | None = None, top: int = 10) -> list[int]:
    return [a.picture.number for a in answers(database, 1, query(vector), filters or Filters(), top, {})]


def degrees(angle: float) -> list[float]:
    """A unit vector at an angle to the first axis."""
    return [math.cos(math.radians(angle)), math.sin(math.radians(angle)), 0]


def test_answers_are_in_order_of_the_cosine_and_equal_ones_of_the_number(database: Database) -> None:
    """Angles to the query 0: 60, 10, 90, 10, 30 degrees, so images 2, 4, 5, 1, 3."""
    for angle in (60, 10, 90, 10, 30):
        put(database, degrees(angle))
    ranked = answers(database, 1, query(degrees(0)), Filters(), 10, {})
    assert [answer.picture.number for answer in ranked] == [2, 4, 5, 1, 3]
    cosines = [math.cos(math.radians(angle)) for angle in (10, 10, 30, 60, 90)]
    assert [answer.score for answer in ranked] == pytest.approx(cosines, abs=1e-3)
    assert found(database, degrees(0), top=1) == [2]
    assert found(database, degrees(90), top=2) == [3, 1]


def test_the_gallery_grows_between_searches(database: Database) -> None:
    assert found(database, degrees(0)) == []
    put(database, degrees(50))
    assert found(database, degrees(0)) == [1]
    put(database, degrees(5))
    assert found(database, degrees(0)) == [2, 1]


def test_a_lost_or_foreign_cache_is_made_anew(tmp_path: Path) -> None:
    """The cache is deleted beneath a running process, and a backup is put back beside a newer cache."""
    database, copy = tables(SqliteDatabase(tmp_path)), tmp_path / "copy"
    put(database, degrees(0))
    copy.mkdir()
    database.backup(copy)
    assert found(database, degrees(0)) == [1]
    shutil.rmtree(tmp_path / CACHE)
    put(database, degrees(90))
    assert found(database, degrees(0)) == [1, 2]
    audit.append(database, ME, "look", {})
    put(database, degrees(180))
    assert found(database, degrees(0)) == [1, 2, 3]
    shutil.copytree(tmp_path / CACHE, copy / CACHE)
    old = SqliteDatabase(copy)
    put(old, degrees(80))
    put(old, degrees(10))
    assert found(old, degrees(0)) == [1, 3, 2]


def test_the_pictures_of_a_track_vote(database: Database) -> None:
    """The best three of a track count. Single images at 10 and 25 degrees; track a at 0 and 60: mean cosine 0.75;
    track b at 20, 20, 20 and 90: 0.94, and its best is below the first single picture's; track a of another camera."""
    put(database, degrees(10))
    put(database, degrees(25))
    for angle in (60, 0):
        put(database, degrees(angle), track="a")
    for angle in (90, 20, 20, 20):
        put(database, degrees(angle), track="b")
    put(database, degrees(80), camera="hall", track="a")
    ranked = answers(database, 1, query(degrees(0)), Filters(), 10, {})
    assert [answer.picture.number for answer in ranked] == [1, 6, 2, 4, 9]
    votes = [math.cos(math.radians(10)), math.cos(math.radians(20)), math.cos(math.radians(25)), 0.75]
    assert [answer.vote for answer in ranked[:4]] == pytest.approx(votes, abs=1e-3)
    assert [answer.pictures for answer in ranked] == [1, 4, 1, 2, 1]
    assert ranked[3].score == pytest.approx(1, abs=1e-3)


def test_votes_are_exact_however_few_answers_are_asked_for(database: Database) -> None:
    """Forty tracks whose one good image would crowd out everything among the first hits: the steady track wins."""
    for number in range(40):
        put(database, degrees(1), track=f"lucky {number}")
        put(database, degrees(85), track=f"lucky {number}")
    steady = [put(database, degrees(30), track="steady") for _ in range(3)]
    assert found(database, degrees(0), top=1) == [steady[0]]


def test_filters_come_before_the_search(database: Database) -> None:
    put(database, degrees(0), "gate", time=100.0)
    put(database, degrees(10), "hall", time=200.0, modality=Modality.INFRARED)
    put(database, degrees(20), "hall", time=300.0)
    put(database, degrees(30), "yard")
    assert found(database, degrees(0), Filters(camera=("hall", "yard")), top=1) == [2]
    assert found(database, degrees(0), Filters(camera=("hall", "yard"))) == [2, 3, 4]
    assert found(database, degrees(0), Filters(after=200.0)) == [2, 3]
    assert found(database, degrees(0), Filters(after=150.0, before=300.0)) == [2]
    assert found(database, degrees(0), Filters(modality=Modality.VISIBLE)) == [1, 3, 4]
    assert found(database, degrees(0), Filters(camera=("gate",), modality=Modality.INFRARED)) == []
    with pytest.raises(UsageError, match=r"no camera 'roof'; it has gate, hall, yard"):
        found(database, degrees(0), Filters(camera=("roof",)))


def test_scores_are_those_of_a_plain_product(database: Database) -> None:
    """Random features in every direction; the top five by NumPy in double precision."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 3))
    for row in rows:
        put(database, row.tolist())
    halves = np.stack([unit(row.tolist()) for row in rows]).astype(np.float16)
    for vector in random.normal(size=(5, 3)):
        feature = query(vector.tolist()).feature.astype(np.float64)
        scores = halves.astype(np.float64) @ feature
        hits = database.nearest(1, feature.astype(np.float32), Filters(), 5)
        assert hits["picture"].tolist() == (np.argsort(-scores, kind="stable")[:5] + 1).tolist()
        assert hits["score"].tolist() == pytest.approx(np.sort(scores)[::-1][:5].tolist(), abs=1e-6)


def test_all_or_nothing(database: Database) -> None:
    put(database, degrees(0))
    with pytest.raises(DapgError, match="nowhere"), database.transaction():
        _ = put(database, degrees(10)), database.execute("DELETE FROM nowhere")
    assert found(database, degrees(0)) == [1]
    assert database.count("version") == 1


def test_a_full_disk_is_said_and_the_next_write_succeeds(tmp_path: Path) -> None:
    database = tables(SqliteDatabase(tmp_path))
    pages = database.value("PRAGMA page_count")
    database.query(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DapgError, match="No space left on device"), database.transaction():
        database.execute("INSERT INTO meta VALUES ('x', ?)", "y" * 1_000_000)
    assert put(database, degrees(0)) == 1


def test_migrations_are_applied_once_and_newer_tables_are_refused(database: Database) -> None:
    database.migrate()
    database.execute("INSERT INTO migrations VALUES (99)")
    with pytest.raises(UsageError, match="tables of version 99"):
        database.migrate()


def test_what_is_deleted_is_found_no_more_and_leaves_no_byte(database: Database) -> None:
    for angle in (5, 10, 20):
        put(database, degrees(angle), track="" if angle == 5 else "a", person="visitor")
    assert found(database, degrees(0)) == [1, 2]
    assert delete(database, [1, 3, 77], ME) == 2
    assert found(database, degrees(0)) == [2]
    assert check(database, [sha256_of(1), "/pictures/1.png", "image 3"]) == []
    assert bool(list(remains(database, ["/pictures/2.png"]))) == bool(database.files())
    assert audit.entries(database)[-1].body == {"pictures": [1, 3], "version": 4}


def test_the_audit_is_append_only_and_chained(database: Database) -> None:
    for number in range(3):
        audit.append(database, ME, "look", {"number": number}, {"queries": [f"hash {number}"]})
    assert [entry.action for entry in audit.entries(database)] == ["create", "look", "look", "look"]
    assert audit.entries(database, after=3)[0].secret == {"queries": ["hash 2"]}
    problems, head = audit.verify(database)
    assert problems == []
    assert audit.verify(database, head)[0] == []
    for statement in ("UPDATE audit SET actor = 'x' WHERE id = 2", "DELETE FROM audit WHERE id = 4"):
        with pytest.raises(DapgError, match="append-only"):
            database.execute(statement)
    database.execute("UPDATE secrets SET content = 'x' WHERE audit = 2")
    assert audit.verify(database)[0] == ["the secret of audit entry 2 was changed"]
    database.execute("DELETE FROM secrets WHERE audit = 2")
    assert audit.verify(database, "5f3c")[0] == ["no entry has the hash 5f3c, which was the last one once"]


def test_a_tampered_audit_is_noticed(database: Database) -> None:
    for number in range(4):
        audit.append(database, ME, "look", {"number": number})
    if isinstance(database, SqliteDatabase):
        database.execute("DROP TRIGGER audit_no_update")
        database.execute("DROP TRIGGER audit_no_delete")
    else:
        database.execute("DROP TRIGGER audit_no_change ON audit")
    database.execute("UPDATE audit SET actor = 'nobody' WHERE id = 2")
    assert audit.verify(database)[0] == ["audit entry 2 was changed"]
    database.execute("UPDATE audit SET actor = 'me' WHERE id = 2")
    database.execute("DELETE FROM audit WHERE id = 3")
    problems, _ = audit.verify(database)
    assert problems == [
        "audit entry 4 does not follow the entry before it",
        "the audit has 4 entries, but 5 were written",
    ]


def test_two_writers_of_one_store(database: Database, tmp_path: Path) -> None:
    """Each sees what the other has committed, and their audit entries make one chain."""
    other = PostgresDatabase(database.store) if isinstance(database, PostgresDatabase) else SqliteDatabase(tmp_path)
    put(database, degrees(0))
    put(other, degrees(20))
    audit.append(other, ME, "look", {})
    audit.append(database, ME, "look", {})
    assert found(database, degrees(0)) == found(other, degrees(0)) == [1, 2]
    delete(other, [1], ME)
    assert found(database, degrees(0)) == [2]
    assert audit.verify(database)[0] == []
    other.close()


@pytest.mark.slow
def test_a_gallery_in_postgres_from_index_to_deletion(server: str, tmp_path: Path) -> None:
    """The same commands over the other store, by two indexers at once and by shards."""
    PostgresDatabase(server).execute("CREATE DATABASE people")
    figures = make_figures(tmp_path / "figures", persons=2)
    address = server.replace("/postgres?", "/people?")
    gallery = Gallery.create(tmp_path / "gallery", NetworkSettings("histogram", height=32, width=16), "cpu", address)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda folder: Gallery(folder, "cpu").index(figures), [gallery.folder] * 2))
    assert sum(report.added for report in reports) == 12
    shards = IndexSettings(engine=EngineSettings(workers=2))
    assert gallery.index(figures, shards).counts()["known"] == 12
    result = gallery.search(figures / "camera1" / "001_0.png", top=2)
    assert [answer.picture.person for answer in result.answers] == ["person 001"] * 2
    gallery.search(figures / "camera1" / "001_0.png", filters=Filters(camera=("camera 2",)))
    gallery.verdict(1, result.answers[0].picture.number, True)
    gallery.label([1, result.answers[0].picture.number], None)
    assert gallery.info()["classes"] == {"unknown": 1, "matched": 0, "confirmed": 11}
    gallery.verdict(1, result.answers[0].picture.number, False)
    assert gallery.info()["classes"] == {"unknown": 2, "matched": 0, "confirmed": 10}
    gallery.label([result.answers[0].picture.number], "person 001")
    assert gallery.delete(person="person 001") == 6
    assert [entry.secret for entry in gallery.audit() if entry.action == "search"] == [None, None]
    assert gallery.index(figures, shards).counts() == {
        "added": 0,
        "known": 6,
        "duplicates": 0,
        "damaged": 0,
        "deleted": 6,
    }
    assert gallery.check() == []
    gallery.close()


def test_a_password_does_not_stay_in_the_folder() -> None:
    assert without_password("postgresql://me:secret@host:5432/people?sslmode=require") == (
        "postgresql://me@host:5432/people?sslmode=require"
    )
    assert without_password("sqlite") == "sqlite"
