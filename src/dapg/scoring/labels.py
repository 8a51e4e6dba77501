"""Who is on the images of a query and a gallery set, which cameras took them, and by which rules they are scored."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.types import Protocol, Trial

PLAIN = Protocol("plain")
"""Nothing is left out, and the CMC counts images."""


@dataclass(frozen=True, init=False)
class Labels:
    """Everything beside features that scoring and ranking need, as int64 arrays. A negative person matches nobody."""

    query_persons: Int[np.ndarray, "Q"]
    gallery_persons: Int[np.ndarray, "G"]
    query_cameras: Int[np.ndarray, "Q"] | None
    """None only where the protocol leaves nothing out by camera."""
    gallery_cameras: Int[np.ndarray, "G"] | None
    protocol: Protocol

    def __init__(
        self,
        query_persons: ArrayLike,
        gallery_persons: ArrayLike,
        query_cameras: ArrayLike | None = None,
        gallery_cameras: ArrayLike | None = None,
        protocol: Protocol = PLAIN,
    ) -> None:
        """Take lists, NumPy arrays or torch tensors (on the CPU) of whole numbers.

        Raises:
            UsageError: the protocol leaves images out by camera, and there are no cameras.
        """
        by_camera = protocol.same_person_same_camera or bool(protocol.camera_groups)
        if by_camera and (query_cameras is None or gallery_cameras is None):
            raise UsageError(f"protocol {protocol.name!r} leaves images out by camera: give query and gallery cameras")
        columns = {
            "query_persons": query_persons,
            "gallery_persons": gallery_persons,
            "query_cameras": query_cameras,
            "gallery_cameras": gallery_cameras,
        }
        for name, values in columns.items():
            object.__setattr__(self, name, None if values is None else np.asarray(values, dtype=np.int64))
        object.__setattr__(self, "protocol", protocol)

    @classmethod
    def of(cls, trial: Trial) -> "Labels":
        """Those of a trial's records."""
        return cls(
            [record.person for record in trial.query],
            [record.person for record in trial.gallery],
            [record.camera for record in trial.query],
            [record.camera for record in trial.gallery],
            trial.protocol,
        )

    def left_out(self, query: int) -> Bool[np.ndarray, "G"]:
        """True for the gallery images that the rules leave out of one query's ranking (see ``core.types.Protocol``)."""
        rules = self.protocol
        removed = np.isin(self.gallery_persons, rules.junk_persons)
        if self.query_cameras is None or self.gallery_cameras is None:
            return removed
        camera = int(self.query_cameras[query])
        if rules.same_person_same_camera:
            removed |= (self.gallery_persons == self.query_persons[query]) & (self.gallery_cameras == camera)
        if camera in rules.camera_groups:
            group = rules.camera_groups[camera]
            removed |= np.isin(
                self.gallery_cameras, [other for other, number in rules.camera_groups.items() if number == group]
            )
        return removed


@dataclass(frozen=True)
class TrialRows:
    """One query and one gallery set as row numbers of a table of features, and who is on them."""

    query: Int[Tensor, "Q"]
    gallery: Int[Tensor, "G"]
    labels: Labels
