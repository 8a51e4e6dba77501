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
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dapg.core.errors import BusyError
from dapg.core.files import atomic_write_text
from dapg.core.run_folder import commit
from dapg.core.train_config import DataConfig
from dapg.core.types import JsonObject
from dapg.evaluation.benchmark import BenchmarkSettings, benchmark
from dapg.experiment.leaderboard import leaderboard_rows
from dapg.experiment.matrix import ARMS, Arm, alignment_settings, folder, poses, pretraining_settings
from dapg.pose.generate import generate
from dapg.recipes import finetuning
from dapg.report.benchmark_page import write_benchmark_page
from dapg.report.score_tables import Row, to_csv, to_markdown
from dapg.training.align import align
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain

Result = TypeVar("Result")
SCALE, REFERENCE = "small", "AGW, ImageNet"
STAGE_1 = ARMS["dapg-1-mixed-outside"]
LEFT_OUT = ("noise", "blur", "weather", "digital")
MODELS: dict[str, tuple[str, Arm, str]] = {
    f"{finetuner.upper()}, {title}": (finetuner, arm, start)
    for finetuner in ("agw", "cil")
    for title, arm, start in (
        ("ImageNet", ARMS["in-sup"], "imagenet"),
        ("stage 1", STAGE_1, "imagenet"),
        ("both stages", ARMS["dapg"], "imagenet"),
        ("SimCLR", ARMS["simclr"], "imagenet"),
        ("none", ARMS["none"], "random"),
    )
} | {
    f"AGW, stage 1 without {family}": (
        "agw",
        replace(STAGE_1, changes={**STAGE_1.changes, "chain.leave_out": (family,)}),
        "imagenet",
    )
    for family in LEFT_OUT
}
"""Name -> fine-tuning, pre-training and first weights."""


def trained(name: str, seed: int, runs: Path) -> str:
    """Folder of a model's fine-tuned network; trains what is not there.

    Raises:
        BusyError: another process trains it.
    """
    finetuner, arm, start = MODELS[name]
    settings = finetuning(finetuner, SCALE, start)
    first = None
    if arm.pretraining:
        first = pretraining_settings(arm, SCALE, start, seed, runs)
        pretrain(replace(first, device="cpu"))
        settings = replace(settings, backbone=replace(settings.backbone, init=first.out))
    if arm.alignment:
        second = alignment_settings(arm, SCALE, first, start, seed, runs)
        generate(second.data, replace(poses(second), device="cpu"))
        align(replace(second, device="cpu"))
        settings = replace(settings, backbone=replace(settings.backbone, init=second.out))
    settings = replace(settings, data=DataConfig("synthetic"), seed=seed)
    settings = replace(settings, out=str(folder(runs, "finetune", settings)), device="cpu")
    finetune(settings)
    return settings.out


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


def grid_rows(result: JsonObject) -> Row:
    """Clean, the grid and its worst parts, in per cent."""
    clean, summary = result["clean"], result["protocols"]["visible"]["summary"]
    ratios = {"mCE": summary["mCE"], "relative mCE": summary["relative_mCE"]}
    worst = summary["worst_type"]
    return {
        "model": result["model"]["name"],
        "clean mAP": with_interval(clean["mAP"], clean["intervals"]["mAP"]),
        "corrupted mAP": with_interval(summary["mean"]["mAP"], summary["intervals"]["mAP"]),
        "retention": percent(summary["retention"]["mAP"]),
        **{name: "100" if result["reference"] is None else percent(value) for name, value in ratios.items()},
        "worst type": f"{worst['type']} {percent(worst['mAP'])}",
        "worst tenth": percent(summary["worst_tenth"]["mAP"]),
    }


def search_rows(result: JsonObject) -> Row:
    """Mixtures, rank-1 and the open set, in per cent."""
    protocol, found = result["protocols"]["visible"], result["clean"]["open_set"]
    mixture, drift = protocol["mixture"], [cell["FPIR"]["value"] for cell in protocol["cells"]]
    return {
        "model": result["model"]["name"],
        "mixtures, mAP": f"{percent(mixture['mAP'])} ± {100 * mixture['spread']['mAP']['repeat']['std']:.2f}",
        "rank-1 clean": percent(result["clean"]["rank-1"]),
        "rank-1 corrupted": percent(protocol["summary"]["mean"]["rank-1"]),
        "FNIR at FPIR 10 %": found["FNIR at FPIR 0.1"]["text"],
        "TAR at FAR 10 %": found["TAR at FAR 0.1"]["text"],
        "FPIR on corrupted": f"{percent(sum(drift) / len(drift))}, at most {percent(max(drift))}",
    }


def family_rows(result: JsonObject) -> Row:
    """mAP by family, in per cent."""
    families = result["protocols"]["visible"]["summary"]["families"]
    by_family = {family: percent(families[family]) for family in (*LEFT_OUT, "extra")}
    return {"model": result["model"]["name"], "clean": percent(result["clean"]["mAP"]), **by_family}


def percent(value: float) -> str:
    """One digit."""
    return f"{100 * value:.1f}"


def with_interval(value: float, interval: JsonObject) -> str:
    """A value and its 95 % interval over persons."""
    return f"{percent(value)} ({percent(interval['low'])} to {percent(interval['high'])})"


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
    arms = [result for result in results if " without " not in result["model"]["name"]]
    ablated = [result for result in results if result["model"]["name"].startswith(("AGW, stage 1", REFERENCE))]
    for rows_of, shown in ((grid_rows, arms), (search_rows, arms), (family_rows, ablated)):
        print(to_markdown([rows_of(result) for result in shown]))
    atomic_write_text(options.out / "leaderboard.csv", to_csv(leaderboard_rows(results, [])))
    write_benchmark_page(options.out / "leaderboard.html", results, [])
    print(f"written: {options.out / 'leaderboard.csv'}, {options.out / 'leaderboard.html'}")


if __name__ == "__main__":
    main()
