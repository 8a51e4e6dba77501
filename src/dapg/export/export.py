"""Trained weights for others: torchvision's flat dict, a folder in the hub's layout with a model card, ONNX, int8.

Whatever is written is read back, and its features of the same images are compared with those of the run. A killed
export goes on when it is given again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dapg import __version__
from dapg.core.device import resolve_device
from dapg.core.errors import DapgError, UsageError
from dapg.core.files import atomic_write_text, folder_lock, remove_leftovers, sha256, write_json
from dapg.core.results import Training, TrainingSettings
from dapg.core.rng import generator_from
from dapg.core.run_folder import CONFIG, RESULT
from dapg.core.runtime import Runtime
from dapg.core.schema import checked, read_json, read_settings
from dapg.core.settings import to_dict, to_plain, unset
from dapg.core.types import JsonObject, Modality
from dapg.data.base import Dataset
from dapg.data.loading import OnBadImage
from dapg.data.source import open_dataset
from dapg.data.verify import unseen_trials
from dapg.evaluation.evaluate import own_data
from dapg.export.card import environment, model_card, short_card
from dapg.export.onnx_files import (
    FeatureNetwork,
    InputRange,
    calibration_images,
    onnx_difference,
    require_onnx,
    write_int8,
    write_onnx,
)
from dapg.features.extract import Unreadable, readable_trials, trial_features
from dapg.features.onnx_encoder import OnnxEncoder
from dapg.methods.base import Method
from dapg.methods.method_files import describe_method, read_method, save_method
from dapg.methods.published import export_published
from dapg.methods.runs import BACKBONE_WEIGHTS, METHOD_WEIGHTS, load_method
from dapg.models.backbones.base import Backbone
from dapg.models.weights.addresses import Card
from dapg.models.weights.backbone_weights import (
    HUB_FILE,
    backbone_from_file,
    describe,
    export_flat,
    init_backbone,
    save_backbone,
)
from dapg.scoring.metrics import mean_scores, score_trials

FLAT_FILE, CARD, HUB_CONFIG = "backbone.pth", "README.md", "config.json"
PUBLISHED_FILE, UNFINISHED = "published.t", ".unfinished.json"
STAGES = ("pretrain", "align")
"""Whose runs leave one backbone that others can start from."""
FINETUNING = "finetune"
"""Whose runs leave a network of two stems."""


@dataclass(frozen=True)
class ExportSettings:
    """What is written, where to, and under which terms."""

    out: str = "outputs/export"
    """New folder."""
    hub: str = ""
    """A new folder instead of --out, with the hub's files alone: model.safetensors, config.json and the model card."""
    licence: str = ""
    """Licence of the weights, for the model card: an SPDX name or a sentence."""
    onnx: bool = False
    """Write ONNX too (extra onnx): a file for each kind of light that has a stem of its own."""
    onnx_input: InputRange = "unit"
    """What ONNX files take: images in [0, 1] (unit), or normalised by ImageNet's mean and deviation, as boxmot does."""
    on_bad_image: OnBadImage = unset("skip")
    """An image for int8 that cannot be read: leave it out and count it, or stop (fail)."""
    int8: bool = False
    """Write ONNX in 8-bit integers too, ranges chosen on training images, and score both on the run's test data."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how well it agrees with the run."""

    folder: Path
    sha256: dict[str, str]
    """Of each file of weights."""
    onnx_difference: float | None
    """Largest difference of a feature value between torch and onnxruntime; None without ONNX."""
    int8: JsonObject | None
    """mAP and rank-1 of the ONNX files in floating point and in integers."""
    notes: tuple[str, ...]
    """What could not be written, and why."""


def export(run: Path, settings: ExportSettings) -> Exported:
    """Write the weights of a finished run into a folder, check what was written, and say what it is.

    Of a pre-training: ``backbone.pth`` with its description (the layout of the released LUPerson weights),
    ``model.safetensors``, ``config.json`` and ``README.md`` (the hub's layout), ``features.onnx``. Of a fine-tuning:
    the hub's layout, ``published.t`` where the published AGW and CAJ code can build the network, ``visible.onnx`` and
    ``infrared.onnx``. ``dapg.load`` takes the folder or any of the files, ``--init`` all but ONNX.

    A finished folder of the same weights and settings is reused; an unfinished one is gone on with.

    Raises:
        UsageError: not such a run, a folder with something else in it, or ONNX without its packages.
        DapgError: what was written does not give the run's features.
    """
    stored, result = _read_run(run)
    if settings.onnx or settings.int8:
        require_onnx(settings.int8)
    dataset = open_dataset(own_data(str(run))) if settings.int8 else None
    finetuned = stored["stage"] == FINETUNING
    weights = run / (METHOD_WEIGHTS if finetuned else BACKBONE_WEIGHTS)
    out = Path(settings.hub or settings.out)
    order = {"weights": sha256(weights), **to_dict(settings), "out": "", "hub": bool(settings.hub)}
    _claim(out, order)
    with folder_lock(out):
        remove_leftovers(out)
        if (out / HUB_CONFIG).exists():
            (out / UNFINISHED).unlink(missing_ok=True)  # of a call that was killed right before its end
            return _exported(out, read_json(out / HUB_CONFIG))
        card = short_card(run, stored, result, settings.licence, finetuned)
        views = stored["method"]["views"]
        size, split, persons = (views["height"], views["width"]), stored["data"]["split"], result["facts"]["persons"]
        work = _Work(run, out, settings, size, card, dataset, split, persons)
        config = _write_method(work) if finetuned else _write_backbone(work, stored)
        names = sorted(path.name for path in out.iterdir() if path.suffix in (".pth", ".safetensors", ".t", ".onnx"))
        config |= {
            "dapg_version": __version__,
            "input": {"height": work.size[0], "width": work.size[1], "range": [0, 1], "channels": "RGB"},
            "data": result["data"] | {"name": stored["data"]["name"], "split": stored["data"]["split"]},
            "sha256": {name: sha256(out / name) for name in names},
            "export": order,
        }
        atomic_write_text(out / CARD, model_card(config, stored, result, environment(run), card))
        write_json(out / HUB_CONFIG, config)  # last: it says that the folder is whole
        (out / UNFINISHED).unlink(missing_ok=True)
        return _exported(out, config)


def _exported(out: Path, config: JsonObject) -> Exported:
    return Exported(
        out, config["sha256"], config.get("onnx_difference"), config.get("int8"), tuple(config.get("notes", ()))
    )


def _read_run(run: Path) -> tuple[JsonObject, JsonObject]:
    """Settings and result of a finished run that leaves weights."""
    if not (run / CONFIG).exists():
        raise UsageError(f"{run} is not a run: it has no {CONFIG}")
    if not (run / RESULT).exists():
        raise UsageError(f"the run in {run} is not finished: run its command again to go on")
    settings = read_settings(run / CONFIG)
    if settings.get("stage") not in (*STAGES, FINETUNING):
        raise UsageError(f"{run} is a run of `{settings.get('stage')}`, which leaves no weights")
    checked(settings, TrainingSettings, run / CONFIG)
    return settings, read_json(run / RESULT, Training)


def _claim(out: Path, order: JsonObject) -> None:
    """Write down what will be exported, or compare with what is written there.

    Raises:
        UsageError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder; give another --out")
    there = {path.name for path in out.iterdir() if not path.name.startswith(".lock")} if out.exists() else set()
    mark = next((name for name in (UNFINISHED, HUB_CONFIG) if name in there), None)
    if not there:
        write_json(out / UNFINISHED, order)
        return
    stored = read_json(out / mark) if mark else None
    held = stored.get("export") if isinstance(stored, dict) and mark == HUB_CONFIG else stored
    if held != to_plain(order):
        raise UsageError(f"{out} is not an empty folder, nor an export of the same weights; give another --out")


@dataclass(frozen=True)
class _Work:
    """What every writer needs."""

    run: Path
    out: Path
    settings: ExportSettings
    size: tuple[int, int]
    card: Card
    dataset: Dataset | None
    """For int8; the run's own."""
    split: str
    """Of the data that the run was trained on; empty: its first."""
    persons: list[int]
    """That the run was trained on."""


def _write(path: Path, write: Callable[[Path], object], check: Callable[[Path], object]) -> None:
    """Write what a killed export did not, and look at it in any case."""
    if not path.exists():
        write(path)
    check(path)


def _write_backbone(work: _Work, stored: JsonObject) -> JsonObject:
    """The files of a pre-training; returns what ``config.json`` says."""
    backbone, _ = backbone_from_file(work.run / BACKBONE_WEIGHTS)
    facts = {
        "stage": stored["stage"],
        "method": stored["name"],
        "name": stored["name"],
        "dapg_version": __version__,
        "input": list(work.size),
        "card": to_dict(work.card),
    }
    check = partial(_check_backbone, backbone, _pooled(backbone, work.size), work.size)
    if not work.settings.hub:
        _write(work.out / FLAT_FILE, lambda path: export_flat(backbone, path, facts), check)
    _write(work.out / HUB_FILE, lambda path: save_backbone(backbone, path, facts), check)
    about = {**describe(backbone, facts), "feature": "backbone", "feature_dim": backbone.feature_dim}
    return about | _write_onnx_files(work, backbone)


def _write_method(work: _Work) -> JsonObject:
    """The files of a fine-tuning; returns what ``config.json`` says."""
    method = load_method(work.run)
    expected = {light: _features(method, light) for light in Modality}
    _write(work.out / HUB_FILE, lambda path: save_method(method, path, work.card), partial(_check_method, expected))
    about = describe_method(method, work.card)
    about |= {"feature": method.headline, "feature_dim": expected[Modality.VISIBLE].shape[1]}
    if not work.settings.hub:
        try:
            export_published(work.run, work.out / PUBLISHED_FILE)
        except UsageError as error:
            about["notes"] = [f"no {PUBLISHED_FILE}: {error}"]
    return about | _write_onnx_files(work, method)


def _write_onnx_files(work: _Work, network: Backbone | Method) -> JsonObject:
    """ONNX where it is wanted: one file for each stem, in floating point and in integers."""
    settings, results = work.settings, dict[str, object]()
    if not (settings.onnx or settings.int8):
        return {}
    if isinstance(network, Backbone):
        paths = {Modality.VISIBLE: work.out / "features.onnx"}
    else:
        paths = {light: work.out / f"{light.name.lower()}.onnx" for light in Modality}
    differences = []
    for light, path in paths.items():
        features = FeatureNetwork(network, light, settings.onnx_input)
        facts = {
            "architecture": (network if isinstance(network, Backbone) else network.backbone).architecture,
            "licence": work.card.licence,
            "terms": work.card.terms,
        }
        if not path.exists():
            write_onnx(features, work.size, path, facts)
        differences.append(onnx_difference(features, work.size, path))
    results["onnx_difference"] = max(differences)
    if work.dataset is not None:
        bad: Unreadable | None = {} if settings.on_bad_image == "skip" else None
        for light, path in paths.items():
            if not _int8(path).exists():
                images = calibration_images(work.dataset, work.split, light, work.size, settings.onnx_input, bad)
                write_int8(path, _int8(path), images)
        results["int8"] = _loss(work, next(iter(paths.values())), bad)
    return results


def _int8(path: Path) -> Path:
    return path.with_suffix(".int8.onnx")


def _loss(work: _Work, path: Path, unreadable: Unreadable | None) -> JsonObject:
    """MAP and rank-1 in floating point and in integers, by the first protocol of the run's data."""
    assert work.dataset is not None
    if not work.dataset.modes:
        raise UsageError(f"{work.dataset.title} has no test protocol, so that the loss by int8 could not be stated")
    mode = work.dataset.modes[0]
    trials = unseen_trials(work.dataset.trials(mode, 0), work.persons)
    scores: JsonObject = {"data": work.dataset.title, "mode": mode, "mAP": {}, "rank_1": {}}
    for name, file in (("fp32", path), ("int8", _int8(path))):
        encoder = OnnxEncoder(file)
        table = trial_features(encoder, work.dataset, trials, Runtime(resolve_device("cpu")), unreadable)
        rows = table.trials(readable_trials(trials, unreadable or {}))
        means = mean_scores(score_trials(table[encoder.headline], rows))
        scores["mAP"][name], scores["rank_1"][name] = means.mAP, means.rank(1)
    if unreadable:
        scores["unreadable"] = unreadable
    return scores


def _images(size: tuple[int, int]) -> Float[Tensor, "3 3 H W"]:
    return torch.rand(3, 3, *size, generator=generator_from("export check"))


@torch.no_grad()
def _pooled(backbone: Backbone, size: tuple[int, int]) -> Float[Tensor, "3 C"]:
    features: Tensor = FeatureNetwork(backbone).eval()(_images(size))
    return features


def _check_backbone(backbone: Backbone, expected: Float[Tensor, "3 C"], size: tuple[int, int], path: Path) -> None:
    """Load as ``--init`` does, into other random weights, and compare."""
    again, _ = init_backbone(backbone.architecture, backbone.config, str(path), seed=1)
    _require_equal(path, expected, _pooled(again, size))


def _check_method(expected: Mapping[Modality, Float[Tensor, "3 D"]], path: Path) -> None:
    again = read_method(path).method
    for light, features in expected.items():
        _require_equal(path, features, _features(again, light))


@torch.no_grad()
def _features(method: Method, light: Modality) -> Float[Tensor, "3 D"]:
    return method.encode(_images(method.input_size), light)[method.headline]


def _require_equal(path: Path, expected: Tensor, features: Tensor) -> None:
    if not torch.equal(features, expected):
        worst = float((features - expected).abs().max())
        raise DapgError(f"{path} was written, but gives other features (up to {worst:.2g}): do not use it")
