"""Describe rendered people in sentences, from what they are known to wear, for pre-training with captions."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_source
from dapg.commands._training import data_option
from dapg.core.words import counted

_HELP = """usage: dapg data caption DATA [--data.split SPLIT] [--out FILE]

Write a sentence for each image of rendered people (`dapg data synth`, or the embedded set): what they wear and what
hair they have. The file has one line an image, path, tab, sentence; write such a file yourself for other images.
`dapg pretrain vtbr` learns from it. Sentences come from the renderer's own annotations: no method without labels sees
as much.

examples:
  dapg data caption synthetic --out captions.tsv
  dapg pretrain vtbr --preset small --method.captions captions.tsv --out outputs/pretrain/vtbr
  dapg data caption synthetic=/path/to/people-1k --data.split train
"""


def main(words: list[str], program: str) -> None:
    """Parse, describe, say where the sentences are."""
    config, words = take_source(words, "DATA", program)

    from pathlib import Path

    from dapg.data.captions import CaptionSettings, captions
    from dapg.data.image_lines import write_lines

    settings = parse(program, CaptionSettings(config), words, _HELP)
    sentences = captions(settings)
    write_lines(Path(settings.out), sentences)
    print(f"{counted(len(sentences), 'image')}, such as: {next(iter(sentences.values()))}")
    print(f"written: {settings.out}")
    train = dapg("pretrain", "vtbr", "--preset", "small", "--method.captions", settings.out)
    say_next(("pre-train with them", train + data_option(settings.data)))
