"""Evaluation as a stage: a model and a test protocol in, scores, ranked lists and a result out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NotRequired, TypedDict

import torch

from dapg.core import plugins
from dapg.core.device import resolve_device
from dapg.core.errors import DapgError, DataError, UsageError
from dapg.core.files import sha256, write_json
from dapg.core.ranges import Count, CountOrZero, Pixels, Processes, Seed
from dapg.core.results import Evaluation, Intervals, Network, RankedList, Spread
from dapg.core.rng import generator_from
from dapg.core.run_folder import CONFIG, RESULT, RunFolder, refuse_changed, refuse_other_weights
from dapg.core.runtime import Cache, Runtime
from dapg.core.schema import checked, read_json, read_settings
from dapg.core.settings import from_dict, read_yaml, run_only, to_dict, unset
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.core.types import JsonObject, Trial
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.data.loading import OnBadImage
from dapg.data.sets.shards import Shards
from dapg.data.source import list_hash, open_dataset, refuse_parts, root_of
from dapg.data.verify import unseen_trials
from dapg.evaluation.corrupted_scores import CorruptionSettings, SetScores, Store, score_corrupted, summary
from dapg.evaluation.corrupted_sets import CorruptedDataset
from dapg.evaluation.result import describe_scores, describe_trial
from dapg.features.build_encoder import build_encoder, weights_file
from dapg.features.embedding_map import distance_histograms, require_tsne, tsne_map
from dapg.features.encoders import Encoder, FlipAveraged
from dapg.features.extract import Unreadable, checked_feature, left_out, readable_trials, trial_features
from dapg.features.grad_cam import backbone_of
from dapg.features.ranked_lists import describe_lists, picture_name, save_maps, save_thumbnails
from dapg.features.table import CENTRED, FeatureTable
from dapg.scoring.bootstrap import write_query_scores
from dapg.scoring.metrics import Scores, score_trials
from dapg.scoring.ranking import rank
from dapg.scoring.rerank import Rerank, reranked_name, score_reranked

QUERY_SCORES, CORRUPTED, FIGURES = "queries.npz", "corrupted", "figures.json"
CORRUPTED_LISTS = "ranked_lists.json"


class _Precision(TypedDict):
    precision: str


class _Trained(TypedDict):
    """What an evaluation reads of the settings of the run that it scores."""

    data: dict[str, object]
    train: _Precision
    seed: NotRequired[Seed]


class _Sizes(TypedDict):
    queries: Count
    gallery: Count


class _Counts(TypedDict):
    queries: Count
    valid_queries: Count


class _Printed(TypedDict):
    """What is printed of a reused evaluation beyond what pages show."""

    protocol: str
    trials: list[_Sizes]
    scores: dict[str, _Counts]
    intervals: Intervals
    spread: Spread
    comparable: bool


@dataclass(frozen=True)
class EvaluateSettings:
    """Everything a score depends on."""

    model: str
    """Folder of a finished run or an export, ``histogram``, ``random``, ``imagenet``, a weights or ONNX file, a name of
    the zoo or an address."""
    data: DataConfig = field(default_factory=DataConfig)
    """Test data."""
    mode: str = ""
    """Test mode of the data set, e.g. all, indoor, visible; empty: its first."""
    feature: str = ""
    """Feature to report; empty: the model's headline. All features are scored and stored."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network for ``random``, ``imagenet`` and weights files; a run brings its own."""
    height: Pixels = 256
    """Rows of the input, where the model does not say."""
    width: Pixels = 128
    """Columns of the input, where the model does not say."""
    max_rank: Count = 20
    """Length of the CMC curve."""
    flip: bool = False
    """Also score the average of the features of an image and its mirror image, as CAJ and DEEN report."""
    rerank: Rerank = field(default_factory=Rerank)
    """Also score the reported feature after k-reciprocal re-ranking or query expansion."""
    ranked_lists: CountOrZero = 10
    """Queries whose ranked list is drawn."""
    activations: bool = False
    """Also draw in the ranked lists which parts make two images alike (Grad-CAM of their similarity)."""
    tsne: CountOrZero = 0
    """Persons whose images are laid out by t-SNE of the reported feature (needs scikit-learn); 0: none."""
    corruption: CorruptionSettings = field(default_factory=CorruptionSettings)
    """Corrupted test images beside the clean ones."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: leave it out, and list it in the result, or stop (fail)."""
    seed: Seed = 0
    """Of random weights, and of which queries are drawn."""
    batch_size: Count = run_only(64)
    """Images encoded at once."""
    workers: Processes = run_only(2)
    """Loader processes."""
    out: str = run_only("")
    """Folder of the result."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


def evaluate(settings: EvaluateSettings, cache: Cache | None = None) -> JsonObject:
    """Score a model by a data set's protocol; returns the content of result.json.

    Args:
        settings: what is scored, and how.
        cache: an (at first empty) dictionary that holds corrupted test images between models.

    Raises:
        UsageError: unknown model, mode or feature, or the folder holds another evaluation.
        DataError: the data set or one of its test images cannot be read.
    """
    refuse_parts(settings.data)
    folder = Path(settings.out)
    stage = RunFolder(folder, settings, "evaluate", shape=Evaluation, alone=True)
    finished = stage.open()
    if finished is not None:
        stage.close()
        checked(finished, _Printed, folder / RESULT)
        now = weights_hash(settings.model)
        refuse_other_weights(folder, "scores of", settings.model, finished.get("weights"), now)
        _refuse_other_draws(folder, finished)
        scored, unreadable = finished["trials"], finished.get("unreadable", {})
        trials = trials_again(settings.data, settings.mode, settings.seed, scored, unreadable)
        now = None if trials is None else _lists(trials)
        refuse_changed(folder, "its test images or their labels", finished.get("lists"), now)
        return {**finished, "reused": True}
    with stage.working():
        return stage.finish(_evaluate(settings, cache))


@dataclass(frozen=True)
class _Work:
    """What is scored on what."""

    settings: EvaluateSettings
    runtime: Runtime
    dataset: Dataset
    trials: list[Trial]
    encoder: Encoder
    feature: str
    """The one to report."""


def _evaluate(settings: EvaluateSettings, cache: Cache | None) -> JsonObject:
    if settings.tsne:
        require_tsne()
    device, folder = resolve_device(settings.device), Path(settings.out)
    runtime = Runtime(device, settings.batch_size, settings.workers, progress=True, cache=cache)
    dataset = open_dataset(settings.data)
    mode = settings.mode or first_mode(dataset)
    size = settings.height, settings.width
    encoder = build_encoder(settings.model, settings.backbone, size, settings.seed, device)
    if settings.flip:
        encoder = FlipAveraged(encoder)
    feature = checked_feature(encoder, settings.feature, (CENTRED,))
    if settings.activations and backbone_of(encoder) is None:
        raise UsageError(f"{settings.model} is no network, so there are no activations to draw")
    library.expand(settings.corruption.types)  # an unknown one is named before the clean images are encoded
    trials = untrained_trials(settings.model, settings.data, dataset, dataset.trials(mode, settings.seed))
    unreadable: Unreadable = {}
    table = trial_features(encoder, dataset, trials, runtime, unreadable if settings.on_bad_image == "skip" else None)
    trials = readable_trials(trials, unreadable)
    reported = table[feature]
    rows = table.trials(trials)
    scores = {name: score_trials(values, rows, settings.max_rank) for name, values in table.features.items()}
    if settings.rerank.method != "none":
        reranked = score_reranked(reported, rows, settings.rerank, settings.max_rank)
        scores[reranked_name(feature, settings.rerank)] = reranked
    write_query_scores(folder / QUERY_SCORES, scores)
    work = _Work(settings, runtime, dataset, trials, encoder, feature)
    result = {
        "model": settings.model,
        "model_seed": _model_seed(settings),
        "precision": _model_precision(settings.model),
        "data": {
            "name": dataset.title,
            "mode": mode,
            "hash": list_hash(table.records),
            "version": dataset.version,
        },
        **describe_scores(trials[0].protocol, [describe_trial(trial) for trial in trials], feature, scores),
        "comparable": all(trial.comparable for trial in trials),
        "lists": _lists(trials),
        "rerank": None if settings.rerank.method == "none" else asdict(settings.rerank),
        "flip": settings.flip,
        "corruption": to_dict(settings.corruption) if settings.corruption.types else None,
        "corrupted": None,
        "corrupted_lists": [],
        "notes": [*left_out(unreadable), *table.notes()],
        "unreadable": unreadable,
        "per_query": QUERY_SCORES,
        "weights": weights_hash(settings.model),
        "ranked_lists": _ranked_lists(work, dataset, trials[0], table, folder),
    }
    write_json(folder / FIGURES, _figures(table, feature, settings))
    if settings.corruption.types:
        result["corrupted"], result["corrupted_lists"] = _corrupted(work, table, scores)
    return result


def _lists(trials: Sequence[Trial]) -> str:
    """Hash of the images and labels of all trials, in their order."""
    return list_hash([record for trial in trials for record in (*trial.query, *trial.gallery)])


def trials_again(
    data: DataConfig, mode: str, seed: int, scored: Sequence[JsonObject], unreadable: Unreadable
) -> list[Trial] | None:
    """The trials of a finished folder as the data set has them now; None where it is not there any more.

    Args:
        data: the test data.
        mode: as the settings say.
        seed: of the galleries.
        scored: what ``describe_trial`` said of each.
        unreadable: images that were left out.

    Raises:
        UsageError: the data set has no such mode any more.
        DataError: its lists cannot be read.
    """
    try:
        dataset = open_dataset(data)
    except DapgError:
        return None
    names = {trial.get("name") for trial in scored}
    trials = [trial for trial in dataset.trials(mode or first_mode(dataset), seed) if trial.name in names]
    return readable_trials(trials, unreadable)


def _refuse_other_draws(folder: Path, finished: JsonObject) -> None:
    """Refuse to reuse corrupted scores of images that this version draws otherwise."""
    for row in finished.get("corrupted") or ():
        draws = row.get("list", {}).get("draws", 1)
        if draws != library.DRAWS:
            raise UsageError(
                f"{folder} holds scores on corrupted images of version {draws} of the draws, this is version "
                f"{library.DRAWS}; give another --out"
            )


def _corrupted(
    work: _Work, clean: FeatureTable, clean_scores: dict[str, list[Scores]]
) -> tuple[list[JsonObject], list[JsonObject]]:
    """Scores on the corrupted test sets, and ranked lists of the first of them.

    Each is stored in a file of the folder at once, so that a killed run goes on there.
    """
    settings = work.settings
    # Named after the weights: what a killed run left behind is of no use to others.
    place = Path(CORRUPTED) / f"{(weights_hash(settings.model) or 'built-in')[:12]}-draws-{library.DRAWS}"
    folder = Path(settings.out) / place

    def look(view: CorruptedDataset, table: FeatureTable) -> None:
        plain = replace(work, settings=replace(settings, activations=False))
        lists = _ranked_lists(plain, view, view.mark(work.trials[0]), table, folder)
        assignments = {picture_name(record): view.assignment(record) for record in table.records}
        for image in _images(lists):
            assignment = assignments[image["picture"]]
            image["picture"] = str(place / image["picture"])
            image["corruption"] = f"{assignment.name} {assignment.severity}".removesuffix(" 0")
        write_json(folder / CORRUPTED_LISTS, lists)

    sets = score_corrupted(
        work.encoder, work.dataset, work.trials, settings.corruption, clean, work.runtime, Store(folder, look)
    )
    queries = {name: [[trial.per_query for trial in trials]] for name, trials in clean_scores.items()}
    files = {name: [str(place / path) for path in set_scores.files()] for name, set_scores in sets.items()}
    return summary(SetScores(queries), sets, work.feature, files), read_json(folder / CORRUPTED_LISTS, list[RankedList])


def _images(lists: list[JsonObject]) -> list[JsonObject]:
    """Queries and answers of ranked lists."""
    return [image for entry in lists for image in (entry["query"], *entry["answers"])]


def _model_seed(settings: EvaluateSettings) -> int | None:
    """The seed a model was trained (or its random weights drawn) with; None where nobody knows."""
    folder = Path(settings.model)
    if (folder / CONFIG).is_file():
        seed: int | None = read_settings(folder / CONFIG, _Trained).get("seed")
        return seed
    return settings.seed if settings.model == "random" else None


def _model_precision(model: str) -> str | None:
    """What a run was trained in; None for what no run of ours made."""
    folder = Path(model)
    if not (folder / CONFIG).is_file():
        return None
    precision: str | None = read_json(folder / RESULT, Network).get("precision")
    return precision or str(read_settings(folder / CONFIG, _Trained)["train"]["precision"])


def untrained_trials(model: str, data: DataConfig, dataset: Dataset, trials: list[Trial]) -> list[Trial]:
    """Only trials on persons that the run did not see: RegDB's partitions are drawn from the same people.

    Raises:
        UsageError: every trial tests persons of the training part.
    """
    return unseen_trials(trials, training_persons(model, data, dataset))


def training_persons(model: str, data: DataConfig, dataset: Dataset) -> list[int]:
    """Persons of a data set that a run was trained on; none where it is no run, or was trained on other people."""
    folder = Path(model)
    if not (folder / CONFIG).is_file():
        return []
    trained_on = from_dict(DataConfig, read_settings(folder / CONFIG, _Trained)["data"], f"{folder / CONFIG}: data.")
    if not _same_people(trained_on, data, dataset):
        return []
    persons: list[int] = read_json(folder / RESULT, Network)["facts"]["persons"]
    return persons


def _same_people(trained_on: DataConfig, tested_on: DataConfig, dataset: Dataset) -> bool:
    """Whether equal person numbers mean equal persons: two copies of a published set, or one folder of one's own.

    A packed set counts as the set it was packed from, and as any set when it is not there any more.
    """
    kinds = {name: plugins.load("data.sets", name, Dataset) for name in plugins.names("data.sets")}
    title: str | None = kinds[trained_on.name].title
    if kinds[trained_on.name] is Shards:
        try:
            title = open_dataset(trained_on).title
        except DataError:
            title = None
    if title not in (None, dataset.title):
        return False
    published = {kind.title for kind in kinds.values() if kind.published_persons}
    roots = [root_of(config) for config in (trained_on, tested_on)]
    return dataset.title in published or len({root and root.resolve() for root in roots}) == 1


def first_mode(dataset: Dataset) -> str:
    """The mode that is scored where none is asked for.

    Raises:
        UsageError: the set has no test protocol.
    """
    if not dataset.modes:
        raise UsageError(f"{dataset.title} has no test protocol; it serves pre-training only")
    return dataset.modes[0]


def weights_hash(model: str) -> str | None:
    """SHA-256 of a run's or file's weights; None of what has no file of its own."""
    path = weights_file(model)
    return None if path is None else sha256(path)


def _ranked_lists(work: _Work, dataset: Dataset, trial: Trial, table: FeatureTable, folder: Path) -> list[JsonObject]:
    """The first answers of some random queries, with thumbnails and perhaps maps in ``folder``."""
    settings, feature = work.settings, work.feature
    count = min(settings.ranked_lists, len(trial.query))
    order = torch.randperm(len(trial.query), generator=generator_from("ranked lists", settings.seed))
    queries = [trial.query[index] for index in order[:count].sort().values.tolist()]
    if not queries:
        return []
    (rows,) = table.trials([replace(trial, query=tuple(queries))])
    ranking = rank(table[feature][rows.query], table[feature][rows.gallery], rows.labels, top=10)
    columns = (ranking.gallery.tolist(), ranking.similarity.tolist(), ranking.matches.tolist())
    lists = [
        (
            query,
            [(trial.gallery[place], value, match) for place, value, match in zip(*row, strict=True) if place >= 0],
        )
        for query, *row in zip(queries, *columns, strict=True)
    ]
    shown = [record for query, answers in lists for record in (query, *(answer for answer, *_ in answers))]
    save_thumbnails(folder, dataset, shown)
    if settings.activations:
        plain = feature.removesuffix(CENTRED)  # what is centred is not the encoder's own any more
        save_maps(folder, work.encoder, (dataset, dataset), lists, plain, (table, table))
    return describe_lists(lists)


def _figures(table: FeatureTable, feature: str, settings: EvaluateSettings) -> JsonObject:
    """Distances, and where wanted the t-SNE map, of all test images."""
    figures: JsonObject = {"distances": distance_histograms(table, feature, settings.seed)}
    if settings.tsne:
        figures["tsne"] = tsne_map(table, feature, settings.tsne, settings.seed)
    return figures


def own_data(model: str) -> DataConfig:
    """The data set that a run was trained on, without split and subset; the embedded people for any other model.

    Raises:
        UsageError: the run's settings cannot be read.
    """
    config = Path(model) / CONFIG
    stored = read_yaml(config).get("data") if config.is_file() else None
    if stored is None:
        return DataConfig()
    return from_dict(DataConfig, stored, f"{config}: data.").whole()


def default_out(settings: EvaluateSettings) -> EvaluateSettings:
    """Fill in ``out`` where it is empty: inside the run, or below outputs/evaluate."""
    if settings.out:
        return settings
    label = f"{settings.data.name}-{settings.mode or 'default'}"
    if settings.corruption.types:
        label += "-corrupted"
    if settings.flip:
        label += "-flip"
    if settings.rerank.method != "none":
        label += f"-{settings.rerank.method}"
    if Path(settings.model).is_dir():
        return replace(settings, out=str(Path(settings.model) / f"evaluate-{label}"))
    name = Path(settings.model).stem
    if settings.model in ("random", "imagenet"):
        name = f"{settings.model}-{settings.backbone.name}"
    return replace(settings, out=f"outputs/evaluate/{name}-{label}")
