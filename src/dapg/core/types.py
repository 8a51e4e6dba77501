"""The few things that travel between layers and need no tensor: records, protocols and trials."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dapg.core.errors import DataError, UsageError, nearest

JsonObject = dict[str, Any]
"""An object of a JSON or YAML file; who reads it knows what is under each key."""

UNKNOWN = -1
"""Person or camera of a record that has no label."""


class Modality(enum.IntEnum):
    """Kind of light. The values are the stream numbers of the published AGW code: 1 visible, 2 infrared."""

    VISIBLE = 1
    INFRARED = 2

    @classmethod
    def named(cls, modality: "Modality | str") -> "Modality":
        """The modality of a word, ``visible`` or ``infrared``; one that is a modality already stays.

        Raises:
            UsageError: another word.
        """
        known = {member.name.lower(): member for member in cls}
        if isinstance(modality, str) and modality not in known:
            raise UsageError(f"a modality is {' or '.join(known)}, not {modality!r}{nearest(modality, list(known))}")
        return known[modality] if isinstance(modality, str) else modality


def leads_out(path: str) -> bool:
    """Whether a path is absolute, climbs with ``..`` or holds a null character; of Windows too."""
    return (
        path[:1] in ("/", "\\")
        or path[1:3] == ":\\"
        or "\0" in path
        or (".." in path and ".." in path.replace("\\", "/").split("/"))
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data set, not opened yet.

    ``path`` is relative to the data set's root, with forward slashes: it names the file in results, and seeds
    its test corruption. ``box`` is (left, top, right, bottom) in pixels of the stored image; None means all of it.
    """

    path: str
    person: int = UNKNOWN
    camera: int = UNKNOWN
    modality: Modality = Modality.VISIBLE
    box: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        """Whatever a list, an archive or an index says: a path never leads out of the data set's folder.

        Raises:
            DataError: an absolute path, one with ``..``, or a null character in it.
        """
        if leads_out(self.path):
            raise DataError(f"{self.path!r} is no path below the data set's folder")

    @property
    def name(self) -> str:
        """Of this image alone: its path, and its box where it has one, as a file may show several persons."""
        return self.path if self.box is None else f"{self.path}#{','.join(map(str, self.box))}"


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules a ranking is scored by. See docs/reference/protocols.md for each data set's.

    ``same_person_same_camera``: gallery images of the query's person by the query's own camera are left out
    (Market-1501, LLCM). ``camera_groups``: cameras of one group see one place; gallery images of the query's
    group are left out, whatever the person (SYSU-MM01: cameras 2 and 3); cameras not named belong to no group.
    ``junk_persons``: gallery images with these labels are left out for every query (Market-1501: -1).
    ``unique_identity_cmc``: the CMC counts persons, each at its best image, instead of images (SYSU-MM01, LLCM).
    """

    name: str
    same_person_same_camera: bool = False
    camera_groups: Mapping[int, int] = field(default_factory=dict)
    junk_persons: tuple[int, ...] = ()
    unique_identity_cmc: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One random split of the test images into query and gallery set, and the rules it is scored by."""

    name: str
    mode: str
    query: tuple[Record, ...]
    gallery: tuple[Record, ...]
    protocol: Protocol
    comparable: bool = True
    """False where the split is not the published one, so that scores must not be put beside published scores."""
    drawn: str = "fixed lists"
    """Where the split comes from: the random generator and its seed, or the file."""
    cause: Literal["gallery", "partition"] = "gallery"
    """What another trial of the mode would change: the gallery, or the test persons and with them the model."""

    def __post_init__(self) -> None:
        """Half an archive, say, leaves one side without images.

        Raises:
            DataError: names the side.
        """
        for side, records in (("query", self.query), ("gallery", self.gallery)):
            if not records:
                raise DataError(
                    f"{self.name} of mode {self.mode} has no {side} image in this copy; run dapg data verify"
                )
