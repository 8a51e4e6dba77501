"""Checks of a data set: its example layout is written, read, split, tried and scored."""

import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from dapg.contracts.base import by_name, require
from dapg.core import plugins
from dapg.core.errors import DataError, UsageError
from dapg.core.images import open_rgb
from dapg.core.rng import generator_from
from dapg.core.types import UNKNOWN, Record, Trial
from dapg.data.base import Dataset
from dapg.data.verify import Audited, unseen_trials, verify
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score

_SERIOUS = {"unreadable", "overlap", "layout", "duplicate", "list", "missing"}


def tells_what_it_is(name: str) -> None:
    """Title, licence, where to ask for it, splits."""
    kind = plugins.load("data.sets", name, Dataset)
    for word in ("title", "licence", "access", "splits"):
        require(bool(getattr(kind, word, "")), f"{word} is not given")


def records_are_unique_and_readable(name: str) -> None:
    """Every split has some, with relative paths; their images open."""
    with example(name) as dataset:
        for split, records in splits(dataset).items():
            require(len(records) > 0, f"split {split} is empty")
            require(len({(r.path, r.box) for r in records}) == len(records), f"split {split} has an image twice")
            for record in records[:40]:
                require("\\" not in record.path, f"{record.path}: parts of a path are separated by /")
                require(open_rgb(dataset.read(record), record.path).size > (0, 0), f"{record.path} is empty")


def order_is_the_same_in_a_new_object(name: str) -> None:
    """Records and trials."""
    with example(name) as dataset:
        again = type(dataset)(dataset.root) if not dataset.embedded else type(dataset)()  # type: ignore[call-arg]
        require(splits(again) == splits(dataset), "records differ in a new object")
        require(list(trials(again)) == list(trials(dataset)), "trials differ in a new object")


def validation_persons_are_not_trained_on(name: str) -> None:
    """What fine-tuning with a choice of checkpoints takes: a training part, and other persons to score."""
    with example(name) as dataset:
        labelled = dataset.labelled_split()
        require(labelled in dataset.splits, f"labelled_split() is {labelled!r}, which is none of the splits")
        if "validation" not in dataset.modes:
            require(_refused(lambda: dataset.fitting_split(labelled)), "fitting_split needs a mode validation")
            return
        try:
            listed = dataset.trials("validation")
        except UsageError:
            return  # this copy has no validation rows
        trained = {record.person for record in dataset.records(dataset.fitting_split(labelled))}
        require(trained <= {r.person for r in dataset.records(labelled)}, "fitting_split has persons of its own")
        if trained and dataset.published_persons:
            require(bool(unseen_trials(listed, trained)), "every validation person is trained on")


def trials_can_be_scored(name: str) -> None:
    """Each has a name of its own, labelled queries, and a query with an answer."""
    with example(name) as dataset:
        for mode, listed in trials(dataset):
            require(bool(listed), f"mode {mode} has no trial")
            require(len({trial.name for trial in listed}) == len(listed), f"mode {mode} has two trials of one name")
            for trial in listed:
                require(trial.mode == mode, f"trial {trial.name} says it is of mode {trial.mode}, not {mode}")
                require(all(query.person != UNKNOWN for query in trial.query), f"{trial.name}: a query of nobody")
                distances = torch.rand(len(trial.query), len(trial.gallery), generator=generator_from("distances"))
                require(score(distances, Labels.of(trial)).valid_queries > 0, f"{trial.name}: no query has an answer")


def training_and_test_share_nobody(name: str) -> None:
    """Where the set says which splits are disjoint."""
    with example(name) as dataset:
        if isinstance(dataset, Audited):
            for first, second in dataset.disjoint_splits():
                persons = [{record.person for record in dataset.records(split)} for split in (first, second)]
                require(all(persons), f"{first} or {second} has nobody")
                require(not persons[0] & persons[1], f"{first} and {second} share persons")


def unknown_names_are_refused(name: str) -> None:
    """Splits and modes, by a UsageError."""
    with example(name) as dataset:
        require(_refused(lambda: dataset.records(dataset.splits[0][:-1] + "_")), "an unknown split is not refused")
        require(_refused(lambda: dataset.trials("no such mode")), "an unknown mode is not refused")


def survives_the_way_to_a_loader(name: str) -> None:
    """Pickled and back, it reads the same bytes."""
    with example(name) as dataset:
        record = dataset.records(dataset.splits[0])[0]
        again = pickle.loads(pickle.dumps(dataset))
        require(again.read(record) == dataset.read(record), "it reads something else after pickling")


def example_is_free_of_findings(name: str) -> None:
    """`dapg data verify` has nothing serious to say about the example."""
    with example(name) as dataset:
        serious = [finding for finding in verify(dataset).findings if finding.error and finding.kind in _SERIOUS]
        require(not serious, f"verify finds {serious[0] if serious else ''}")


def a_wrong_root_is_named(name: str) -> None:
    """By a DataError."""
    kind = plugins.load("data.sets", name, Dataset)
    with tempfile.TemporaryDirectory() as folder:
        for root in (Path(folder), Path(folder) / "nowhere"):
            try:
                kind(root)
            except DataError as error:
                require(root.name in str(error), "the error about a wrong root does not name it")
            else:
                require(kind.embedded, f"{root}, which holds nothing, is not refused")


CHECKS = by_name(
    tells_what_it_is,
    records_are_unique_and_readable,
    order_is_the_same_in_a_new_object,
    validation_persons_are_not_trained_on,
    trials_can_be_scored,
    training_and_test_share_nobody,
    unknown_names_are_refused,
    survives_the_way_to_a_loader,
    example_is_free_of_findings,
    a_wrong_root_is_named,
)


@contextmanager
def example(name: str) -> Iterator[Dataset]:
    """The data set on its example layout, or as it is embedded."""
    kind = plugins.load("data.sets", name, Dataset)
    if kind.embedded:
        yield kind()  # type: ignore[call-arg]
        return
    with tempfile.TemporaryDirectory() as folder:
        kind.write_example(folder)
        yield kind(folder)


def splits(dataset: Dataset) -> dict[str, Sequence[Record]]:
    """Those of its splits that this copy has; the first must be among them."""
    records = {dataset.splits[0]: dataset.records(dataset.splits[0])}
    for split in dataset.splits[1:]:
        if not _refused(lambda split=split: dataset.records(split)):  # type: ignore[misc]
            records[split] = dataset.records(split)
    return records


def trials(dataset: Dataset) -> Iterator[tuple[str, list[Trial]]]:
    """The modes that this copy has, with their trials; the first must be among them."""
    for place, mode in enumerate(dataset.modes):
        try:
            yield mode, dataset.trials(mode)
        except UsageError:
            require(place > 0, f"the first mode, {mode}, has no trials")


def _refused(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except UsageError:
        return True
    return False
