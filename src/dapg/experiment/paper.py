"""What the paper prints: Tables I to III, the gains claimed in the text, and what is known to be wrong with them.

Source: the DAPG paper, section III; the anchors of AGW and CIL are from their READMEs
(mangye16/Cross-Modal-Re-ID-baseline, MinghuiChen43/CIL-ReID). Figures are rank-1 and mAP in per cent. Nothing here was
run by us.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Scores = tuple[float, float]
"""rank-1, mAP."""

SEARCHES = ("all", "indoor", "visible-to-thermal", "thermal-to-visible")
"""SYSU-MM01's two modes, then RegDB's."""
ON_SYNTHETIC = "all-100"
"""SYSU-MM01's first mode in galleries of 100 persons each, so that scores do not depend on how many are tested."""


def modes_of(data: str) -> tuple[str, ...]:
    """The published test modes of a data set; of synthetic people the one that is most like SYSU-MM01's first, of
    rendered thermal people RegDB's.
    """
    if data == "synthetic":
        return (ON_SYNTHETIC,)
    return SEARCHES[2:] if data.startswith(("regdb", "thermal")) else SEARCHES[:2]


def printed_mode(mode: str) -> str:
    """The paper's mode that one of ours is compared with, for orientation where they differ."""
    return SEARCHES[0] if mode == ON_SYNTHETIC else mode


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """One line of Table I or II."""

    finetuning: str
    """agw or cil."""
    pretraining: str
    """in-sup, pnl, byol, ssl, vtbr, simclr or dapg."""
    clean: Mapping[str, Scores]
    """Table I: mode -> scores on clean images."""
    corrupted: Mapping[str, Scores]
    """Table II: mode -> scores on SYSU-MM01-C or RegDB-C."""


def _row(finetuning: str, pretraining: str, clean: str, corrupted: str) -> PrintedRow:
    def scores(text: str) -> dict[str, Scores]:
        numbers = [float(word) for word in text.split()]
        return {mode: (numbers[2 * i], numbers[2 * i + 1]) for i, mode in enumerate(SEARCHES)}

    return PrintedRow(finetuning, pretraining, scores(clean), scores(corrupted))


TABLES_1_AND_2 = (
    _row(
        "cil", "in-sup",
        "45.41 47.64 50.98 60.45 74.96 69.75 74.95 69.21",
        "36.95 35.92 40.73 48.65 52.55 49.76 67.17 47.90",
    ),
    _row(
        "cil", "pnl",
        "54.94 56.02 57.85 66.92 77.02 71.83 77.91 72.47",
        "43.59 52.75 45.70 54.08 62.73 59.96 70.38 68.49",
    ),
    _row(
        "cil", "byol",
        "48.23 49.24 52.47 63.58 75.58 70.74 75.74 70.83",
        "38.01 37.36 42.27 50.22 54.12 50.53 68.24 53.25",
    ),
    _row(
        "cil", "ssl",
        "46.18 46.89 52.07 61.53 72.69 68.48 73.28 69.81",
        "36.92 36.22 40.07 49.16 51.83 50.07 53.24 52.46",
    ),
    _row(
        "cil", "vtbr",
        "51.68 53.42 53.06 64.81 77.02 71.18 78.52 70.43",
        "42.87 43.36 47.02 53.72 62.37 59.46 69.62 62.09",
    ),
    _row(
        "cil", "simclr",
        "46.78 47.88 51.23 61.85 73.14 68.46 73.89 67.97",
        "37.39 36.22 41.21 49.08 52.34 49.02 66.43 50.71",
    ),
    _row(
        "cil", "dapg",
        "56.67 59.36 59.27 70.76 77.85 71.23 78.95 71.52",
        "48.36 55.88 49.27 57.21 67.41 60.04 72.17 56.63",
    ),
    _row(
        "agw", "in-sup",
        "47.50 47.65 54.17 63.97 70.05 66.37 70.49 65.90",
        "34.42 29.99 35.24 41.57 45.44 43.09 67.54 41.37",
    ),
    _row(
        "agw", "pnl",
        "55.36 55.45 57.85 66.92 69.75 66.12 69.14 66.59",
        "44.50 49.47 47.68 54.92 55.28 52.41 64.56 61.74",
    ),
    _row(
        "agw", "byol",
        "51.14 50.14 55.68 65.14 70.17 66.61 70.37 63.22",
        "36.28 32.14 33.92 41.07 47.14 44.52 68.75 44.13",
    ),
    _row(
        "agw", "ssl",
        "47.21 48.02 52.86 63.76 70.93 68.29 71.56 68.86",
        "38.07 38.45 39.37 49.76 60.07 58.34 62.21 59.82",
    ),
    _row(
        "agw", "vtbr",
        "53.26 52.93 56.52 66.31 73.54 68.75 74.87 69.63",
        "43.18 46.91 44.05 53.29 63.84 60.29 71.47 63.29",
    ),
    _row(
        "agw", "simclr",
        "48.27 48.28 54.69 63.84 67.49 63.35 68.18 61.67",
        "35.74 30.25 42.58 50.27 45.27 42.88 66.21 41.07",
    ),
    _row(
        "agw", "dapg",
        "56.14 55.03 58.33 69.52 74.26 70.44 76.23 65.85",
        "47.63 51.93 45.95 55.40 65.53 55.73 73.16 55.36",
    ),
)  # fmt: skip

TABLE_3: Mapping[str, Mapping[str, Scores]] = {
    "stage 1 without L_total": {"all": (33.49, 30.62), "indoor": (34.81, 34.33)},
    "stage 2 only": {"all": (28.05, 26.53), "indoor": (29.67, 29.16)},
    "stage 1 with L_total": {"all": (39.06, 42.87), "indoor": (38.81, 41.94)},
    "both stages with L_total": {"all": (47.63, 51.93), "indoor": (45.95, 55.40)},
}
"""Ablation, AGW on SYSU-MM01-C. What "without L_total" means is not said; we read InfoNCE with one positive."""

FIGURE_1 = "not available: Fig. 1 is an image without printed values"


@dataclass(frozen=True, slots=True)
class Claim:
    """A gain stated in the text, between two printed figures."""

    text: str
    stated: float
    """Percentage points of rank-1."""
    finetuning: str
    mode: str
    corrupted: bool

    def recomputed(self) -> float:
        """Ours minus ImageNet's, from the tables."""
        values = {}
        for row in TABLES_1_AND_2:
            if row.finetuning == self.finetuning:
                values[row.pretraining] = (row.corrupted if self.corrupted else row.clean)[self.mode][0]
        return round(values["dapg"] - values["in-sup"], 2)


CLAIMS = (
    Claim("SYSU-MM01 all-search, CIL, over ImageNet", 11.26, "cil", "all", False),
    Claim("SYSU-MM01 all-search, AGW, over ImageNet", 8.64, "agw", "all", False),
    Claim("RegDB visible to thermal, CIL, over ImageNet", 2.89, "cil", "visible-to-thermal", False),
    Claim("SYSU-MM01-C all-search, CIL, over ImageNet", 11.41, "cil", "all", True),
)

ORIGINALS: Mapping[tuple[str, bool, str, int], float] = {
    ("cil", False, "all", 0): 45.51,
    ("cil", True, "visible-to-thermal", 0): 52.25,
    ("agw", False, "indoor", 1): 62.97,
    ("agw", True, "indoor", 0): 33.80,
    ("agw", True, "indoor", 1): 40.98,
}
"""Where a copied ImageNet row differs from its source: (fine-tuning, corrupted, mode, 0 rank-1, 1 mAP) -> source."""


def not_the_best() -> list[str]:
    """Printed cells in which the paper's own method is not the best of its block, although the text says so."""
    beaten = []
    for finetuning in ("cil", "agw"):
        block = [row for row in TABLES_1_AND_2 if row.finetuning == finetuning]
        for corrupted in (False, True):
            for mode in SEARCHES:
                for place, measure in enumerate(("rank-1", "mAP")):
                    values = {r.pretraining: (r.corrupted if corrupted else r.clean)[mode][place] for r in block}
                    best = max(values, key=lambda name: values[name])
                    if best != "dapg":
                        kind, ours = "corrupted" if corrupted else "clean", values["dapg"]
                        where = f"{finetuning}, {kind}, {mode}, {measure}"
                        beaten.append(f"{where}: {best} {values[best]:.2f}, dapg {ours:.2f}")
    return beaten
