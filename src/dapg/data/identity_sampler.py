"""For methods that need several images of a person in both lights in a batch: P persons x (K + K) images.

Like the samplers of ``samplers.py`` a batch is a pure function of seed and step: resuming is a number, and the parts
that ``LocalBatches`` hands to processes hold whole persons, because a batch goes person by person.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch

from dapg.core.errors import UsageError
from dapg.core.rng import generator_from
from dapg.core.types import UNKNOWN, Modality, Record


class CrossModalSampler:
    """``persons`` persons x (``images`` visible + ``images`` infrared): the sampler of AGW, CAJ and CIL.

    Persons, among those seen in both lights, are drawn without replacement within a batch and images *with*
    replacement, also where there are enough (mangye16/Cross-Modal-Re-ID-baseline, utils.IdentitySampler; its random
    numbers are NumPy's global ones and are not reproduced). A batch holds person by person the visible, then the
    infrared images. AGW's sizes are 8 x (4 + 4).
    """

    whole_persons = True
    """Losses count on each person's images in each light: the loader puts nobody else in a place."""

    def __init__(self, records: Sequence[Record], persons: int = 8, images: int = 4, seed: int = 0) -> None:
        """Group the records by person and modality.

        Raises:
            UsageError: fewer persons with both modalities than a batch holds.
        """
        self.persons, self.images, self.seed = persons, images, seed
        self.batch_size = 2 * persons * images
        visible, infrared = (_by_person(records, modality) for modality in Modality)
        self._groups = [(visible[person], infrared[person]) for person in visible if person in infrared]
        self._numbers = max(sum(map(len, visible.values())), sum(map(len, infrared.values())))
        if len(self._groups) < persons:
            raise UsageError(
                f"a batch of {persons} persons needs as many persons with visible and infrared images; "
                f"there are {len(self._groups)}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """AGW's epoch: floor(N / PK) + 1 batches, N the images of the larger modality (SYSU-MM01: 696)."""
        return self._numbers // (self.persons * self.images) + 1

    def batch(self, step: int) -> list[int]:
        """Numbers of the images of step ``step``."""
        generator = generator_from("cross-modal", self.seed, step)
        chosen = torch.randperm(len(self._groups), generator=generator)[: self.persons].tolist()
        batch: list[int] = []
        for person in chosen:
            for numbers in self._groups[person]:
                places = torch.randint(len(numbers), (self.images,), generator=generator).tolist()
                batch += [numbers[place] for place in places]
        return batch


def _by_person(records: Sequence[Record], modality: Modality) -> dict[int, list[int]]:
    """Person -> numbers of the records, persons ascending."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        if record.person > UNKNOWN and record.modality == modality:
            numbers[record.person].append(number)
    return dict(sorted(numbers.items()))
