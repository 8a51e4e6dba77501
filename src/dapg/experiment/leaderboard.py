"""The leaderboard of the benchmark: results measured by ``dapg benchmark`` and figures that papers print, told apart.

A printed figure never stands without the protocol it was read by; what was rebuilt from a paper is marked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from dapg.core.errors import UsageError
from dapg.core.types import JsonObject
from dapg.experiment import paper
from dapg.experiment.matrix import arm_called
from dapg.report.score_tables import Row

COLUMNS = (
    *("model", "kind", "reconstruction", "source", "data", "mode", "protocol", "clean rank-1", "clean mAP"),
    *("mixture rank-1", "mixture mAP", "mixture mINP", "grid mAP", "retention", "mCE", "relative mCE"),
    *("worst tenth", "persons", "test list", "comparable", "features"),
)
"""Of ``leaderboard.csv``. Mixture: every image draws its type and severity; only these figures are in print."""


@dataclass(frozen=True)
class Printed:
    """Figures of a paper or README, in per cent.

    Raises:
        UsageError: no protocol, or no source.
    """

    model: str
    source: str
    data: str
    mode: str
    protocol: str
    """How the corrupted images were drawn and which galleries were scored."""
    clean: tuple[float, float]
    """rank-1, mAP."""
    mixture: tuple[float, ...]
    """rank-1, mAP and, where it is printed, mINP."""
    reconstruction: bool = False

    def __post_init__(self) -> None:
        """Refuse a figure that nobody could read."""
        if not self.protocol.strip() or not self.source.strip():
            raise UsageError(f"{self.model}: a printed figure needs its protocol and its source")


_CIL = "visible images, type and severity drawn without a seed, gallery or partition 1 alone"
_UNSAID = "not said in the paper; its ImageNet rows are those of CIL's README, so presumably CIL's: " + _CIL
_CIL_README = "README of Zoky-2020/CIL-CrossModal"


def printed() -> list[Printed]:
    """CIL's README (AGW and CIL), then the DAPG paper's Tables I and II without the rows it copied from there."""
    anchors = {
        "AGW": (
            ((47.50, 47.65), (54.17, 62.97), (75.78, 68.82), (75.29, 68.15)),
            ((34.42, 29.99, 14.73), (33.80, 40.98, 35.39), (45.44, 43.09, 32.88), (67.54, 41.37, 6.00)),
        ),
        "CIL": (
            ((45.51, 47.64), (50.98, 60.45), (74.96, 69.75), (74.95, 69.21)),
            ((36.95, 35.92, 22.48), (40.73, 48.65, 43.11), (52.25, 49.76, 38.66), (67.17, 47.90, 11.94)),
        ),
    }
    rows = [
        Printed(f"{name}, ImageNet", _CIL_README, _data(mode), mode, _CIL, clean[place], corrupted[place])
        for name, (clean, corrupted) in anchors.items()
        for place, mode in enumerate(paper.SEARCHES)
    ]
    for row in paper.TABLES_1_AND_2:
        if row.pretraining == "in-sup":
            continue
        arm = arm_called(row.pretraining)
        name = f"{row.finetuning.upper()}, {arm.title}"
        rows += [
            Printed(name, "DAPG, Tables I and II", _data(mode), mode, _UNSAID, row.clean[mode], row.corrupted[mode])
            for mode in paper.SEARCHES
        ]
    return rows


def leaderboard_rows(results: Sequence[JsonObject], entries: Sequence[Printed]) -> list[Row]:
    """Measured results, best grid mAP first, then printed entries, best mixture mAP first; by data, mode,
    protocol and test list.

    Raises:
        UsageError: a result of another stage, or the same model twice on one test.
    """
    measured = [row for result in results for row in _measured(result)]
    names = [(row["model"], row["data"], row["mode"], row["protocol"]) for row in measured]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{', '.join(name)} is there twice; give models names of their own (--name)")
    test = itemgetter("data", "mode", "protocol", "test list")
    measured.sort(key=lambda row: (*test(row), -float(row["grid mAP"])))
    copied = [_entry(entry) for entry in entries]
    copied.sort(key=lambda row: (row["data"], row["mode"], row["protocol"], -float(row["mixture mAP"])))
    return [*measured, *copied]


def _measured(result: JsonObject) -> Iterator[Row]:
    if result.get("stage") != "benchmark":
        raise UsageError(f"this is a result of {result.get('stage')!r}; a leaderboard takes those of dapg benchmark")
    about, clean = result["model"], result["clean"]
    for name, protocol in result["protocols"].items():
        summary, mixture = protocol["summary"], protocol["mixture"]
        yield _row(
            {
                "model": about["name"],
                "kind": "measured",
                "reconstruction": "yes" if about.get("reconstruction") else "no",
                "source": about["source"],
                "data": result["data"]["name"],
                "mode": result["data"]["mode"],
                "protocol": f"{result['list']['list']}/{name}",
                "clean rank-1": _percent(clean["rank-1"]),
                "clean mAP": _percent(clean["mAP"]),
                "mixture rank-1": _percent(mixture["rank-1"]),
                "mixture mAP": _percent(mixture["mAP"]),
                "mixture mINP": _percent(mixture["mINP"]),
                "grid mAP": _percent(summary["mean"]["mAP"]),
                "retention": _percent(summary["retention"]["mAP"]),
                "mCE": _percent(summary["mCE"]),
                "relative mCE": _percent(summary["relative_mCE"]),
                "worst tenth": _percent(summary["worst_tenth"]["mAP"]),
                "persons": str(clean["intervals"]["mAP"]["persons"]),
                "test list": str(result["data"].get("hash", ""))[:12],
                "comparable": "yes" if result["data"]["comparable"] else "no",
                "features": result["features"],
            }
        )


def _entry(entry: Printed) -> Row:
    mixture = dict(zip(("rank-1", "mAP", "mINP"), entry.mixture, strict=False))
    return _row(
        {
            "model": entry.model,
            "kind": "printed",
            "reconstruction": "yes" if entry.reconstruction else "no",
            "source": entry.source,
            "data": entry.data,
            "mode": entry.mode,
            "protocol": entry.protocol,
            "clean rank-1": f"{entry.clean[0]:.2f}",
            "clean mAP": f"{entry.clean[1]:.2f}",
            **{f"mixture {measure}": f"{value:.2f}" for measure, value in mixture.items()},
        }
    )


def _row(values: Row) -> Row:
    return {column: values.get(column, "") for column in COLUMNS}


def _data(mode: str) -> str:
    return "SYSU-MM01" if mode in paper.modes_of("sysu") else "RegDB"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
