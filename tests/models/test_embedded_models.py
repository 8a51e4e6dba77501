"""The small trained models of the package: they are listed with their cards, fit the room, and find people."""

import pytest
import torch

from dapg.core.runtime import Runtime
from dapg.core.types import Modality
from dapg.data.sets.synthetic import Synthetic
from dapg.features.extract import extract
from dapg.features.model import load
from dapg.models.weights.addresses import ZOO, zoo
from dapg.scoring.labels import Labels
from dapg.scoring.ranking import rank

TRAINED = {path.stem for path in ZOO.parent.glob("*.safetensors")}


def test_every_file_is_in_the_zoo_with_scores_and_they_are_small() -> None:
    assert TRAINED
    for name in TRAINED:
        clean, corrupted = zoo()[name].card.scores
        if name.startswith("agw"):
            assert clean.mAP > corrupted.mAP > 10, "chance is 2.5 in a gallery of 100 persons"
    assert sum(path.stat().st_size for path in ZOO.parent.glob("*.safetensors")) <= 4 * 2**20


@pytest.mark.parametrize("name", sorted(name for name in TRAINED if name.startswith("agw")))
def test_a_fine_tuned_model_finds_persons_between_infrared_and_visible(name: str) -> None:
    """Of 20 test persons, one of 20 infrared queries would be right by chance."""
    dataset = Synthetic()
    persons = dataset.persons("test")[:20]
    records = [record for record in dataset.records("test") if record.person in persons]
    query = [record for record in records if record.modality == Modality.INFRARED][::4]
    gallery = [record for record in records if record.modality == Modality.VISIBLE]
    encoder = load(name, device="cpu").encoder
    features = extract(encoder, dataset, [*query, *gallery], Runtime())[encoder.headline]
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
    found = rank(
        features[: len(query)],
        features[len(query) :],
        Labels([r.person for r in query], [r.person for r in gallery]),
        top=1,
    )
    assert float(found.matches[:, 0].double().mean()) > 0.4
