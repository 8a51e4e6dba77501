"""Pack a data set into webdataset tars with an index: streamed in order, or read at random."""

from dataclasses import dataclass

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_source
from dapg.core.engines.base import EngineSettings
from dapg.core.ranges import Count
from dapg.core.words import counted

_HELP = """usage: dapg data shard SOURCE --out FOLDER [--splits [train,...]] [--per_shard N]

Pack splits of a data set, and its trials, into tars of about N images. Training reads them with --data shards=FOLDER.

examples:
  dapg data shard luperson=/data/LUPerson --out /fast/luperson --per_shard 10000 --workers 8
  dapg data shard synthetic --out outputs/shards
"""


@dataclass(frozen=True)
class ShardSettings:
    """What to pack, and where to."""

    out: str = "outputs/shards"
    """New folder for the tars."""
    splits: tuple[str, ...] = ()
    """Splits to pack; none: all that this copy has."""
    per_shard: Count = 10_000
    """Images per tar."""
    engine: EngineSettings = EngineSettings()
    """Who does the work."""


def main(words: list[str], program: str) -> None:
    """Parse, pack, print counts."""
    config, words = take_source(words, "SOURCE", program)
    settings = parse(program, ShardSettings(), words, _HELP)

    from dapg.data.shards.pack import pack
    from dapg.data.source import open_dataset

    written = pack(open_dataset(config), settings.out, settings.splits, settings.per_shard, settings.engine)
    print(", ".join(counted(count, name.removesuffix("s")) for name, count in written.items()))
    print(f"written: {settings.out}")
    say_next(("train from it", dapg("pretrain", "dapg", "--preset", "small", "--data", f"shards={settings.out}")))
