"""Render synthetic visible-infrared people with exact truth (extra `synth`)."""

from pathlib import Path

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse

_HELP = """usage: dapg data synth --assets KIT [--NAME VALUE ...]

Render people who do not exist in SYSU-MM01's layout (near infrared) or RegDB's (thermal), with boxes, key
points, poses and garments of every image in annotations.jsonl. Needs the kit of CC0 models (--assets) and
pip install 'dapg[synth]'; docs/reference/synthetic.md says where the kit comes from.

examples:
  dapg data synth --persons 300 --assets KIT --out outputs/people
  dapg data synth --persons 100 --style regdb --assets KIT --out outputs/thermal"""


def main(words: list[str], program: str) -> None:
    """Parse, render, say where."""
    from dapg.synth.render import Settings, render_dataset

    settings = parse(program, Settings(out=Path("outputs/people")), words, _HELP)
    folder = render_dataset(settings)
    print(f"written: {folder}")
    name = "synthetic" if settings.style == "sysu" else settings.style
    say_next(("train on them", dapg("finetune", "agw", "--preset", "small", "--data", f"{name}={folder}")))
