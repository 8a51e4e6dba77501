"""Who is in two rendered sets at once."""

from typing import Any

from dapg.core.types import Record
from dapg.data.sets.synthetic import Synthetic
from dapg.pose.pairs import same_people


class Redressed(Synthetic):
    """The embedded people, of whom one wears something else."""

    def truth(self, record: Record) -> dict[str, Any]:
        """The annotation with another garment for person 2."""
        found = super().truth(record)
        return {**found, "garments": {**found["garments"], "upper": "cape"}} if record.person == 2 else found


def test_equal_numbers_are_the_same_person_only_in_the_same_clothes() -> None:
    assert same_people(Synthetic(), Redressed(), {1, 2, 150, 9999}) == {1, 150}
