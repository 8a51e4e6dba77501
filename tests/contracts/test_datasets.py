"""Every data set keeps the contract: its example layout is written, read, split, tried and scored."""

import inspect
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dapg.core import plugins
from dapg.core.errors import DataError, UsageError
from dapg.core.images import open_rgb
from dapg.core.types import UNKNOWN, Modality, Record, Trial
from dapg.data.base import Dataset
from dapg.data.verify import Audited, unseen_trials, verify
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score

NAMES = plugins.names("data.sets")


def kind(name: str) -> Any:
    return plugins.load("data.sets", name, Dataset)


def needs_root(name: str) -> bool:
    return inspect.signature(kind(name)).parameters["root"].default is inspect.Parameter.empty


@pytest.fixture(params=NAMES)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    return example(request.param, tmp_path / "root")


def example(name: str, root: Path) -> Dataset:
    if not needs_root(name):
        return kind(name)()
    kind(name).write_example(root)
    return kind(name)(root)


def splits(dataset: Dataset) -> dict[str, Sequence[Record]]:
    """Those of its splits that this copy has; the first must be among them."""
    found = {}
    for split in dataset.splits:
        try:
            found[split] = dataset.records(split)
        except UsageError:
            assert split != dataset.splits[0]
    return found


def trials(dataset: Dataset) -> Iterator[tuple[str, list[Trial]]]:
    for mode in dataset.modes:
        try:
            yield mode, dataset.trials(mode)
        except UsageError:
            assert mode != dataset.modes[0]


def test_tells_what_it_is(dataset: Dataset) -> None:
    assert dataset.title
    assert dataset.licence
    assert dataset.access
    assert dataset.splits


def test_records_are_relative_unique_and_readable(dataset: Dataset) -> None:
    for split, records in splits(dataset).items():
        assert records, split
        assert len({(record.path, record.box) for record in records}) == len(records)
        for record in records[:40]:
            assert not record.path.startswith("/")
            assert "\\" not in record.path
            assert isinstance(record.modality, Modality)
            assert open_rgb(dataset.read(record), record.path).size > (0, 0)


def test_order_is_the_same_in_a_new_object(dataset: Dataset, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["dataset"]
    again = example(name, tmp_path / "root")
    assert splits(again) == splits(dataset)
    assert list(trials(again)) == list(trials(dataset))


def test_validation_persons_are_not_trained_on(dataset: Dataset) -> None:
    """What fine-tuning with a choice of checkpoints takes: a training part, and other persons to score."""
    labelled = dataset.labelled_split()
    assert labelled in dataset.splits
    if "validation" not in dataset.modes:
        with pytest.raises(UsageError, match="--selection last"):
            dataset.fitting_split(labelled)
        return
    try:
        found = dataset.trials("validation")
    except UsageError:
        return  # this copy has no validation rows
    trained = {record.person for record in dataset.records(dataset.fitting_split(labelled))}
    assert trained <= {record.person for record in dataset.records(labelled)}
    if dataset.title != "packed shards" and trained:
        assert unseen_trials(found, trained)


def test_trials_can_be_scored(dataset: Dataset) -> None:
    for mode, found in trials(dataset):
        assert found, mode
        assert len({trial.name for trial in found}) == len(found)
        for trial in found:
            assert trial.mode == mode
            assert UNKNOWN not in {record.person for record in trial.query}
            generator = torch.Generator().manual_seed(0)
            distances = torch.rand(len(trial.query), len(trial.gallery), generator=generator)
            scores = score(distances, Labels.of(trial))
            assert scores.valid_queries > 0
            assert scores.cmc[-1] > 0


def test_training_and_test_share_nobody(dataset: Dataset) -> None:
    if not isinstance(dataset, Audited):
        pytest.skip("no published splits")
    found = splits(dataset)
    for first, second in dataset.disjoint_splits():
        persons = [{record.person for record in found[split]} for split in (first, second)]
        assert persons[0]
        assert persons[1]
        assert not persons[0] & persons[1]


def test_unknown_names_are_refused_with_the_nearest(dataset: Dataset) -> None:
    wrong = dataset.splits[0][:-1] + "_"
    with pytest.raises(UsageError, match="has no split"):
        dataset.records(wrong)
    with pytest.raises(UsageError):
        dataset.trials("no such mode")


def test_survives_the_way_to_a_loader_worker(dataset: Dataset) -> None:
    record = dataset.records(dataset.splits[0])[0]
    expected = dataset.read(record)
    assert pickle.loads(pickle.dumps(dataset)).read(record) == expected


def test_example_is_readable_and_free_of_overlap(dataset: Dataset) -> None:
    kinds = {finding.kind for finding in verify(dataset).findings if finding.error}
    assert not kinds & {"unreadable", "overlap", "layout", "duplicate", "list", "missing"}


@pytest.mark.parametrize("name", [name for name in NAMES if needs_root(name)])
def test_a_wrong_root_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as missing:
        kind(name)(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(missing.value)
    assert "docs/datasets.md" in str(missing.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        kind(name)(tmp_path / "empty")
