"""The benchmark ``vi-c 1.0`` as a stage: a model or its features in; one JSON file, one CSV file and the features out.

First the features of every test set, then numbers from the features alone: the same features give the same bytes.
"""

import csv
import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dapg.core.device import resolve_device
from dapg.core.errors import DapgError, UsageError, nearest
from dapg.core.files import atomic_write_text, csv_text, write_json
from dapg.core.ranges import Count, CountOrZero, Pixels, Processes, Seed, Weight
from dapg.core.run_folder import RESULT, RunFolder, refuse_changed, refuse_other_weights
from dapg.core.runtime import Runtime
from dapg.core.schema import read_json
from dapg.core.settings import run_only, unset
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.core.types import JsonObject, Trial
from dapg.data.base import Dataset
from dapg.data.loading import OnBadImage
from dapg.data.source import list_hash, open_dataset, refuse_parts
from dapg.evaluation import corruption_list
from dapg.evaluation.benchmark_scores import Test, relative_errors, score_protocols
from dapg.evaluation.benchmark_sets import (
    CLEAN_SET,
    FeatureFolder,
    Maker,
    TestSet,
    damaged_by,
    sets_of,
)
from dapg.evaluation.corrupted_sets import CorruptionPolicy, protocols_of
from dapg.evaluation.evaluate import first_mode, trials_again, untrained_trials, weights_hash
from dapg.evaluation.image_cache import ImageCache, default_folder
from dapg.evaluation.result import describe_trial
from dapg.features.build_encoder import build_encoder
from dapg.features.extract import checked_feature, readable_trials, trial_records

ABOUT, CELLS, FEATURES = "about.json", "cells.csv", "features"
NO_REFERENCE = (
    "no reference: give --reference, the same benchmark of AGW from ImageNet; papers print no figures by type"
)
GIGABYTE = 10**9


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is scored, and by what."""

    model: str
    """Folder of a finished run, ``histogram``, ``random``, ``imagenet``, a weights file, or a folder of features."""
    data: DataConfig = field(default_factory=DataConfig)
    """Test data."""
    mode: str = ""
    """Test mode of the data set, e.g. all, indoor; empty: its first."""
    feature: str = ""
    """Feature of the model; empty: its headline."""
    name: str = ""
    """What the model is called in tables; empty: the name of its folder or file."""
    source: str = ""
    """Where the model comes from, for leaderboards: a paper, an address, what its features were made with."""
    reconstruction: bool = False
    """It was rebuilt from a paper whose authors published no code."""
    trials: tuple[CountOrZero, ...] = ()
    """Trials that are scored, from 0, such as RegDB's partition less one; empty: all that a run was not trained on."""
    list: str = corruption_list.NEWEST
    """Fixed list of corruptions."""
    protocols: tuple[str, ...] = ("visible",)
    """Protocols of the list: visible (CIL's rule), visible-query, visible-gallery, both, both-query, both-gallery,
    both-cameras, both-places; all: every one."""
    repeats: Count = 10
    """Mixtures, in which each image draws its type and severity (CIL: 10)."""
    reference: str = ""
    """Result folder or features of the model that errors are divided by for mCE, AGW from ImageNet on the same data."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network for ``random``, ``imagenet`` and weights files; a run brings its own."""
    height: Pixels = 256
    """Rows of the input, where the model does not say."""
    width: Pixels = 128
    """Columns of the input, where the model does not say."""
    seed: Seed = 0
    """Random weights and galleries."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: leave it out, and list it in the result, or stop (fail)."""
    keep_features: bool = run_only(True)
    """Keep the features beside the result: with them it is made again in no time, also by other protocols."""
    cache_size: Weight = run_only(8.0)
    """GB of corrupted images kept on this machine for the next model of the same input size; 0: none. They are in
    $DAPG_CACHE, else in ~/.cache/dapg; --clear_cache deletes them."""
    batch_size: Count = run_only(64)
    """Clean images encoded at once."""
    workers: Processes = run_only(0)
    """Processes that corrupt images; 0 does it in this one."""
    out: str = run_only("")
    """Folder of the result."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


def benchmark(settings: BenchmarkSettings) -> JsonObject:
    """Score a model, or features, on clean images and on every type at every severity; returns result.json.

    A killed run goes on at the test set where it stopped.

    Raises:
        UsageError: unknown model, mode, protocol or feature, or the folder holds another benchmark.
        DataError: an image or a feature is missing or cannot be read.
    """
    refuse_parts(settings.data)
    folder = Path(settings.out)
    stage = RunFolder(folder, settings, "benchmark", alone=True)
    finished = stage.open()
    if finished is not None:
        stage.close()
        now = weights_hash(settings.model)
        refuse_other_weights(folder, "the benchmark of", settings.model, finished["model"]["weights"], now)
        _refuse_other_tests(settings, finished)
        return {**finished, "reused": True}
    with stage.working():
        result = _benchmark(settings)
        atomic_write_text(folder / CELLS, cells_csv(result))
        stage.finish(result)
        stored: JsonObject = read_json(folder / RESULT)
    return stored  # as read again later, NaN gone: a page must not depend on whether a command was run once or twice


def _benchmark(settings: BenchmarkSettings) -> JsonObject:
    dataset = open_dataset(settings.data)
    mode = settings.mode or first_mode(dataset)
    given = is_features(settings.model)
    trials = _chosen(dataset.trials(mode, settings.seed), settings.trials)
    if not given:
        trials = untrained_trials(settings.model, settings.data, dataset, trials)
    policies = chosen_policies(settings)
    sets = sets_of(list(policies.values()), settings.repeats)
    features = FeatureFolder(Path(settings.model) if given else Path(settings.out) / FEATURES)
    if not given:
        _make(settings, dataset, trials, sets, features)
    unreadable = features.unreadable()
    trials = readable_trials(trials, unreadable)
    test = Test(dataset, trials, settings.repeats)
    about = _about(features, settings)
    result: JsonObject = {
        "list": corruption_list.provenance(next(iter(policies.values())).types, *_drawn(next(iter(policies.values())))),
        "data": {
            "name": dataset.title,
            "mode": mode,
            "version": dataset.version,
            "hash": list_hash(test.records()),
            "protocol": trials[0].protocol.name,
            "trials": [describe_trial(trial) for trial in trials],
            "comparable": all(trial.comparable for trial in trials),
        },
        "unreadable": unreadable,
        "model": about,
        "features": features.digest([CLEAN_SET, *(s.name for s in _needed(sets, test))]),
        **score_protocols(features, test, policies),
    }
    reference = _reference(settings, result, test, policies) if settings.reference else None
    relative_errors(result, reference, NO_REFERENCE)
    result["reference"] = None if reference is None else {**reference["model"], "features": reference["features"]}
    if not given and not settings.keep_features:
        shutil.rmtree(features.path)
    return result


def _refuse_other_tests(settings: BenchmarkSettings, finished: JsonObject) -> None:
    """Refuse to reuse scores of other test lists, or of features that were made anew since.

    Raises:
        UsageError: they differ.
    """
    scored, unreadable = finished["data"]["trials"], finished["unreadable"]
    trials = trials_again(settings.data, finished["data"]["mode"], settings.seed, scored, unreadable)
    if trials is None:
        return
    test = Test(open_dataset(settings.data), trials, settings.repeats)
    tested = list_hash(test.records())
    refuse_changed(settings.out, "its test images or their labels", finished["data"]["hash"], tested)
    sets = sets_of(list(chosen_policies(settings).values()), settings.repeats)
    for place, then in ((settings.model, finished), (settings.reference, finished["reference"])):
        if place and is_features(place):
            now = FeatureFolder(Path(place)).digest([CLEAN_SET, *(s.name for s in _needed(sets, test))])
        elif place and then is not finished and (Path(place) / RESULT).is_file():
            now = read_json(Path(place) / RESULT).get("features")
        else:
            continue
        refuse_changed(settings.out, f"what {place} holds", then["features"], now)


def _chosen(trials: list[Trial], numbers: tuple[int, ...]) -> list[Trial]:
    """Some of the trials, all where none is named.

    Raises:
        UsageError: there are not so many.
    """
    if numbers and max(numbers) >= len(trials):
        raise UsageError(f"--trials {max(numbers)} is not there; {len(trials)} trials are counted from 0")
    return [trials[number] for number in numbers] if numbers else trials


def _drawn(policy: CorruptionPolicy) -> tuple[int, int, int]:
    return policy.height, policy.width, policy.seed


def _needed(sets: list[TestSet], test: Test) -> list[TestSet]:
    """Test sets that damage anything: saturation does nothing to infrared images."""
    records = test.records()
    return [test_set for test_set in sets if damaged_by(test_set, test.dataset, records)]


def _make(
    settings: BenchmarkSettings, dataset: Dataset, trials: list[Trial], sets: list[TestSet], features: FeatureFolder
) -> None:
    """Encode what is not there yet; features of other weights are thrown away first."""
    device = resolve_device(settings.device)
    size = settings.height, settings.width
    encoder = build_encoder(settings.model, settings.backbone, size, settings.seed, device)
    feature = checked_feature(encoder, settings.feature)
    about = {
        "name": settings.name or _label(settings),
        "weights": weights_hash(settings.model),
        "feature": feature,
        "source": settings.source or "features made by dapg",
        "reconstruction": settings.reconstruction,
    }
    stored = features.path / ABOUT
    if stored.exists() and read_json(stored) != about:
        shutil.rmtree(features.path)
    write_json(stored, about)
    cache = ImageCache(default_folder(), int(settings.cache_size * GIGABYTE))
    runtime = Runtime(device, settings.batch_size, settings.workers, progress=True)
    skip = settings.on_bad_image == "skip"
    try:
        Maker(encoder, feature, dataset, trial_records(trials), runtime, cache, skip).make(sets, features)
    finally:
        if not features.has(CLEAN_SET):  # work that failed before it made anything leaves nothing
            shutil.rmtree(features.path)


def is_features(model: str) -> bool:
    """Whether a model is named by a folder of features."""
    return FeatureFolder(Path(model)).has(CLEAN_SET)


def _about(features: FeatureFolder, settings: BenchmarkSettings) -> JsonObject:
    """Name, weights and feature of a model; of foreign features what is known."""
    stored = features.path / ABOUT
    foreign = {
        "name": settings.name or features.path.resolve().name,
        "weights": None,
        "feature": settings.feature or "as given",
        "source": settings.source or "features of another program",
        "reconstruction": settings.reconstruction,
    }
    about = {**foreign, **(read_json(stored) if stored.exists() else {})}
    return {**about, "name": settings.name} if settings.name else about


def chosen_policies(settings: BenchmarkSettings) -> dict[str, CorruptionPolicy]:
    """The protocols that were asked for.

    Raises:
        UsageError: the list has none of that name, or none was asked for.
    """
    known = protocols_of(corruption_list.corruption_list(settings.list))
    names = list(known) if "all" in settings.protocols else list(settings.protocols)
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise UsageError(f"no protocol is called {name!r}{nearest(name, list(known))}; known: {listed}, all")
    if not names:
        raise UsageError("--protocols names no protocol")
    return {name: known[name] for name in names}


def _reference(
    settings: BenchmarkSettings, result: JsonObject, test: Test, policies: Mapping[str, CorruptionPolicy]
) -> JsonObject:
    """Scores of the reference, from its finished benchmark or from its features.

    Raises:
        UsageError: it was scored on other data, or by another list.
    """
    folder = Path(settings.reference)
    if is_features(settings.reference):
        features = FeatureFolder(folder)
        names = [CLEAN_SET, *(s.name for s in _needed(sets_of(list(policies.values()), test.repeats), test))]
        about = _about(features, replace(settings, name="", feature=""))
        return {"model": about, "features": features.digest(names), **score_protocols(features, test, policies)}
    try:
        stored: JsonObject = read_json(folder / RESULT)
    except DapgError:
        stored = {}
    if stored.get("stage") != "benchmark":
        raise UsageError(f"{folder} holds neither features ({CLEAN_SET}.npz) nor a finished benchmark (--reference)")
    for part, key in (("list", "sha256"), ("list", "changed"), ("data", "hash"), ("data", "mode")):
        if stored[part][key] != result[part][key]:
            raise UsageError(
                f"{folder} was scored on another test ({part} {key}: {stored[part][key]!r} there, "
                f"{result[part][key]!r} here), so its errors cannot be the reference"
            )
    return stored


def cells_csv(result: JsonObject) -> str:
    """One line per protocol, type and severity; scores in per cent."""
    rates = ("FPIR", "FNIR", "FNIR_own_threshold")

    def line(protocol: str, kind: str, severity: int | str, row: JsonObject) -> list[object]:
        scores = [f"{100 * row[measure]:.3f}" for measure in ("rank-1", "mAP", "mINP")]
        drift = [f"{100 * row[rate]['value']:.3f}" if _has_value(row.get(rate)) else "" for rate in rates]
        where = [result["model"]["name"], result["data"]["name"], result["data"]["mode"]]
        return [*where, protocol, kind, severity, *scores, *drift]

    header = ["model", "data", "mode", "protocol", "type", "severity", "rank-1", "mAP", "mINP", *rates]
    cells = [
        line(name, cell["type"], cell["severity"], cell)
        for name, protocol in result["protocols"].items()
        for cell in protocol["cells"]
    ]
    return csv_text([header, line("", "clean", "", result["clean"]), *cells])


def _has_value(measured: JsonObject | None) -> bool:
    return measured is not None and measured["value"] is not None


def _label(settings: BenchmarkSettings) -> str:
    if settings.model in ("random", "imagenet"):
        return f"{settings.model}-{settings.backbone.name}"
    return Path(settings.model).resolve().stem


def default_out(settings: BenchmarkSettings) -> BenchmarkSettings:
    """Fill in ``out`` where it is empty: below outputs/benchmark."""
    if settings.out:
        return settings
    where = f"{settings.name or _label(settings)}-{settings.data.name}-{settings.mode or 'default'}"
    return replace(settings, out=f"outputs/benchmark/{where}")


@dataclass(frozen=True)
class ImageListSettings:
    """Which images a program must make features of."""

    data: DataConfig = field(default_factory=DataConfig)
    """Test data."""
    mode: str = ""
    """Test mode of the data set; empty: its first."""
    seed: Seed = 0
    """Of the galleries."""


def image_list(dataset: Dataset, settings: ImageListSettings) -> str:
    """Every image of a mode's trials as CSV: path, kind of light, person, camera.

    Raises:
        UsageError: no such mode, or a part of the data set was asked for.
    """
    refuse_parts(settings.data)
    records = Test(dataset, dataset.trials(settings.mode or first_mode(dataset), settings.seed), 1).records()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "modality", "person", "camera"])
    writer.writerows((r.name, r.modality.name.lower(), r.person, r.camera) for r in records)
    return text.getvalue()
