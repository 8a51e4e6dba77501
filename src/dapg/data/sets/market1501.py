"""Market-1501 (Zheng et al., ICCV 2015): 1,501 persons by six visible cameras, with distractors and junk.

Facts and rules: docs/reference/datasets.md and docs/reference/protocols.md.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dapg.core.errors import DataError
from dapg.core.types import UNKNOWN, Modality, Protocol, Record, Trial
from dapg.data.base import Dataset
from dapg.data.listing import images_in
from dapg.data.verify import Finding, expect

JUNK, DISTRACTOR = -1, 0
"""Labels in file names: junk (bad detections) is left out everywhere; distractors stay in the gallery as nobody's."""
PROTOCOL = Protocol("market-1501", same_person_same_camera=True, junk_persons=(JUNK,))
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PUBLISHED = {"train": (12_936, 751), "query": (3_368, 750), "gallery": (19_732, 751)}
"""Split -> (images, persons); persons of the gallery: the 750 of the queries and the distractors' label 0."""
GALLERY_WITHOUT_JUNK = 15_913
_NAME = re.compile(r"(-?\d+)_c(\d)s\d+_\d+_\d+")
_ROOT_NAMES = ("Market-1501-v15.09.15", "Market-1501", "market1501")


class Market1501(Dataset):
    """``bounding_box_train/0002_c1s1_000451_03.jpg``, ``query/...`` and ``bounding_box_test/...``.

    Splits: ``train`` (12,936), ``query``, ``gallery`` (with junk), and ``all``, the 32,668 of train and gallery that
    papers quote, which holds the test gallery and so must not precede a test on Market-1501 itself.

    Mode ``standard``: every query against the gallery without junk.
    """

    title = "Market-1501"
    licence = "research use only"
    access = "https://zheng-lab-anu.github.io/Project/project_reid.html (the links move; many mirrors exist)"
    published_persons = True
    splits: ClassVar[tuple[str, ...]] = ("train", "all", "query", "gallery")
    modes: ClassVar[tuple[str, ...]] = ("standard",)

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        for name in _ROOT_NAMES:
            if not (self.root / FOLDERS["train"]).is_dir() and (self.root / name / FOLDERS["train"]).is_dir():
                self.root = self.root / name
        self.require(*FOLDERS.values())

    def records(self, split: str = "train") -> list[Record]:
        """In order of file name; ``all`` is train, then gallery."""
        self.check_split(split)
        return [*self._folder("train"), *self._folder("gallery")] if split == "all" else list(self._folder(split))

    def trials(self, mode: str = "standard", seed: int = 0) -> list[Trial]:
        """The one fixed trial; ``seed`` changes nothing."""
        self.check_mode(mode)
        gallery = tuple(record for record in self._folder("gallery") if record.person != JUNK)
        query = tuple(self._folder("query"))
        comparable = (len(query), len(gallery)) == (PUBLISHED["query"][0], GALLERY_WITHOUT_JUNK)
        return [Trial("standard", mode, query, gallery, PROTOCOL, comparable)]

    @functools.cache  # noqa: B019  (a data set lives as long as the program)
    def _folder(self, split: str) -> list[Record]:
        records = []
        folder = self.root / FOLDERS[split]
        for name in images_in(folder):
            match = _NAME.match(name)
            if match is None:
                raise DataError(
                    f"{folder / name}: names are like 0002_c1s1_000451_03.jpg (person, camera, sequence, frame, box)"
                )
            person = max(int(match[1]), UNKNOWN)
            records.append(Record(f"{FOLDERS[split]}/{name}", person, int(match[2]), Modality.VISIBLE))
        if not records:
            raise DataError(f"{self.title}: there is no image in {folder}. See docs/reference/datasets.md.")
        return records

    def disjoint_splits(self) -> Sequence[tuple[str, str]]:
        """Train shares nobody with query and gallery."""
        return (("train", "query"), ("train", "gallery"))

    def audit(self) -> Iterator[Finding]:
        """Compare with the published counts."""
        for split, (images, persons) in PUBLISHED.items():
            records = self._folder(split)
            yield from expect([(FOLDERS[split], len(records), images)], "pictures")
            present = len({record.person for record in records} - {JUNK})
            yield from expect([(FOLDERS[split], present, persons)], "persons")
        counted = sum(record.person != JUNK for record in self._folder("gallery"))
        yield from expect([(FOLDERS["gallery"], counted, GALLERY_WITHOUT_JUNK)], "images that are not junk")
        absent = {record.person for record in self._folder("query")} - {r.person for r in self._folder("gallery")}
        for person in sorted(absent):
            yield Finding("missing", FOLDERS["gallery"], f"query person {person} has no image here")

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """Two training persons, two query persons, a distractor and a junk image."""
        names = {
            "bounding_box_train": [
                f"{person:04d}_c{camera}s1_00045{camera}_03" for person in (2, 7) for camera in (1, 2)
            ],
            "query": [f"{person:04d}_c1s1_001051_00" for person in (1, 3)],
            "bounding_box_test": [
                *(f"{person:04d}_c{camera}s1_00105{camera}_02" for person in (1, 3) for camera in (1, 4)),
                "0000_c2s1_000301_01",
                "-1_c3s1_000401_01",
            ],
        }
        return {f"{folder}/{name}.jpg": None for folder, entries in names.items() for name in entries}
