"""Are our corruptions the published ones (imagecorruptions; albumentations for rain)? Statistics of many draws.

    python benchmarks/corruption_parity.py --environment FOLDER [--draws 200] [--keep FOLDER] [--out parity.md]

With ``--keep`` the statistics of each corruption and severity are kept there, and a run that was stopped goes on.

Both corrupt the same five images, a ramp and a spot at five severities. For each statistic the difference of the two
means is divided by its standard error: values beyond 3 should be rare (0.3 %) if both draw from one distribution.
Angles and displacements are compared as distributions (Kolmogorov and Smirnov). Corruptions without randomness are
compared by the largest difference.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from picture_statistics import NAMES
from reference_environment import Worker, reference_python

RANDOM = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
    "speckle_noise",
    "spatter",
    "rain",
)
FIXED = (
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
)


@dataclass(frozen=True)
class Sides:
    """The two worker processes, and where their statistics are kept."""

    ours: Worker
    theirs: Worker
    folder: Path

    def statistics(self, name: str, severity: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
        """(sources, draws, statistics) of both sides, made at the same time, or as they were kept."""
        found = []
        for side, worker in (("ours", self.ours), ("theirs", self.theirs)):
            path = self.folder / f"{name}-{severity}-{draws}-{side}.npy"
            found.append(path)
            if not path.exists():
                made = str(path.with_suffix(".part.npy"))
                worker.ask(do="describe", name=name, severity=severity, draws=draws, seed=severity, out=made)
        for path, worker in zip(found, (self.ours, self.theirs), strict=True):
            if not path.exists():
                worker.answer()
                path.with_suffix(".part.npy").rename(path)
        return np.load(found[0]), np.load(found[1])


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest gap of two empirical distribution functions over its 1 % bound; above 1 they differ."""
    both = np.sort(np.concatenate([ours, theirs]))
    gap = np.abs(
        np.searchsorted(np.sort(ours), both, side="right") / len(ours)
        - np.searchsorted(np.sort(theirs), both, side="right") / len(theirs)
    ).max()
    return float(gap / (1.63 * np.sqrt(1 / len(ours) + 1 / len(theirs))))


def compare_random(name: str, draws: int, sides: Sides) -> list[str]:
    """A row of the table: worst differences over severities and images."""
    scores: dict[str, list[float]] = {statistic: [] for statistic in NAMES}
    relative: list[float] = []
    distributions: list[float] = []
    for severity in range(1, 6):
        mine, other = sides.statistics(name, severity, draws)
        for source in range(5):
            for number, statistic in enumerate(NAMES):
                a, b = mine[source, :, number], other[source, :, number]
                if np.isnan(a).any() or np.isnan(b).any() or statistic in ("angle", "displacement"):
                    continue
                error = np.sqrt(a.var(ddof=1) / draws + b.var(ddof=1) / draws)
                gap = a.mean() - b.mean()
                scores[statistic].append(float(gap / max(error, 1e-3)))
                if statistic == "mean":
                    relative.append(float(gap))
        # Angles of motion from the spot, displacements from the ramp, both behind the five images; of snow anywhere.
        for source, number in ((-1, 5), (-1, 6)):
            a, b = mine[source, :, number], other[source, :, number]
            if not (np.isnan(a).any() or np.isnan(b).any()):
                distributions.append(distance(a, b))
    beyond = [value for values in scores.values() for value in values]
    row = [name]
    for statistic in ("mean", "deviation", "psnr", "spectrum slope", "channel correlation", "roughness"):
        values = scores[statistic]
        row.append(f"{max(values, key=abs):+.1f}" if values else "-")
    row.append(f"{max(relative, key=abs):+.2f}")
    row.append(f"{100 * np.mean(np.abs(beyond) > 3):.1f} %")
    row.append(f"{max(distributions):.2f}" if distributions else "-")
    return row


def compare_fixed(name: str, sides: Sides) -> list[str]:
    """A row of the second table: largest differences of mean, deviation and PSNR."""
    worst = np.zeros(len(NAMES))
    for severity in range(1, 6):
        mine, other = sides.statistics(name, severity, 1)
        worst = np.fmax(worst, np.abs(mine - other)[:5].max(axis=(0, 1)))
    return [name, *(f"{worst[NAMES.index(s)]:.3f}" for s in ("mean", "deviation", "psnr", "roughness"))]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main() -> None:
    """Compare all, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True, help="folder of the reference's environment")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--keep", type=Path, default=None, help="folder of finished statistics")
    parser.add_argument("--only", nargs="*", default=None, help="names of corruptions")
    parser.add_argument("--out", type=Path, default=None, help="write the tables here as well")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    theirs = Worker(reference_python(options.environment), "imagecorruptions_worker.py")
    sides = Sides(Worker(sys.executable, "dapg_worker.py"), theirs, folder)
    chosen = options.only or [*FIXED, *RANDOM]
    random_rows, fixed_rows = [], []
    for name in chosen:
        if name in RANDOM:
            random_rows.append(compare_random(name, options.draws, sides))
            print(random_rows[-1], flush=True)
        else:
            fixed_rows.append(compare_fixed(name, sides))
            print(fixed_rows[-1], flush=True)
    head = ["corruption", "mean", "deviation", "PSNR", "slope", "channels", "roughness"]
    text = f"{options.draws} draws, 5 severities, 5 images of 256 x 128; worst difference in standard errors.\n\n"
    text += table([*head, "mean, levels", "beyond 3", "distribution"], random_rows)
    text += "\n\nWithout randomness: largest difference.\n\n"
    text += table(["corruption", "mean", "deviation", "PSNR, dB", "roughness"], fixed_rows) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    for worker in (sides.ours, sides.theirs):
        worker.close()


if __name__ == "__main__":
    main()
