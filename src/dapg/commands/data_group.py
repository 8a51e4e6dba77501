"""Put images without labels into pseudo-persons, by tracks or clusters, for methods that take noisy labels."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_source
from dapg.commands._training import data_option

_HELP = """usage: dapg data group DATA [--by tracks|histogram|imagenet|MODEL] [--groups N] [--NAME VALUE ...]

Say which images are likely to show one person: those of one track (a folder that `dapg data crop` made), or those
whose features fall into one of N clusters. MODEL is a finished run or a weights file. The file has one line an image,
path, tab, number. Such labels are noisy; `dapg pretrain pnl` is made for them.

examples:
  dapg data group /path/to/images --groups 500 --out groups.tsv
  dapg pretrain pnl --data /path/to/images --method.groups groups.tsv --out outputs/pretrain/pnl
  dapg data group outputs/crops --by tracks --out tracks.tsv
  dapg data group synthetic --by imagenet --backbone mobilenet_v2 --groups 200
"""


def main(words: list[str], program: str) -> None:
    """Parse, group, say how many groups came out."""
    config, words = take_source(words, "DATA", program)

    from pathlib import Path

    from dapg.data.image_lines import write_lines
    from dapg.features.extract import left_out
    from dapg.features.pseudo_persons import GroupSettings, describe, group

    settings = parse(program, GroupSettings(config), words, _HELP)
    unreadable: dict[str, str] = {}
    groups = group(settings, unreadable)
    write_lines(Path(settings.out), groups)
    print(describe(groups))
    for note in left_out(unreadable, ""):
        print(note)
    print(f"written: {settings.out}")
    train = dapg("pretrain", "pnl", "--preset", "small", "--method.groups", settings.out)
    say_next(("pre-train with them", train + data_option(settings.data)))
