"""Write a corrupted copy of a data set with a manifest, or a sheet of what corruptions do to an image."""

from pathlib import Path

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_option, take_source
from dapg.core.words import counted

_HELP = """usage: dapg corrupt SOURCE --out FOLDER [--list LIST | --corruption POLICY] [--split test]
       dapg corrupt --list LIST
       dapg corrupt --sheet IMAGE [--out FILE]
       dapg corrupt --chain IMAGE [--out FILE]

Write a copy of a data set's images with the corruptions of a policy: cil (visible images only, one of 20 types,
severity 1 to 5: the protocol of CIL and of the paper), mlmda-C*, seen, unseen, noise, blur, weather, digital, one type
(fog) or one type at one severity (fog-3). What happens to an image is a function of data set, path, repeat and seed.
An interrupted copy goes on where it stopped.

--list vi-c-1.0 is the fixed list of types, constants, severities, seeds and sides; vi-c-1.0/both is one of its
protocols (visible or both; files know no sides). Without SOURCE the list is printed, with the rule of every random
number, so that other programs can make the same images.

--sheet draws every type at every severity, --chain some draws of pre-training's noise chain (the paper's Fig. 3).

examples:
  dapg corrupt sysu=/data/SYSU-MM01 --split test --list vi-c-1.0 --out /data/SYSU-MM01-C
  dapg corrupt /path/to/images --corruption fog-3 --split all --out outputs/foggy
  dapg corrupt /path/to/images --corruption cil --corruption.modality both --out outputs/both
  dapg corrupt --sheet person.jpg --types [noise,rain] --out sheet.png
"""


def main(words: list[str], program: str) -> None:
    """Parse, write, print counts."""
    for kind in ("sheet", "chain"):
        image, words = take_option(words, f"--{kind}", "")
        if image:
            _sheet(kind, Path(image), words, program)
            return
    fixed, words = take_option(words, "--list", "")
    if fixed and not words:
        from dapg.evaluation.corruption_list import text

        print(text(fixed.partition("/")[0]), end="")
        return
    config, words = take_source(words, "SOURCE", program)
    if fixed:
        words = ["--corruption", fixed, *words]

    from dapg.data.source import open_dataset
    from dapg.evaluation.corrupted_sets import CopySettings, write_copy

    settings = parse(program, CopySettings(), words, _HELP)
    dataset = open_dataset(config)
    records = dataset.records(settings.split)
    counts = write_copy(
        dataset, records, settings.corruption, settings.out, settings.repeat, settings.engine, settings.on_bad_image
    )
    there = f", {counts['kept']:,} were there already" if counts["kept"] else ""
    print(f"{counted(counts['written'], 'image')} written{there}; images by corruption:")
    for name, count in counts["corruptions"].items():
        print(f"  {name:20} {count:>9,}")
    print(f"written: {settings.out}")
    say_next(("score a model on it", dapg("evaluate", "MODEL", "--data", f"{config.name}={settings.out}")))


def _sheet(kind: str, image: Path, words: list[str], program: str) -> None:
    from dapg.evaluation.corruption_sheets import ChainSheetSettings, SheetSettings, write_sheet

    defaults = SheetSettings() if kind == "sheet" else ChainSheetSettings()
    settings = parse(f"{program} --{kind} {image}", defaults, words, _HELP)
    write_sheet(image, settings)
    print(f"written: {settings.out}")
