"""Who is on the pictures of a query and a gallery set, which cameras took them, and by which rules they are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.types import Protocol, Record, Trial


@dataclass(frozen=True)
class Labels:
    """Everything beside features that scoring and ranking need. A negative person matches nobody."""

    query_persons: Int[Tensor, "Q"]
    gallery_persons: Int[Tensor, "G"]
    query_cameras: Int[Tensor, "Q"] | None
    """None only where the protocol leaves nothing out by camera."""
    gallery_cameras: Int[Tensor, "G"] | None
    protocol: Protocol

    def __post_init__(self) -> None:
        """Refuse missing cameras.

        Raises:
            UsageError: the protocol leaves pictures out by camera, and there are no cameras.
        """
        by_camera = self.protocol.same_person_same_camera or bool(self.protocol.camera_groups)
        if by_camera and (self.query_cameras is None or self.gallery_cameras is None):
            raise UsageError(
                f"protocol {self.protocol.name!r} leaves pictures out by camera: give query and gallery cameras"
            )

    @classmethod
    def of(cls, trial: Trial) -> "Labels":
        """Those of a trial's records."""

        def column(name: str, records: Sequence[Record]) -> Tensor:
            return torch.tensor([getattr(record, name) for record in records], dtype=torch.int64)

        return cls(
            column("person", trial.query),
            column("person", trial.gallery),
            column("camera", trial.query),
            column("camera", trial.gallery),
            trial.protocol,
        )

    def of_queries(self, rows: slice) -> "Labels":
        """The same gallery, some of the queries."""
        cameras = None if self.query_cameras is None else self.query_cameras[rows]
        return Labels(self.query_persons[rows], self.gallery_persons, cameras, self.gallery_cameras, self.protocol)

    def to(self, device: torch.device) -> "Labels":
        """The same labels on another device."""
        persons = self.query_persons.to(device), self.gallery_persons.to(device)
        cameras = (
            None if self.query_cameras is None else self.query_cameras.to(device),
            None if self.gallery_cameras is None else self.gallery_cameras.to(device),
        )
        return Labels(*persons, *cameras, self.protocol)


def row_numbers(rows: Mapping[Record, int], records: Sequence[Record]) -> Int[Tensor, "N"]:
    """Where the records stand in a table of features that ``rows`` describes."""
    return torch.tensor([rows[record] for record in records], dtype=torch.int64)
