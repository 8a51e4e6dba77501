"""A table of features: rows follow their records, and each camera's mean is taken away."""

import pytest
import torch

from dapg.core.errors import UsageError
from dapg.core.types import Modality, Protocol, Record, Trial
from dapg.features.table import CENTRED, FeatureTable

RECORDS = [
    Record("a.jpg", 1, 1),
    Record("b.jpg", 2, 1),
    Record("c.jpg", 1, 2, Modality.INFRARED),
    Record("d.jpg", 2, 2, Modality.INFRARED),
]


def table() -> FeatureTable:
    return FeatureTable({"unit": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])}, RECORDS)


def test_rows_follow_records_in_any_order_and_under_a_mask() -> None:
    chosen = table().of([RECORDS[2], RECORDS[0]])
    assert chosen["unit"][:, 0].tolist() == pytest.approx([0.6, 1.0])
    assert chosen.persons.tolist() == [1, 1]
    infrared = table().where(table().modalities == int(Modality.INFRARED))
    assert list(infrared.records) == RECORDS[2:]
    assert infrared["unit"][:, 1].tolist() == pytest.approx([0.8, 0.6])
    assert table().where(table().cameras == 1).rows([RECORDS[1]]).tolist() == [1]


def test_trials_become_row_numbers_with_their_labels() -> None:
    trial = Trial("0", "any", (RECORDS[3],), (RECORDS[1], RECORDS[0]), Protocol("plain"))
    (rows,) = table().trials([trial])
    assert (rows.query.tolist(), rows.gallery.tolist()) == ([3], [1, 0])
    assert rows.labels.gallery_persons.tolist() == [2, 1]


def test_centring_takes_each_cameras_mean_away_and_centres_only_once() -> None:
    """Camera 1's mean is (1/2, 1/2): what is left of its features points to (1, -1) and (-1, 1)."""
    twice = table().with_centred().with_centred()
    assert list(twice.features) == ["unit", "unit" + CENTRED]
    half = 0.5**0.5
    expected = torch.tensor([[half, -half], [-half, half], [-half, half], [half, -half]])
    torch.testing.assert_close(twice["unit" + CENTRED], expected)


def test_nothing_is_centred_where_a_camera_has_one_image_and_zeros_are_noted() -> None:
    """Alone, an image minus its mean is 0: all its distances tie, and the order of the gallery would be the score."""
    alone = table().of(RECORDS[:3])
    assert list(alone.with_centred().features) == ["unit"]
    assert alone.notes() == ["no scores centred per camera: a single test image in camera 2"]
    assert table().notes() == []
    equal = torch.tensor([[0.1, 0.7, 0.3]]).repeat(3, 1)
    other = FeatureTable({"unit": equal}, [Record(f"{name}.jpg", 1, 1) for name in "abc"]).with_centred()
    assert not other["unit" + CENTRED].any(), "rounding of equal images is no direction"
    assert other.notes() == [f"unit{CENTRED}: 3 exactly zero, as near to one image as to any"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="3 rows of 'unit' cannot belong to 4 images"):
        FeatureTable({"unit": torch.zeros(3, 2)}, RECORDS)
    with pytest.raises(UsageError, match="no feature 'other'; there are unit"):
        table()["other"]
