"""Run the whole method on the embedded synthetic people and write a page: minutes on two cores."""

from dataclasses import dataclass

from dapg.commands._settings import parse
from dapg.core.ranges import Count, CountOrZero, Seed


@dataclass(frozen=True)
class DemoSettings:
    """The demo."""

    out: str = "outputs/demo"
    """Folder of the demo; finished parts in it are reused."""
    seed: Seed = 0
    """Of weights, order of images and every draw."""
    fast: bool = False
    """Train nothing: score the networks that come with the package."""
    steps: CountOrZero = 0
    """Steps of each training; 0: the demo's."""
    generator: str = "embedded"
    """Of persons in other poses: embedded, a file, or the folder of a finished `dapg pose train`."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    processes: Count = 2
    """Trainings at a time; 1: one after the other, in this process."""


_HELP = """usage: dapg demo [--NAME VALUE ...]

The whole method in minutes: stage 1 on unlabelled synthetic people, persons generated in other poses, stage 2, AGW
fine-tuning from both stages, from ImageNet and from random weights, two at a time, and scores on other persons, clean
and corrupted. The page begins with what this run shows, and has ranked lists of queries that the seed draws, clean and
in fog, and the generated poses; details.html has curves and settings. `dapg serve --demo DIR` searches by its network.

examples:
  dapg demo --out outputs/demo
  dapg demo --fast                   # without training: the package's own networks"""


def main(words: list[str], program: str) -> None:
    """Parse, run, say where the page is."""
    settings = parse(program, DemoSettings(), words, _HELP)

    import time
    from pathlib import Path

    from dapg.core.device import resolve_device
    from dapg.experiment.registration import summary
    from dapg.pipelines.demo import Demo, run_demo

    started = time.monotonic()
    device = str(resolve_device(settings.device))
    demo = Demo(
        Path(settings.out),
        settings.seed,
        settings.steps,
        device,
        settings.generator,
        fast=settings.fast,
        processes=settings.processes,
    )
    page = run_demo(demo, lambda line: print(line, flush=True), summary(Path("results")))
    print(f"\n{page['sentence']}")
    print("One seed cannot tell starts apart; differences have 95 % intervals over test persons.")
    print(f"\nPer cent, higher is better:\n\n{page['table']}")
    print(f"{time.monotonic() - started:.0f} s. Next:")
    print(f"  open {page['page']} in a browser")
    print(f"  dapg serve --demo {settings.out}   a page to search by night images")
