"""Scoring speed against a plain per-query NumPy evaluation of the same rules, on the same cores.

    python benchmarks/evaluation_speed.py                 # the table
    python benchmarks/evaluation_speed.py --million       # peak memory with a gallery of a million images
    python benchmarks/evaluation_speed.py --device cuda   # our side on a GPU

The plain code is the loop that published evaluations contain: sort the whole matrix, then walk one query after the
other, take out what the rule takes out, and add up. It is written here from the rules in docs/reference/protocols.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dapg.core.types import Record, Trial
from dapg.data.sets import market1501, regdb, sysu
from dapg.features.table import FeatureTable
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score, score_features, score_trials

DIMENSION = 2048
MAX_RANK = 20


@dataclass
class Case:
    """Unit features and labels of one protocol at its published size."""

    name: str
    query: torch.Tensor
    gallery: torch.Tensor
    labels: Labels


def plain_scores(distances, labels):
    """(cmc, mAP, mINP) of one distance matrix, query by query."""
    protocol = labels.protocol
    query_persons, gallery_persons = labels.query_persons, labels.gallery_persons
    query_cameras, gallery_cameras = labels.query_cameras, labels.gallery_cameras
    order = np.argsort(distances, axis=1)
    precisions, penalties, curves = [], [], []
    groups = protocol.camera_groups
    for row in range(len(distances)):
        person, camera = query_persons[row], query_cameras[row]
        persons, cameras = gallery_persons[order[row]], gallery_cameras[order[row]]
        keep = np.ones(len(persons), dtype=bool)
        if protocol.same_person_same_camera:
            keep &= ~((persons == person) & (cameras == camera))
        if camera in groups:
            keep &= ~np.isin(cameras, [other for other, group in groups.items() if group == groups[camera]])
        persons = persons[keep]
        hits = (persons == person).astype(np.int32)
        if not hits.any():
            continue
        counted = hits
        if protocol.unique_identity_cmc:
            first = np.sort(np.unique(persons, return_index=True)[1])
            counted = (persons[first] == person).astype(np.int32)
        curve = np.minimum(counted.cumsum(), 1)[:MAX_RANK]
        curves.append(np.pad(curve, (0, MAX_RANK - len(curve)), mode="edge"))
        found = hits.cumsum()
        last = np.max(np.where(hits == 1))
        penalties.append(found[last] / (last + 1.0))
        precision = np.asarray([hit / (place + 1.0) for place, hit in enumerate(found)]) * hits
        precisions.append(precision.sum() / hits.sum())
    return np.mean(curves, axis=0), np.mean(precisions), np.mean(penalties)


def features(persons, generator):
    """Unit features: a centre for each person plus noise, so that ranks are neither perfect nor random."""
    centres = torch.randn(int(persons.max()) + 1, DIMENSION, generator=generator)
    values = centres[persons] + 4.5 * torch.randn(len(persons), DIMENSION, generator=generator)
    return torch.nn.functional.normalize(values, dim=1)


def sysu_case(generator):
    """Persons, cameras and gallery cells of the published lists; ten galleries drawn from all test images."""
    records = []
    for person, counts in sysu.published_counts().items():
        for camera, count in enumerate(counts, start=1):
            records += [Record(f"cam{camera}/{person}/{number}", person, camera) for number in range(count)]
    cells = {}
    for record in records:
        cells.setdefault((record.camera, record.person), []).append(record)
    query = tuple(record for record in records if record.camera in sysu.INFRARED_CAMERAS)
    choose = np.random.default_rng(0)
    trials = []
    for number in range(10):
        drawn = [
            cell[choose.integers(len(cell))] for (camera, _), cell in cells.items() if camera in sysu.VISIBLE_CAMERAS
        ]
        trials.append(Trial(str(number), "all", query, tuple(drawn), sysu.PROTOCOL))
    values = features(torch.tensor([record.person for record in records]), generator)
    rows = FeatureTable({"values": values}, records).trials(trials)
    return case_of("SYSU-MM01, one trial", values, rows[0]), (values, rows)


def case_of(name, values, trial):
    return Case(name, values[trial.query], values[trial.gallery], trial.labels)


def regdb_case(generator):
    persons = torch.arange(206).repeat_interleave(10)
    values = features(torch.cat([persons, persons]), generator)
    ones = torch.ones_like(persons)
    labels = Labels(persons, persons, ones, 2 * ones, regdb.PROTOCOL)
    return Case("RegDB, one direction", values[:2060], values[2060:], labels)


def market_case(generator):
    """3,368 queries of 750 persons; 13,115 gallery images of them and 2,798 distractors; six cameras."""
    query_persons = torch.arange(1, 751).repeat(5)[:3368]
    gallery_persons = torch.cat([torch.arange(1, 751).repeat(18)[:13_115], torch.zeros(2798, dtype=torch.int64)])
    values = features(torch.cat([query_persons, gallery_persons]), generator)
    cameras = torch.randint(1, 7, (len(values),), generator=generator)
    size = len(query_persons)
    labels = Labels(query_persons, gallery_persons, cameras[:size], cameras[size:], market1501.PROTOCOL)
    return Case("Market-1501", values[:size], values[size:], labels)


def seconds(function, repeats):
    """Best wall-clock and CPU seconds of some runs, and the answer. CPU seconds hold on a machine with other work."""
    wall, cpu, answer = float("inf"), float("inf"), None
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        answer = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, cpu = min(wall, time.perf_counter() - start), min(cpu, time.process_time() - busy)
    return wall, cpu, answer


def check(ours, plain):
    differences = [abs(ours.mAP - plain[1]), abs(ours.mINP - plain[2]), *np.abs(np.array(ours.cmc) - plain[0])]
    assert max(differences) < 1e-9, f"the two sides disagree by {max(differences)}"


def measure(case, device, repeats):
    distances = -(case.query @ case.gallery.T)
    matrix = distances.numpy()
    plain_time, plain_cpu, plain = seconds(lambda: plain_scores(matrix, case.labels), 1)
    moved = distances.to(device)
    our_time, our_cpu, ours = seconds(lambda: score(moved, case.labels, MAX_RANK), repeats)
    check(ours, plain)
    both = [side.to(device) for side in (case.query, case.gallery)]
    whole_time, _, _ = seconds(lambda: score_features(*both, case.labels, MAX_RANK), repeats)
    plain_product, _, _ = seconds(lambda: case.query.numpy() @ case.gallery.numpy().T, 1)
    return {
        "case": case.name,
        "sizes": f"{len(case.query):,} x {len(case.gallery):,}",
        "plain_scoring_s": plain_time,
        "scoring_s": our_time,
        "scoring_ratio": plain_time / our_time,
        "plain_cpu_s": plain_cpu,
        "scoring_cpu_s": our_cpu,
        "cpu_ratio": plain_cpu / our_cpu,
        "plain_with_distances_s": plain_time + plain_product,
        "with_distances_s": whole_time,
        "with_distances_ratio": (plain_time + plain_product) / whole_time,
        "mAP": ours.mAP,
    }


def measure_ten_trials(values, trials, device, repeats):
    """All ten galleries: the plain side multiplies and scores each, ours shares the distances."""
    cases = [case_of(str(number), values, trial) for number, trial in enumerate(trials)]

    def plain():
        found = []
        for case in cases:
            distances = -(case.query.numpy() @ case.gallery.numpy().T)
            found.append(plain_scores(distances, case.labels))
        return found

    plain_time, _, expected = seconds(plain, 1)
    moved = values.to(device)
    our_time, _, ours = seconds(lambda: score_trials(moved, trials, MAX_RANK), repeats)
    for scores, one in zip(ours, expected, strict=True):
        # Distances of the two sides come from products of different shapes: equal up to float32 rounding.
        assert abs(scores.mAP - one[1]) < 1e-5
    return {
        "case": "SYSU-MM01, ten trials",
        "sizes": f"{len(trials[0].query):,} x 10 x {len(trials[0].gallery):,}",
        "plain_scoring_s": None,
        "scoring_s": None,
        "scoring_ratio": None,
        "cpu_ratio": None,
        "plain_with_distances_s": plain_time,
        "with_distances_s": our_time,
        "with_distances_ratio": plain_time / our_time,
        "mAP": float(np.mean([scores.mAP for scores in ours])),
    }


def million(device):
    """Peak memory of 1,000 queries against 1,000,000 images of 512 numbers, everything included."""
    generator = torch.Generator().manual_seed(0)
    gallery = torch.empty(1_000_000, 512)
    for block in gallery.split(50_000):
        block.normal_(generator=generator)
        block /= block.norm(dim=1, keepdim=True)
    query = torch.nn.functional.normalize(torch.randn(1000, 512, generator=generator), dim=1)
    persons = torch.randint(0, 50_000, (1_000_000,), generator=generator)
    cameras = torch.ones(1000).long(), torch.randint(1, 7, (1_000_000,), generator=generator)
    labels = Labels(persons[:1000], persons, *cameras, market1501.PROTOCOL)
    start = time.perf_counter()
    scores = score_features(query.to(device), gallery.to(device), labels, MAX_RANK)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    took = time.perf_counter() - start
    return {"seconds": took, "peak_GiB": peak, "mAP": scores.mAP, "threads": torch.get_num_threads()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--million", action="store_true", help="measure the peak memory of the large case only")
    parser.add_argument("--skip-million", action="store_true")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.million:
        print(json.dumps(million(options.device)))
        return
    generator = torch.Generator().manual_seed(0)
    one_trial, ten_trials = sysu_case(generator)
    rows = [measure(one_trial, options.device, options.repeats)]
    rows.append(measure_ten_trials(*ten_trials, options.device, options.repeats))
    rows.append(measure(regdb_case(generator), options.device, options.repeats))
    rows.append(measure(market_case(generator), options.device, options.repeats))
    head = f"{'case':24} {'size':>18} {'plain s':>8} {'ours s':>8} {'ratio':>6} {'CPU':>6}"
    print(f"{head}   with distances: plain, ours, ratio")
    for row in rows:
        scoring = [row[key] for key in ("plain_scoring_s", "scoring_s", "scoring_ratio", "cpu_ratio")]
        shown = "{:8.2f} {:8.4f} {:6.0f} {:6.0f}".format(*scoring) if scoring[0] is not None else " " * 31
        whole = "{:8.2f} {:8.4f} {:6.0f}".format(
            *(row[key] for key in ("plain_with_distances_s", "with_distances_s", "with_distances_ratio"))
        )
        print(f"{row['case']:24} {row['sizes']:>18} {shown}   {whole}", flush=True)
    result = {"device": options.device, "threads": options.threads, "torch": torch.__version__, "rows": rows}
    if not options.skip_million:
        # In a process of its own: the peak must be that of this case alone.
        command = [sys.executable, __file__, "--million", "--threads", str(options.threads), "--device", options.device]
        result["million"] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print("a million: {seconds:.0f} s, peak {peak_GiB:.2f} GiB".format(**result["million"]))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
