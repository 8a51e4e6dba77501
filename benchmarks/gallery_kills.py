"""Kill a gallery's processes with SIGKILL at random moments, and see that nothing acknowledged is lost or found again.

usage: python benchmarks/gallery_kills.py [--kills 200] [--seed 0] [--folder FOLDER] [--postgres]

A worker (a fork that has everything imported) indexes, deletes, migrates or searches, and writes to a pipe what was
acknowledged to it: images added, persons deleted, searches answered. After a random number of such messages and a
random moment more it is killed; then the gallery is opened and checked: every acknowledged image that was not deleted
is there with its feature, nothing deleted is found by search or in the bytes of a file, every answered search is in the
audit, and the chain of the audit is whole. --postgres keeps the gallery in a PostgreSQL server of its own, whose files
are not looked into.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads of OpenMP do not survive a fork

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from dapg.features.networks import NetworkSettings  # noqa: E402
from dapg.gallery.gallery import SQLITE, Gallery  # noqa: E402
from dapg.gallery.indexing import Indexer, IndexSettings  # noqa: E402
from dapg.gallery.postgres import PostgresDatabase  # noqa: E402
from postgres_server import running_server  # noqa: E402

SIZES = [(32, 16), (16, 8)]
OTHERS = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
    "AND datname = current_database()"
)
ACTIONS = ("index", "delete", "migrate", "search")


def network(turn: int) -> NetworkSettings:
    """One of two networks, between which migrations go back and forth."""
    height, width = SIZES[turn % 2]
    return NetworkSettings("histogram", height=height, width=width)


def draw(folder: Path, person: int) -> None:
    """Four images of a person, each of random colours."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(person)
    for number in range(4):
        pixels = noise.integers(0, 256, (32, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"person-{person:05d}-{number}.png")
    names = [f"person-{person:05d}-{number}.png,person-{person:05d}" for number in range(4)]
    (folder / "labels.csv").write_text("\n".join(["path,person", *names]) + "\n")


def work(folder: Path, action: str, people: list[int], turn: int, talk: Connection) -> None:
    """Do one thing again and again, and say what is done."""
    gallery = Gallery(folder / "gallery", "cpu")
    talk.send(("ready", 0))
    if action == "index":
        insert = Indexer._commit

        def commit_and_tell(self, results, report):  # type: ignore[no-untyped-def]
            insert(self, results, report)
            for result in results:
                talk.send(("added", result.sighting.path))

        Indexer._commit = commit_and_tell  # type: ignore[method-assign]
        for person in people:
            gallery.index(folder / "pictures" / str(person), IndexSettings(batch_size=2, threads=1))
    elif action == "delete":
        for person in people:
            gallery.delete(person=f"person-{person:05d}")
            talk.send(("deleted", person))
    elif action == "migrate":
        for count in range(turn + 1, turn + 1000):
            wanted = network(count)
            if json_size(gallery) != SIZES[count % 2]:
                gallery.migrate(wanted, batch_size=4)
                talk.send(("migrated", count))
    else:
        while True:
            for person in people:
                result = gallery.search(folder / "pictures" / str(person) / f"person-{person:05d}-0.png", top=3)
                talk.send(("searched", result.number))
    talk.send(("end", 0))


def json_size(gallery: Gallery) -> tuple[int, int]:
    """(height, width) of the gallery's network."""
    import json

    spec = json.loads(gallery.card().spec)
    return spec["height"], spec["width"]


def killed(
    folder: Path, action: str, people: list[int], turn: int, moment: tuple[int, float]
) -> list[tuple[str, object]]:
    """What a worker acknowledged before it was killed, some seconds after so many messages."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder, action, people, turn, there))
    process.start()
    there.close()
    said: list[tuple[str, object]] = []
    try:
        while len(said) <= moment[0]:
            said.append(here.recv())
        time.sleep(moment[1])
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        while True:
            said.append(here.recv())
    except (EOFError, OSError):
        process.join()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        store = stack.enter_context(running_server(folder / "server")) if options.postgres else SQLITE
        print(campaign(folder, options.kills, options.seed, store))


def campaign(folder: Path, kills: int, seed: int, store: str) -> str:
    """All kills and checks.

    Raises:
        AssertionError: something is lost, or found again.
    """
    chance = random.Random(seed)
    Gallery.create(folder / "gallery", network(0), "cpu", store).close()
    added: dict[str, int] = {}
    deleted: set[int] = set()
    doubtful: set[int] = set()
    searched: set[int] = set()
    acknowledged = {"added": 0, "deleted": 0, "migrated": 0, "searched": 0}
    following, before = 0, dict[str, int]()
    for turn in range(kills):
        living = sorted(set(added.values()) - deleted - doubtful)
        action = ACTIONS[turn % 4] if len(living) > 3 else "index"
        if action == "index":
            people = list(range(following, following + 12))
            following += 12
            for person in people:
                draw(folder / "pictures" / str(person), person)
        else:
            people = chance.sample(living, min(len(living) - 2, 6))
        waits = (chance.randint(0, 1), 0.5) if action == "migrate" else (chance.randint(0, 8), 0.1)
        said = killed(folder, action, people, turn, (waits[0], chance.uniform(0.0, waits[1])))
        for kind, what in said:
            if kind == "added":
                added[str(what)] = int(str(what).rpartition("/")[0].rpartition("/")[2])
            elif kind == "deleted":
                deleted.add(int(str(what)))
            elif kind == "searched":
                searched.add(int(str(what)))
            if kind in acknowledged:
                acknowledged[kind] += 1
        if action == "delete":  # the one that was being deleted may be there or not, but never in part
            doubtful |= set(people) - deleted
        before = check(folder, (added, deleted, searched), doubtful, before)
    return f"{kills} kills; acknowledged: {acknowledged}; 0 lost, 0 deleted found, the audit is whole"


def check(
    folder: Path, told: tuple[dict[str, int], set[int], set[int]], doubtful: set[int], before: dict[str, int]
) -> dict[str, int]:
    """Open the gallery as the next user would, and compare; images by person, which were ``before`` the last kill."""
    added, deleted, searched = told
    gallery = Gallery(folder / "gallery", "cpu")
    if isinstance(gallery.database, PostgresDatabase):
        while gallery.database.value(OTHERS):  # the server may still be ending what the killed process had asked for
            time.sleep(0.01)
    try:
        there = {picture.path: picture for picture in gallery.pictures(limit=1_000_000)}
        names: dict[str, int] = {}
        for path, picture in there.items():
            names[str(picture.person)] = names.get(str(picture.person), 0) + 1
            assert added.get(path) not in deleted, f"deleted image is listed: {path}"
        for path, person in added.items():
            assert path in there or person in deleted or person in doubtful, f"lost: {path}"
        for person in doubtful:
            count = names.get(f"person-{person:05d}", 0)
            assert count in (0, before[f"person-{person:05d}"]), f"person {person} is deleted in part"
            if count == 0:
                deleted.add(person)
        doubtful.clear()
        gone = sorted(deleted)[-8:]
        texts = [f"person-{person:05d}" for person in gone]
        for person in gone:
            files = sorted((folder / "pictures" / str(person)).glob("*.png"))
            texts += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        problems = gallery.check(texts)
        assert problems == [], problems
        if gone:
            result = gallery.search(folder / "pictures" / str(gone[-1]) / f"person-{gone[-1]:05d}-0.png", top=5)
            assert all(answer.picture.person not in texts for answer in result.answers)
        audited = {int(row[0]) for row in gallery.database.query("SELECT id FROM searches")}
        assert searched <= audited, "a search that was answered is not in the audit"
        assert gallery.verify_audit()[0] == []
        return names
    finally:
        gallery.close()


if __name__ == "__main__":
    main()
