"""Run one cell: train what is not trained yet, score the network, and say how it came about.

Trainings stay in the folder of runs and are shared between cells.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dapg import __version__
from dapg.core.device import resolve_device
from dapg.core.errors import UsageError
from dapg.core.files import folder_lock
from dapg.core.metrics_log import loss_curve
from dapg.core.run_folder import commit
from dapg.core.runtime import Cache, Runtime
from dapg.core.settings import to_dict
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.corruptions import library
from dapg.data.captions import CaptionSettings, captions
from dapg.data.image_lines import write_lines
from dapg.data.manifest import MANIFEST
from dapg.data.source import open_dataset, select_records
from dapg.evaluation.corrupted_scores import CorruptionSettings, clean_and_corrupted
from dapg.evaluation.evaluate import training_persons
from dapg.experiment.figures import WITHIN
from dapg.experiment.matrix import Cell, poses
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment, stage_of
from dapg.experiment.registration import registered
from dapg.experiment.store import MIXTURE_CONDITIONS, CellResult, TrainingResult, this_machine
from dapg.features.build_encoder import build_encoder
from dapg.features.pseudo_persons import GroupSettings, group
from dapg.features.table import CENTRED
from dapg.pose.generate import generate
from dapg.scoring.bootstrap import PersonScores, person_scores
from dapg.training.align import align
from dapg.training.finetune import finetune
from dapg.training.pretrain import pretrain
from dapg.training.training_settings import AlignSettings, FinetuneSettings, PretrainSettings, TrainingSettings

VISIBLE = "visible-100"
"""Mode of the embedded people in which visible cameras search each other, in galleries of 100 persons."""
MOST_GROUPED = 100_000
"""Images whose features are clustered in memory; for more, tracks are needed."""


def run_cell(experiment: Experiment, cell: Cell, cache: Cache) -> CellResult:
    """Train what is not trained yet, score, and say how; ``cache`` holds corrupted test images between cells.

    Raises:
        DapgError: whatever a training or the scoring refuses.
    """
    trained = train_chain(cell, experiment.device)
    started, pictures_kept = time.monotonic(), bool(cache)
    scores = _score(experiment, cell, cache)
    return CellResult(
        **{name: getattr(cell, name) for name in ("arm", "finetuning", "data", "start", "seed")},
        scale=experiment.scale,
        repeats=experiment.repeats,
        draws=library.DRAWS,
        corruptions=_words(_corruption(experiment).provenance()),
        tested=open_dataset(experiment.test_data(cell)).version or "" if experiment.test else "",
        registration=registered(experiment, cell),
        feature=scores.feature,
        scores=scores.means,
        persons=scores.persons,
        trainings=tuple(_described(settings, result) for settings, result in trained),
        scoring_seconds=round(time.monotonic() - started, 1),
        pictures_kept=pictures_kept,
        machine=this_machine(resolve_device(experiment.device)),
        version=__version__,
        commit=commit(),
    )


def train_chain(cell: Cell, device: str) -> list[tuple[TrainingSettings, dict[str, Any]]]:
    """Run the trainings of a cell that are not done yet; the settings and the result of each, in order.

    Raises:
        BusyError: another process runs one of them.
    """
    chain = [replace(training, device=device) for training in cell.chain]
    return [(settings, _train(settings)) for settings in chain]


def _train(settings: TrainingSettings) -> dict[str, Any]:
    """Run one training of a chain, with what it needs."""
    match settings:
        case FinetuneSettings():
            return finetune(settings)
        case AlignSettings():
            if settings.generated and not (Path(settings.generated) / MANIFEST).exists():
                _generate(settings)
            return align(settings)
        case PretrainSettings():
            make_files(settings, settings.device)
            return pretrain(settings)
    raise TypeError(type(settings).__name__)


def make_files(settings: PretrainSettings, device: str) -> None:
    """Write what a pre-training learns from beside the images, where it is not there yet.

    Pseudo-persons are clusters of colours, six images each on average; captions say what rendered people wear.

    Raises:
        UsageError: too many images for clusters, or nobody knows what they show; says which file to put there.
    """
    name = settings.method.line_file
    place = str(to_dict(settings.method).get(name, ""))
    if not place or Path(place).exists():
        return
    try:
        if name not in _WRITERS:
            raise UsageError(f"nothing here makes {name}")
        lines = _WRITERS[name](settings.data, device)
    except UsageError as error:
        raise UsageError(
            f"{settings.name} learns from {name}, which must come from elsewhere ({error}): put them into {place}, "
            "one line per image: path, tab, and what is said of it"
        ) from error
    write_lines(Path(place), lines)


def _captions(data: DataConfig, device: str) -> Mapping[str, str]:
    return captions(CaptionSettings(data))


def _groups(data: DataConfig, device: str) -> Mapping[str, int]:
    images = len(select_records(open_dataset(data), data, 0))
    if images > MOST_GROUPED:
        raise UsageError(f"{images} images are too many to cluster in memory")
    return group(GroupSettings(data, groups=max(2, images // 6), device=device))


_WRITERS: dict[str, Callable[[DataConfig, str], Mapping[str, str | int]]] = {"captions": _captions, "groups": _groups}
"""What makes a file of lines, by the name of the setting that wants it."""


def _generate(settings: AlignSettings) -> None:
    """Make the images that every seed and arm aligns with.

    Raises:
        BusyError: another process makes them.
    """
    with folder_lock(Path(settings.generated).parent, patience=0.0):
        generate(settings.data, replace(poses(settings), device=settings.device))


def _described(settings: TrainingSettings, result: Mapping[str, Any]) -> TrainingResult:
    return TrainingResult(
        stage=stage_of(settings),
        method=settings.name,
        run=Path(settings.out).name,
        weights=result["weights"],
        data=result["data"],
        precision=result.get("precision", settings.train.precision),
        steps=result["steps"],
        pictures_seen=result["pictures_seen"],
        seconds=round(result["seconds"], 1),
        logs={name: value for name, value in result["logs"].items() if value is not None and math.isfinite(value)},
        curve=loss_curve(Path(settings.out)),
        alignment={key: result[key] for key in ("positives", "generator", "companions") if key in result},
    )


def _corruption(experiment: Experiment) -> CorruptionSettings:
    height, width = experiment.corrupted_at
    return CorruptionSettings(
        ("all",), height=height, width=width, repeats=experiment.repeats, detail=experiment.detail
    )


def _words(listed: Mapping[str, Any]) -> str:
    """A fixed list by its name and hash, and what is not the list's own."""
    changed = "".join(f", {key} {value}" for key, value in listed["changed"].items())
    return f"{listed['list']} {listed['sha256'][:16]}{changed}"


@dataclass(frozen=True)
class _Scores:
    """What a cell's networks scored; by mode/condition."""

    feature: str
    means: dict[str, dict[str, float]]
    persons: dict[str, PersonScores]


def _score(experiment: Experiment, cell: Cell, cache: Cache) -> _Scores:
    """Scores in every published mode and condition.

    Where the data set has a visible mode, within the visible cameras too, by the fine-tuned network and by the one that
    fine-tuning started from (``frozen``), both raw and centred per camera. Other test persons (``--test``) are many
    and are searched by infrared images alone, clean and corrupted by any type. Sums by person are kept of what tables
    show with intervals.
    """
    last = cell.chain[-1]
    data = experiment.test_data(cell)
    dataset = open_dataset(data)
    seen = training_persons(last.out, data, dataset)
    device = resolve_device(experiment.device)
    runtime = Runtime(device, progress=True, cache=cache)
    settings = _corruption(experiment)
    within = [VISIBLE] if VISIBLE in dataset.modes and not experiment.test else []
    tuned = build_encoder(last.out, last.backbone, (0, 0), 0, device)
    first = replace(last.backbone, last_stride=BackboneConfig.last_stride)
    size = (last.loader.height, last.loader.width)
    frozen = build_encoder(first.init, first, size, last.seed, device) if within else tuned
    modes = [mode for mode in modes_of(cell.data) if mode in dataset.modes]
    scores = _Scores(tuned.headline, {}, {})
    for prefix, encoder, asked in (("", tuned, [*modes, *within]), ("frozen ", frozen, within)):
        scored = clean_and_corrupted(encoder, dataset, asked, settings, runtime, 0, seen) if asked else {}
        for mode, by_condition in scored.items():
            centred = [(f"{mode} centred", encoder.headline + CENTRED)] if mode in within else []
            for name, feature in [(mode, encoder.headline), *centred]:
                for condition in by_condition:
                    key = f"{prefix}{name}/{condition}"
                    scores.means[key] = by_condition[condition].means(feature)
                    shown = f"{prefix}{name}" in WITHIN and condition in MIXTURE_CONDITIONS
                    if shown or mode not in within:
                        scores.persons[key] = person_scores(by_condition[condition].pooled(feature))
    return scores
