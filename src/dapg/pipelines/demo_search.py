"""Searches for the demo's page: a few persons' infrared images among all their visible ones, clean and in fog."""

import torch

from dapg.core.rng import generator_from
from dapg.core.runtime import Runtime
from dapg.core.scales import SCALES
from dapg.core.train_config import BackboneConfig
from dapg.core.types import JsonObject, Modality, Protocol, Trial
from dapg.data.base import Dataset
from dapg.data.sets.synthetic import SAME_ROOM
from dapg.evaluation.corrupted_sets import CorruptedDataset, CorruptionPolicy
from dapg.features.build_encoder import build_encoder
from dapg.features.extract import extract
from dapg.features.ranked_lists import answers_of, describe_lists, thumbnail_texts
from dapg.scoring.labels import Labels
from dapg.scoring.ranking import rank

PERSONS, LISTED, ANSWERS = 20, 6, 8
"""Test persons in the gallery; queries that are shown, and answers of each."""
FOG = 3
"""Severity."""
_THUMBNAIL, _QUALITY = (112, 56), 80


def small_trial(dataset: Dataset, seed: int) -> Trial:
    """Twenty test persons drawn by the seed: every infrared image is a query, every visible one in the gallery."""
    records = dataset.records("test")
    persons = sorted({record.person for record in records})
    order = torch.randperm(len(persons), generator=generator_from("demo persons", seed))[:PERSONS].tolist()
    chosen = [record for record in records if record.person in {persons[place] for place in order}]
    query = tuple(record for record in chosen if record.modality == Modality.INFRARED)
    gallery = tuple(record for record in chosen if record.modality == Modality.VISIBLE)
    return Trial("0", "demo", query, gallery, Protocol("SYSU-MM01's rooms", camera_groups=SAME_ROOM), comparable=False)


def search(model: str, dataset: Dataset, seed: int, device: str) -> JsonObject:
    """What a network finds among twenty persons.

    Args:
        model: a run's folder or a name of the zoo.
        dataset: whose test persons are searched.
        seed: of the draws of persons and of the queries that are shown; results play no part in either.
        device: cpu, cuda or cuda:N.

    Returns:
        ``clean`` and ``fog`` (the gallery in fog): ``queries``, how many; ``first`` and ``five``, shares of them whose
        person is the first answer, or among the first five; ``lists``; ``images``: name -> JPEG file in base64.
    """
    encoder = build_encoder(model, BackboneConfig(), (0, 0), 0, torch.device(device))
    trial = small_trial(dataset, seed)
    height, width = SCALES["small"].decoded or (0, 0)
    fog = CorruptionPolicy(("fog",), severities=(FOG,), height=height, width=width)
    shown = torch.randperm(len(trial.query), generator=generator_from("demo queries", seed))[:LISTED].tolist()
    searches: JsonObject = {}
    for name, source in (("clean", dataset), ("fog", CorruptedDataset(dataset, fog))):
        marked = source.mark(trial) if isinstance(source, CorruptedDataset) else trial
        records = [*marked.query, *marked.gallery]
        features = extract(encoder, source, records, Runtime())[encoder.headline]
        split = len(marked.query)
        ranking = rank(features[:split], features[split:], Labels.of(marked), top=max(ANSWERS, 5))
        lists = [(marked.query[number], answers_of(ranking, number, marked.gallery, 3)[:ANSWERS]) for number in shown]
        images = [record for query, answers in lists for record in (query, *(answer for answer, *_ in answers))]
        searches[name] = {
            "queries": split,
            "first": float(ranking.matches[:, 0].double().mean()),
            "five": float(ranking.matches[:, :5].any(dim=1).double().mean()),
            "lists": describe_lists(lists),
            "images": thumbnail_texts(source, images, _THUMBNAIL, _QUALITY),
        }
    return searches
