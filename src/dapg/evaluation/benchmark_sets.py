"""Features of the benchmark's test sets: clean, every type at every severity, and mixtures; ours made, others' read.

A folder holds one ``.npz`` file per test set with ``features`` (N, D) and ``paths`` (N), in any order. ``fog-3.npz``
has the visible images, ``fog-3.infrared.npz`` the infrared ones, for protocols that corrupt both. Sides (query,
gallery, both) need no files of their own: they mix clean and corrupted features.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dapg.core.errors import DataError
from dapg.core.files import atomic_path, write_json
from dapg.core.images import decode, from_numpy, to_pil
from dapg.core.progress import progress_bar
from dapg.core.rng import SampleGenerator
from dapg.core.runtime import Runtime
from dapg.core.schema import read_json, wall
from dapg.core.types import Modality, Record
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.evaluation.corrupted_sets import Assignment, CorruptionPolicy, assign, one_thread
from dapg.evaluation.image_cache import ImageCache
from dapg.features.encoders import Encoder
from dapg.features.extract import Unreadable, extract

CLEAN_SET = "clean"
UNREADABLE = "unreadable.json"
"""Beside the features: which images have none because they cannot be read."""
_BLOCK = 64
"""Images corrupted and encoded at a time."""
_MEMORY = 2_000_000_000
"""Bytes of decoded originals that are held; of more, each test set decodes its own."""


@dataclass(frozen=True)
class TestSet:
    """Images of one kind of light under one policy."""

    __test__ = False

    name: str
    """As its file is called."""
    policy: CorruptionPolicy
    repeat: int = 0


def cell_name(kind: str, severity: int) -> str:
    """The test set of one type at one severity."""
    return f"{kind}-{severity}"


def mixture_name(policy: CorruptionPolicy, repeat: int) -> str:
    """The test set in which every image draws its type and severity, or every camera or place does."""
    return f"{ {'picture': 'mixture', 'camera': 'cameras', 'place': 'places'}[policy.weather] }-{repeat}"


def with_infrared(name: str) -> str:
    """The file of the infrared images of a test set."""
    return f"{name}.infrared"


def sets_of(policies: Sequence[CorruptionPolicy], repeats: int) -> list[TestSet]:
    """Test sets that some protocols need, each once; mixtures last."""
    sets: dict[str, TestSet] = {}

    def add(name: str, policy: CorruptionPolicy, repeat: int, grid: bool) -> None:
        lights = {"visible": name, "infrared": with_infrared(name)}
        for light, file in lights.items():
            if policy.modality in (light, "both"):
                weather = "picture" if grid else policy.weather
                parts = {**asdict(policy), "modality": light, "side": "both", "weather": weather}
                sets.setdefault(file, TestSet(file, CorruptionPolicy(**parts), repeat))

    for policy in policies:
        for kind in library.expand(policy.types):
            for severity in policy.severities:
                cell = CorruptionPolicy(**{**asdict(policy), "types": (kind,), "severities": (severity,)})
                add(cell_name(kind, severity), cell, 0, grid=True)
    for policy in policies:
        for repeat in range(repeats):
            add(mixture_name(policy, repeat), policy, repeat, grid=False)
    return list(sets.values())


@dataclass(frozen=True)
class FeatureFolder:
    """Where features are."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether a test set is there."""
        return self._file(name).is_file()

    def write(self, name: str, records: Sequence[Record], features: Float[Tensor, "N D"]) -> None:
        """Store a test set."""
        with atomic_path(self._file(name)) as temporary, temporary.open("wb") as handle:
            np.savez(handle, features=features.numpy(), paths=np.array([record.name for record in records]))

    def read(self, name: str, records: Sequence[Record]) -> Float[Tensor, "N D"]:
        """Unit features of some images, in their order.

        Raises:
            DataError: no such file, an image that is not in it, or numbers that are no features.
        """
        file = self._file(name)
        features, paths = self._arrays(name)
        if features.ndim != 2 or paths.ndim != 1 or len(features) != len(paths) or features.dtype.kind != "f":
            raise DataError(f"{file}: {features.dtype} features of shape {features.shape} for {paths.size} paths")
        rows = {path: row for row, path in enumerate(paths.tolist())}
        wanted = [record.name for record in records]
        absent = [path for path in wanted if path not in rows]
        if absent:
            raise DataError(f"{file} has no features of {len(absent)} of {len(wanted)} images, such as {absent[0]}")
        values = torch.from_numpy(features[[rows[path] for path in wanted]].astype(np.float32))
        if not bool(values.isfinite().all()):
            raise DataError(f"{file} holds a NaN or infinite number")
        return torch.nn.functional.normalize(values)

    def note_unreadable(self, unreadable: Unreadable) -> None:
        """Keep which images cannot be read, and why: no file of features has them."""
        write_json(self.path / UNREADABLE, unreadable)

    def unreadable(self) -> Unreadable:
        """Name -> why, of images that have no features because they cannot be read."""
        path = self.path / UNREADABLE
        return read_json(path, dict[str, str]) if path.exists() else {}

    def digest(self, names: Sequence[str]) -> str:
        """Hash of the content of some files: what a result was made from.

        Raises:
            DataError: a file is missing or damaged.
        """
        total = hashlib.sha256()
        for name in sorted(names):
            features, paths = self._arrays(name)
            for key, array in (("paths", paths), ("features", features)):
                total.update(f"{name}/{key}".encode())
                total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    def _arrays(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """The two arrays of a file; others beside them are not read."""
        file, remedy = self._file(name), "make its arrays `features` and `paths` anew"
        with wall(file, remedy), np.load(file, allow_pickle=False) as stored:
            return stored["features"], stored["paths"]

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npz"


def damaged_by(test_set: TestSet, dataset: Dataset, records: Sequence[Record]) -> list[tuple[Record, Assignment]]:
    """Images that a test set damages, and what happens to them."""
    repeat, places = test_set.repeat, dataset.places
    assigned = [(record, assign(test_set.policy, dataset.title, record, repeat, places)) for record in records]
    return [(record, assignment) for record, assignment in assigned if assignment.name != library.NONE]


@dataclass(frozen=True)
class Maker:
    """Makes features of test sets and keeps them in a folder; what is there already stays."""

    encoder: Encoder
    feature: str
    dataset: Dataset
    records: Sequence[Record]
    runtime: Runtime
    cache: ImageCache
    skip: bool = False
    """Whether images that cannot be read are left out and noted in the folder; else they are an error."""

    def make(self, sets: Sequence[TestSet], folder: FeatureFolder) -> None:
        """Encode what is not there yet.

        Raises:
            DataError: an image cannot be read, or is too small.
        """
        if not folder.has(CLEAN_SET):
            unreadable: Unreadable | None = {} if self.skip else None
            clean = extract(self.encoder, self.dataset, self.records, self.runtime, unreadable)
            folder.note_unreadable(unreadable or {})
            folder.write(CLEAN_SET, clean.records, clean[self.feature])
        missing_images = folder.unreadable()
        readable = [record for record in self.records if record.name not in missing_images]
        damaging = [test_set for test_set in sets if damaged_by(test_set, self.dataset, readable)]
        missing = [test_set for test_set in damaging if not folder.has(test_set.name)]
        if not missing:
            return
        work = _Blocks(self.dataset, missing, readable, self.encoder.input_size, self.cache)
        workers = self.runtime.workers
        blocks = DataLoader(work, batch_size=None, shuffle=False, num_workers=workers)
        done = len(damaging) - len(missing)
        with progress_bar("test sets", "set", len(damaging), done, shown=self.runtime.progress) as bar:
            for number, images in _by_set(work, iter(blocks)):
                records = [record for record, _ in work.damaged[number]]
                folder.write(missing[number].name, records, self._encode(images, records))
                bar.update()

    @torch.no_grad()
    def _encode(self, blocks: Iterator[UInt8[Tensor, "b 3 h w"]], records: Sequence[Record]) -> Float[Tensor, "N D"]:
        """Features of one test set: all of its images are of one kind of light."""
        light = records[0].modality
        return torch.cat([self.encoder.encode(images, light)[self.feature].float().cpu() for images in blocks])


def _by_set(
    work: "_Blocks", blocks: Iterator[UInt8[Tensor, "b 3 h w"]]
) -> Iterator[tuple[int, Iterator[UInt8[Tensor, "b 3 h w"]]]]:
    """The blocks of each set in turn; a set that is new is also put into the cache once it has gone through."""
    for number, count in enumerate(work.counts):
        seen: list[UInt8[np.ndarray, "b 3 h w"]] = []
        fresh = not work.is_cached(number)

        def pass_on(count: int = count, fresh: bool = fresh, seen: list[np.ndarray] = seen) -> Iterator[Tensor]:
            for _ in range(count):
                images = next(blocks)
                if fresh:
                    seen.append(images.numpy())
                yield images

        yield number, pass_on()
        if seen:
            work.cache.put(work.files[number], np.concatenate(seen))


class _Blocks(TorchDataset[Tensor]):
    """Corrupted images of several test sets, as the network sees them, block by block."""

    def __init__(
        self,
        dataset: Dataset,
        sets: Sequence[TestSet],
        records: Sequence[Record],
        size: tuple[int, int],
        cache: ImageCache,
    ) -> None:
        self.dataset, self.sets, self.size, self.cache = dataset, sets, size, cache
        self.damaged = [damaged_by(test_set, dataset, records) for test_set in sets]
        self.counts = [-(-len(damaged) // _BLOCK) for damaged in self.damaged]
        self._places = [(number, block) for number, count in enumerate(self.counts) for block in range(count)]
        everyone = list(dict.fromkeys(record for damaged in self.damaged for record, _ in damaged))
        policy = sets[0].policy
        self._stored = (policy.height, policy.width)
        content = hashlib.sha256()
        for record in everyone:
            content.update(dataset.read(record))
        held = len(everyone) * 3 * policy.height * policy.width <= _MEMORY
        self._originals: dict[Record, UInt8[Tensor, "3 H W"]] | None = {} if held else None
        self.files = [cache.path(self._described(number, content.hexdigest())) for number in range(len(sets))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> UInt8[Tensor, "b 3 h w"]:
        number, block = self._places[index]
        rows = slice(block * _BLOCK, (block + 1) * _BLOCK)
        stored = self.cache.get(self.files[number])
        if stored is not None:
            return torch.from_numpy(np.array(stored[rows]))
        return self._corrupted(self.damaged[number][rows])

    def is_cached(self, number: int) -> bool:
        """Whether the images of a set are in the cache already."""
        return self.files[number].exists()

    def _corrupted(self, damaged: Sequence[tuple[Record, Assignment]]) -> UInt8[Tensor, "b 3 h w"]:
        """Corrupt together: each image depends on its own stream alone, to the last bit; then shrink."""
        originals = torch.stack([self._original(record) for record, _ in damaged])
        levels = torch.tensor([what.severity for _, what in damaged])
        equal = damaged[0][0].modality == Modality.INFRARED
        with one_thread():
            streams = SampleGenerator(torch.tensor([what.seed for _, what in damaged]))
            names = [what.name for _, what in damaged]
            images = library.corrupt(originals, names, levels, streams, equal_channels=equal)
        height, width = self.size
        if self.size == self._stored:
            return images
        shrunk = (to_pil(image).resize((width, height), Image.Resampling.BILINEAR) for image in images)
        return torch.stack([from_numpy(np.asarray(image)) for image in shrunk])

    def _original(self, record: Record) -> UInt8[Tensor, "3 H W"]:
        if self._originals is None:
            return self._decode(record)
        if record not in self._originals:
            self._originals[record] = self._decode(record)
        return self._originals[record]

    def _decode(self, record: Record) -> UInt8[Tensor, "3 H W"]:
        return decode(self.dataset.read(record), self._stored, record.box, record.path)

    def _described(self, number: int, content: str) -> dict[str, object]:
        images = [[record.name, what.name, what.severity, what.seed] for record, what in self.damaged[number]]
        return {
            "content": content,
            "images": images,
            "sizes": [self._stored, self.size],
            "light": self.sets[number].policy.modality,
        }
