"""Pre-train every cell of an ablation of stage 1, at several seeds."""

from dataclasses import dataclass

from dapg.commands._settings import parse, take_option, take_positional, wants_help

_HELP = """usage: dapg sweep NAME [--preset tiny] [--seeds [0,1,2]] [--out FOLDER] [--device D]

Pre-train every cell of an ablation: FOLDER/NAME/CELL-seedS. Finished cells are reused, killed ones go on. The cells are
in dapg/pipelines/sweep.py: temperature, alpha, js, severity, family, reading, beyond.

examples:
  dapg sweep temperature --preset tiny
  dapg sweep family --seeds [0] --out outputs/ablations
"""


@dataclass(frozen=True)
class SweepSettings:
    """How often, and where to."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """One training each."""
    out: str = "outputs/sweeps"
    """Folder of all sweeps."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def main(words: list[str], program: str) -> None:
    """Parse, train cell by cell, and say where the runs are."""
    if wants_help(words):
        print(_HELP, end="")
        return
    name, words = take_positional(words, "NAME", None, program)
    preset, words = take_option(words, "--preset", "tiny")
    settings = parse(program, SweepSettings(), words, _HELP)

    from dataclasses import replace
    from pathlib import Path

    from dapg.core import distributed
    from dapg.pipelines.sweep import sweep
    from dapg.train.pretrain import pretrain

    for cell, recipe in sweep(name, preset).items():
        for seed in settings.seeds:
            out = Path(settings.out) / name / f"{cell}-seed{seed}"
            result = pretrain(replace(recipe, seed=seed, out=str(out), device=settings.device))
            if distributed.rank() == 0:
                print(f"{out}: loss {result['logs'].get('loss', float('nan')):.3f}", flush=True)
