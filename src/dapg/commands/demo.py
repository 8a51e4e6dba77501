"""Run the whole pipeline on the embedded synthetic people and write a page: minutes on two cores."""

from dataclasses import dataclass

from dapg.commands._settings import parse
from dapg.core.ranges import CountOrZero, Seed


@dataclass(frozen=True)
class DemoSettings:
    """The demo."""

    out: str = "outputs/demo"
    """Folder of the demo; finished parts in it are reused."""
    seed: Seed = 0
    """Of weights, order of pictures and every draw."""
    steps: CountOrZero = 0
    """Steps of each training; 0: the preset's."""
    generator: str = "embedded"
    """Of persons in other poses: embedded, a file, or the folder of a finished `dapg pose train`."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


_HELP = """usage: dapg demo [--NAME VALUE ...]

The whole method at its smallest: stage 1 on unlabelled synthetic people, persons generated in other poses,
stage 2, AGW fine-tuning from both stages, from stage 1 and from random weights, scores on other persons, clean and
corrupted, beside a colour histogram and ImageNet weights, and one page with curves, tables, generated poses and ranked
lists. It shows that the machinery works; its margins say nothing about real data.

example:
  dapg demo --out outputs/demo"""


def main(words: list[str], program: str) -> None:
    """Parse, run, say where the page is."""
    settings = parse(program, DemoSettings(), words, _HELP)

    import time
    from pathlib import Path

    from dapg.core.device import resolve_device
    from dapg.pipelines.demo import Demo, run_demo

    started = time.monotonic()
    device = str(resolve_device(settings.device))
    made = run_demo(Demo(Path(settings.out), settings.seed, settings.steps, device, settings.generator), print)
    print(f"\n{made['table']}\n{time.monotonic() - started:.0f} s. Open {made['page']} in a browser.")
