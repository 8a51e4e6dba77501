"""The benchmark vi-c 1.0 of the embedded people: every pre-training under AGW and CIL, and one family left out.

    OMP_NUM_THREADS=1 python benchmarks/robustness_people.py --out outputs/robustness [--only 'AGW*'] [--seed 0]

Trains what is not trained yet at scale ``small`` on the embedded persons (the folders are those of ``dapg reproduce
run``, in ``--runs``), scores each network on the 200 test persons, clean and on 20 types x 5 severities, and prints the
tables of docs/reference/benchmark.md; ``leaderboard.csv`` and ``leaderboard.html`` are written to ``--out``. What is
done is not done again, and the same command may run several times at once.
"""

import argparse
import fnmatch
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dapg.core.errors import BusyError
from dapg.core.files import atomic_write_text
from dapg.core.run_folder import commit
from dapg.core.train_config import DataConfig
from dapg.core.types import JsonObject
from dapg.evaluation.benchmark import BenchmarkSettings, benchmark
from dapg.experiment.cell import train_chain
from dapg.experiment.leaderboard import leaderboard_rows
from dapg.experiment.matrix import Source, cells
from dapg.report.benchmark_page import family_rows, number_rows, open_set_rows, write_benchmark_page
from dapg.report.score_tables import Row, to_csv, to_markdown

Result = TypeVar("Result")
SCALE, REFERENCE = "small", "AGW, ImageNet"
STAGE_1 = "dapg-1-mixed-outside"
DRIFT = "FPIR at the clean threshold"
LEFT_OUT = ("noise", "blur", "weather", "digital")
MODELS: dict[str, tuple[str, str, str]] = {
    f"{finetuner.upper()}, {title}": (arm, finetuner, start)
    for finetuner in ("agw", "cil")
    for title, arm, start in (
        ("ImageNet", "in-sup", "imagenet"),
        ("stage 1", STAGE_1, "imagenet"),
        ("both stages", "dapg", "imagenet"),
        ("SimCLR", "simclr", "imagenet"),
        ("none", "none", "random"),
    )
} | {f"AGW, stage 1 without {family}": (f"{STAGE_1}-no-{family}", "agw", "imagenet") for family in LEFT_OUT}
"""Name -> arm of the experiment, fine-tuning and first weights."""


def trained(name: str, seed: int, runs: Path) -> str:
    """Folder of a model's fine-tuned network; trains what is not there.

    Raises:
        BusyError: another process trains it.
    """
    arm, finetuner, start = MODELS[name]
    wanted = f"{arm}+{finetuner}-synthetic-{start}-{seed}"
    (cell,) = cells(("primary", "stage1"), SCALE, [Source("synthetic")], [start], seed + 1, runs, wanted)
    train_chain(cell, "cpu")
    return cell.chain[-1].out


def measured(name: str, network: str, options: argparse.Namespace) -> JsonObject:
    """The benchmark of one model, its features kept."""
    words = name.lower().replace(", ", "-").replace(" ", "-")
    reference = "" if name == REFERENCE else str(options.out / "agw-imagenet")
    asked = BenchmarkSettings(
        network,
        DataConfig("synthetic"),
        mode="all",
        name=name,
        source=f"benchmarks/robustness_people.py, seed {options.seed}",
        reference=reference,
        device="cpu",
        out=str(options.out / words),
    )
    return benchmark(asked)


def each_once(names: Sequence[str], done: str, work: Callable[[str], Result]) -> dict[str, Result]:
    """Results by name; what another process is at comes last."""
    results: dict[str, Result] = {}
    waiting = list(names)
    while waiting:
        busy = []
        for name in waiting:
            try:
                results[name] = work(name)
            except BusyError:
                busy.append(name)
            else:
                print(time.strftime("%H:%M"), name, done, flush=True)
        if len(busy) == len(waiting):
            time.sleep(5)
        waiting = busy
    return results


def tables(results: Sequence[JsonObject]) -> list[list[Row]]:
    """Clean, the grid and its worst parts; mixtures, rank-1 and the open set; mAP by family: in per cent."""
    numbers, families = number_rows(results), family_rows(results)
    clean, mixture = (open_set_rows(results)[part::2] for part in (0, 1))  # two lines for each model
    arms = [row for row in numbers if " without " not in row["model"]]
    columns = ("model", "clean mAP", "corrupted mAP", "retention", "mCE", "relative mCE", "worst type", "worst tenth")
    grid = [{name: row[name] for name in columns} for row in arms]
    searches = [
        {
            **{name: row[name] for name in ("model", "mixture mAP", "clean rank-1", "corrupted rank-1")},
            **{name: found[name] for name in ("FNIR at FPIR 0.1", "TAR at FAR 0.1")},
            DRIFT: drifted[DRIFT],
        }
        for row, found, drifted in zip(numbers, clean, mixture, strict=True)
        if row in arms
    ]
    ablated = [
        {"model": row["model"], "clean mAP": row["clean mAP"], **{name: part[name] for name in (*LEFT_OUT, "extra")}}
        for row, part in zip(numbers, families, strict=True)
        if row["model"].startswith(("AGW, stage 1", REFERENCE))
    ]
    return [grid, searches, ablated]


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/robustness"), help="results")
    parser.add_argument("--runs", type=Path, default=Path("outputs/reproduce"), help="trainings")
    parser.add_argument("--only", default="*", help="pattern of models' names")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = [name for name in MODELS if fnmatch.fnmatch(name, options.only)]
    networks = each_once([REFERENCE, *names], "trained", lambda name: trained(name, options.seed, options.runs))
    by_name = each_once([REFERENCE], "scored", lambda name: measured(name, networks[name], options))
    by_name |= each_once(names, "scored", lambda name: measured(name, networks[name], options))
    results = [by_name[name] for name in names]
    print(f"commit {commit()}, seed {options.seed}\n")
    for rows in tables(results):
        print(to_markdown(rows))
    atomic_write_text(options.out / "leaderboard.csv", to_csv(leaderboard_rows(results, [])))
    write_benchmark_page(options.out / "leaderboard.html", results, [])
    print(f"written: {options.out / 'leaderboard.csv'}, {options.out / 'leaderboard.html'}")


if __name__ == "__main__":
    main()
