"""Named features of images beside the records of those images."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from dapg.core.errors import UsageError
from dapg.core.types import Record, Trial
from dapg.scoring.labels import Labels, TrialRows

CENTRED = ", centred per camera"


@dataclass(frozen=True)
class FeatureTable:
    """Features of N images on the CPU; row i of each is that of ``records[i]``.

    Raises:
        UsageError: a feature that does not have one row per record.
    """

    features: Mapping[str, Float[Tensor, "_ _"]]
    records: Sequence[Record]

    def __post_init__(self) -> None:
        """Refuse features that cannot belong to the records."""
        for name, values in self.features.items():
            if len(values) != len(self.records):
                raise UsageError(f"{len(values)} rows of {name!r} cannot belong to {len(self.records)} images")

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.records)

    def __getitem__(self, feature: str) -> Float[Tensor, "N D"]:
        """The rows of one feature.

        Raises:
            UsageError: there is none of that name.
        """
        if feature not in self.features:
            raise UsageError(f"there is no feature {feature!r}; there are {', '.join(self.features)}")
        return self.features[feature]

    @functools.cached_property
    def persons(self) -> Int[Tensor, "N"]:
        """Person on each image."""
        return torch.tensor([record.person for record in self.records], dtype=torch.int64)

    @functools.cached_property
    def cameras(self) -> Int[Tensor, "N"]:
        """Camera of each image."""
        return torch.tensor([record.camera for record in self.records], dtype=torch.int64)

    @functools.cached_property
    def modalities(self) -> Int[Tensor, "N"]:
        """Kind of light of each image, as ``Modality`` numbers them."""
        return torch.tensor([int(record.modality) for record in self.records], dtype=torch.int64)

    @functools.cached_property
    def _row_of(self) -> dict[Record, int]:
        return {record: row for row, record in enumerate(self.records)}

    def rows(self, records: Sequence[Record]) -> Int[Tensor, "M"]:
        """Row numbers of some of the images; KeyError for one that is not in the table."""
        return torch.tensor([self._row_of[record] for record in records], dtype=torch.int64)

    def of(self, records: Sequence[Record]) -> "FeatureTable":
        """The table of some of the images, in the order given."""
        rows = self.rows(records)
        return FeatureTable({name: values[rows] for name, values in self.features.items()}, records)

    def where(self, mask: Bool[Tensor, "N"]) -> "FeatureTable":
        """The table of the images for which ``mask`` is true, for example ``table.cameras == 3``."""
        chosen = [record for record, wanted in zip(self.records, mask.tolist(), strict=True) if wanted]
        return FeatureTable({name: values[mask] for name, values in self.features.items()}, chosen)

    def with_centred(self) -> "FeatureTable":
        """Each feature as it is and, under its name with ``CENTRED`` added, centred per camera over this table.

        No feature is centred where a camera has a single image: that would become exactly zero, and ties decide.
        """
        plain = {name: values for name, values in self.features.items() if not name.endswith(CENTRED)}
        if self.single_image_cameras:
            return FeatureTable(plain, self.records)
        centred = {name + CENTRED: centre_per_camera(values, self.cameras) for name, values in plain.items()}
        return FeatureTable({**plain, **centred}, self.records)

    @functools.cached_property
    def single_image_cameras(self) -> list[int]:
        """Cameras with one image in this table, ascending."""
        return sorted(camera for camera, count in Counter(self.cameras.tolist()).items() if count == 1)

    def notes(self) -> list[str]:
        """What a reader of scores of these features must know, a line each."""
        lines = zero_notes(self.features)
        if self.single_image_cameras:
            cameras = ", ".join(map(str, self.single_image_cameras[:10]))
            lines.append(f"no scores centred per camera: a single test image in camera {cameras}")
        return lines

    def trials(self, trials: Sequence[Trial]) -> list[TrialRows]:
        """Trials as the row numbers that ``scoring`` takes."""
        return [TrialRows(self.rows(trial.query), self.rows(trial.gallery), Labels.of(trial)) for trial in trials]


def centre_per_camera(features: Float[Tensor, "N D"], cameras: Int[Tensor, "N"]) -> Float[Tensor, "N D"]:
    """Take each camera's mean feature away and normalise again: removes colour cast and background shared by a camera.

    It uses the test images (not their persons) of each camera, so scores with it are reported beside raw ones.
    """
    centred = features.clone()
    for camera in sorted(set(cameras.tolist())):
        rows = cameras == camera
        centred[rows] -= features[rows].mean(dim=0)
    # What rounding leaves of equal images is no direction.
    noise = centred.norm(dim=1) < 1e-6 * features.norm(dim=1)
    centred[noise] = 0
    return functional.normalize(centred)


def zero_notes(features: Mapping[str, Float[Tensor, "_ _"]]) -> list[str]:
    """A line for each feature with rows that are exactly zero: their distances to all others tie."""
    counts = {name: int((~values.any(dim=1)).sum()) for name, values in features.items()}
    return [f"{name}: {count} exactly zero, as near to one image as to any" for name, count in counts.items() if count]
