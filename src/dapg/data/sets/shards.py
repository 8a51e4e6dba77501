"""A folder of packed images, as ``dapg data shard`` writes it: any data set in a few large files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dapg.core import plugins
from dapg.core.errors import UsageError
from dapg.core.types import Record, Trial
from dapg.data.base import Dataset, example_image
from dapg.data.shards.pack import write_tars
from dapg.data.shards.tar_store import TarStore, write_index


class Shards(Dataset):
    """A folder of tars with an index, as ``dapg data shard`` writes it.

    Splits, modes, title and light are those of the packed set, and so is what it takes unless told otherwise: a default
    of its own would train on test images, or compare two kinds of infrared, without a word.
    """

    title = "packed shards"
    licence = "that of the packed data set, see its index"
    access = "packed from your own copy"
    splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.require()
        self.store = TarStore(self.root)
        meta = self.store.meta
        # Instance values in place of the class's: a packed set has the splits, modes and name it was packed with.
        self.splits = tuple(meta["splits"])  # type: ignore[misc]
        self.modes = tuple(meta["modes"])  # type: ignore[misc]
        self.title = meta["title"]  # type: ignore[misc]
        kinds = (plugins.load("data.sets", name, Dataset) for name in plugins.names("data.sets"))
        packed: type[Dataset] = next((kind for kind in kinds if kind.title == self.title), Dataset)
        self.places = dict(packed.places)  # it must travel to loader workers, which a mappingproxy cannot
        self.infrared = packed.infrared

    def records(self, split: str = "all") -> Sequence[Record]:
        """The records of a packed split, in the order of the original set."""
        self.check_split(split)
        return self.store.records(split)

    def trials(self, mode: str, seed: int = 0) -> list[Trial]:
        """The trials that were packed.

        Raises:
            UsageError: trials of another seed than 0; they are drawn from the original folders only.
        """
        self.check_mode(mode)
        if seed:
            raise UsageError(f"{self.root} holds the trials of seed 0 only; use the original data set for seed {seed}")
        return self.store.trials(mode)

    def labelled_split(self) -> str:
        """That of the packed set, where it was packed."""
        return self.store.meta.get("labelled", self.default_split())

    def fitting_split(self, split: str) -> str:
        """That of the packed set; ``records`` refuses it where it was not packed."""
        return self.store.meta.get("fitting", {}).get(split) or super().fitting_split(split)

    @property
    def version(self) -> str | None:
        """That of the packed set."""
        return self.store.meta.get("data_version")

    def read(self, record: Record) -> bytes:
        """The image's bytes, from the middle of its tar."""
        return self.store.read(record.path)

    @property
    def shard_numbers(self) -> list[int]:
        """For each record of the first split, the tar it lies in: what ``ShardSampler`` needs."""
        return self.store.shard_numbers(self.splits[0])

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """The images that ``write_example`` packs."""
        return {f"{person}/{number}.png": None for person in ("a", "b") for number in (1, 2, 3)}

    @classmethod
    def write_example(cls, root: Path | str) -> None:
        """Two small tars with six images."""
        Path(root).mkdir(parents=True, exist_ok=True)
        write_tars(Path(root), list(cls.example_layout()), example_image, per_shard=4)
        records = [Record(name, ord(name[0]) - ord("a"), int(name[2])) for name in cls.example_layout()]
        write_index(Path(root), {"all": records}, {}, "example")
