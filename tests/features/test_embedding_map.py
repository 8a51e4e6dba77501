"""Histograms of distances counted by a loop, and a t-SNE map that keeps far people apart."""

import numpy as np
import pytest
import torch

from dapg.core.errors import UsageError
from dapg.core.types import Modality, Record
from dapg.features import embedding_map
from dapg.features.embedding_map import distance_histograms, tsne_map
from dapg.features.table import FeatureTable

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED


def case(count: int = 40, seed: int = 0) -> FeatureTable:
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
    modalities = [VISIBLE if n % 3 else INFRARED for n in range(count)]
    records = [Record(f"{n}.jpg", n % 5 - 1, 1, modality) for n, modality in enumerate(modalities)]
    return FeatureTable({"own": features}, records)


def test_counts_are_those_of_a_loop_over_pairs() -> None:
    table = case()
    features, records = table["own"], table.records
    found = distance_histograms(table, "own")
    assert [pair["modalities"] for pair in found["pairs"]] == [
        ["visible", "visible"],
        ["visible", "infrared"],
        ["infrared", "infrared"],
    ]
    expected: dict[tuple[Modality, ...], dict[str, list[float]]] = {}
    for i, first in enumerate(records):
        for j, second in enumerate(records[:i]):
            if -1 in (first.person, second.person):
                continue
            names = tuple(sorted((first.modality, second.modality)))
            kind = "same" if first.person == second.person else "other"
            distance = 1 - float(features[i] @ features[j])
            expected.setdefault(names, {"same": [], "other": []})[kind].append(distance)
    for names, pair in zip(sorted(expected), [found["pairs"][n] for n in (0, 1, 2)], strict=True):
        for kind in ("same", "other"):
            assert pair[kind] == np.histogram(expected[names][kind], found["edges"])[0].tolist()


def test_one_modality_gives_one_panel_and_large_sets_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    table = case()
    monkeypatch.setattr(embedding_map, "MOST_IMAGES", 7)
    (pair,) = distance_histograms(table.where(table.modalities == int(VISIBLE)), "own")["pairs"]
    assert sum(pair["same"]) + sum(pair["other"]) == 7 * 6 / 2


def test_tsne_keeps_people_apart() -> None:
    pytest.importorskip("sklearn")
    centres = torch.eye(4).repeat_interleave(8, dim=0)
    features = centres + 0.01 * torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.normalize(features, dim=1)
    records = [Record(f"{n}.jpg", n // 8, 2, INFRARED if n % 2 else VISIBLE) for n in range(32)]
    table = FeatureTable({"own": features}, records)
    points = tsne_map(table, "own", persons=3, seed=1)
    assert len(points) == 24
    assert len({point["person"] for point in points}) == 3
    places = np.array([[point["x"], point["y"]] for point in points])
    persons = np.array([point["person"] for point in points])
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(24)
    assert (persons[distances.argmin(axis=1)] == persons).all()
    assert tsne_map(table, "own", persons=3, seed=1) == points, "the seed decides"
    with pytest.raises(UsageError, match="at least three"):
        tsne_map(table.of(records[:2]), "own", persons=1)
