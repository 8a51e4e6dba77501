"""Whatever a file holds, it is read or one line says what is wrong with it, and nothing is written elsewhere."""

import dataclasses
import functools
import json
import random
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from dapg import recipes
from dapg.commands._settings import parse
from dapg.core import plugins
from dapg.core.errors import DapgError
from dapg.core.files import write_json
from dapg.core.images import FORMATS, decode, grey_values, upright_size
from dapg.core.key_points import KEY_POINT_NAMES
from dapg.core.metrics_log import loss_curve, read_metrics
from dapg.core.ranges import Range
from dapg.core.run_folder import RunFolder
from dapg.core.settings import Dataclass, settings_in, to_dict
from dapg.core.train_config import BackboneConfig
from dapg.core.types import Protocol
from dapg.data.base import Dataset
from dapg.data.cropping import segments, videos
from dapg.data.manifest import GeneratedImage, Manifest, read_manifest, write_manifest
from dapg.data.sets.folder import Folder
from dapg.data.sets.shards import Shards
from dapg.data.shards.pack import pack
from dapg.data.verify import verify
from dapg.evaluation.comparison import combine_results
from dapg.evaluation.corrupted_sets import policy, write_copy
from dapg.evaluation.evaluate import EvaluateSettings, own_data
from dapg.evaluation.feature_files import FileSettings, read_features
from dapg.experiment.matrix import Cell
from dapg.experiment.store import add_cell, read_cells
from dapg.features.neighbours import name_people, read_sightings
from dapg.methods.base import DataFacts
from dapg.methods.runs import backbone_settings, load_method, method_class
from dapg.models.pn_gan import GeneratorConfig, build_generator
from dapg.models.weights import agw_checkpoints
from dapg.models.weights.backbone_weights import export_flat, init_backbone
from dapg.models.weights.pose_weights import GeneratorFacts, load_generator, save_generator
from dapg.pose.estimators.annotations import Annotations
from dapg.pose.key_point_table import KeyPointTable, read_table, write_table
from dapg.report.collect import collect
from dapg.report.score_tables import corruption_rows, score_rows, sureness_rows, training_rows
from dapg.scoring.bootstrap import read_query_scores, write_query_scores
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score
from dapg.training import checkpoint
from made_up_cells import made_up
from mutations import mutated


@dataclass(frozen=True)
class Reader:
    """One reader of files: how to make a sound example, and how to read it."""

    make: Callable[[Path], None]
    read: Callable[[Path], object]


def small_run(folder: Path) -> None:
    """A finished pre-training of a tiny network, with metrics, an environment and an evaluation of it."""
    settings = recipes.pretraining("simclr")
    backbone = dataclasses.replace(settings.backbone, name="resnet18", width=0.02, init="random")
    settings = dataclasses.replace(settings, backbone=backbone, out=str(folder))
    kind = plugins.load("models.backbones", "resnet18", init_backbone_kind())
    network = kind(backbone_settings(backbone), torch.Generator().manual_seed(0))
    method = method_class("pretrain", "simclr")(settings.method, network, DataFacts(4, (1, 2)), torch.Generator())
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"stage": "pretrain", **to_dict(settings)}))
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in method.state_dict().items()}, folder / "method.safetensors")
    result = {
        "steps": 3,
        "seconds": 1.5,
        "pictures_per_second": 9.0,
        "data_wait": 0.1,
        "logs": {"loss": 2.0},
        "bad_images": {"a.jpg": ["cut off", "b.jpg"]},
        "facts": {"pictures": 4, "persons": [1, 2]},
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
        "init": "random",
        "extended_from": [],
        "pictures_seen": 12,
        "data": {"pictures": 4, "hash": "abc", "version": None},
        "precision": "fp32",
    }
    write_json(folder / "result.json", result)
    write_json(folder / "environment.json", {"command": ["dapg"], "packages": {"torch": "2"}, "device": "cpu"})
    write_json(folder / "extensions.json", [{"train.steps": 2}])
    lines = [{"step": step, "kind": "train", "loss": 3.0 / step} for step in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def init_backbone_kind() -> Any:
    from dapg.models.backbones.base import Backbone

    return Backbone


def evaluation(folder: Path) -> None:
    """A finished evaluation with every part that pages show."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"stage": "evaluate", "model": "m", "backbone": {"name": "x"}}))
    picture = {"path": "a.png", "person": 1, "camera": 2, "picture": "pictures/0.jpg"}
    level = {"levels": 2, "std": 0.1}
    spread = {measure: {"repeat": level, "trial": level} for measure in ("rank-1", "mAP", "mINP")}
    interval = {"value": 0.5, "low": 0.4, "high": 0.6, "persons": 9, "seeds": 1}
    corrupted = {"rank-1": 0.4, "mAP": 0.3, "mINP": 0.2, "relative": {"rank-1": 0.9, "mAP": None}, "spread": spread}
    result = {
        "stage": "evaluate",
        "feature": "main",
        "comparable": True,
        "data": {"name": "toy", "mode": "all"},
        "scores": {"main": {"cmc": [0.1, 0.5], "mAP": 0.4, "mINP": 0.3, "queries": 4, "valid_queries": 4}},
        "trials": [{"name": "trial 0", "cause": "gallery", "queries": 4, "gallery": 4}],
        "intervals": dict.fromkeys(("rank-1", "mAP", "mINP"), interval),
        "spread": spread,
        "corrupted": [{"name": "all", "group": "all", "scores": {"main": corrupted}, "per_query": ["queries.npz"]}],
        "ranked_lists": [{"query": picture, "answers": [{**picture, "match": True, "similarity": 0.5}]}],
    }
    write_json(folder / "result.json", result)


def read_report(folder: Path) -> None:
    runs = collect([folder])
    for rows in (score_rows, corruption_rows, sureness_rows, training_rows):
        rows(runs)


def scored(folder: Path) -> None:
    folder.mkdir(parents=True)
    labels = Labels(torch.tensor([1, 2]), torch.tensor([1, 2, 3]), None, None, Protocol("plain"))
    write_query_scores(folder / "queries.npz", {"main": [score(torch.rand(2, 3), labels)]})
    content = {
        "feature": "main",
        "protocol": "plain",
        "data": {"name": "toy", "mode": "all", "hash": "abc"},
        "trials": [{"name": "trial 0", "cause": "gallery"}],
        "comparable": True,
        "per_query": "queries.npz",
        "corrupted": [{"name": "all", "per_query": ["queries.npz"]}],
    }
    write_json(folder / "result.json", content)


def features(folder: Path) -> None:
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {}
    for side in ("query", "gallery"):
        arrays[f"{side}_features"] = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
        arrays |= {f"{side}_persons": np.array([1, 2, 3, 4]), f"{side}_cameras": np.array([1, 2, 3, 4])}
    np.savez(folder / "features.npz", **arrays)


def checkpoints(folder: Path) -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    for step in (1, 2):
        checkpoint.save(folder, step, network, optimizer, {"progress": {"step": step}}, score=0.5)


def read_checkpoints(folder: Path) -> None:
    network = nn.Linear(2, 2)
    for whole in checkpoint.whole_checkpoints(folder):
        checkpoint.load(whole, network, torch.optim.Adam(network.parameters()))
    checkpoint.load_best(folder, network)


def example(name: str) -> Reader:
    """A data set: all its lists, trials and images, and what ``verify`` says."""
    kind = plugins.load("data.sets", name, Dataset)

    def read(folder: Path) -> None:
        dataset = kind(folder)

        def shown(split: str) -> None:
            for record in list(dataset.records(split))[:3]:
                decode(dataset.read(record), (8, 8), record.box, record.path)

        calls: list[Callable[[], object]] = [partial(shown, split) for split in dataset.splits]
        calls += [partial(dataset.trials, mode) for mode in dataset.modes]
        all_of([*calls, partial(verify, dataset)])

    return Reader(kind.write_example, read)


def packed(folder: Path) -> None:
    Folder.write_example(folder.parent / "raw")
    pack(Folder(folder.parent / "raw"), folder, per_shard=3)
    shutil.rmtree(folder.parent / "raw")


def read_packed(folder: Path) -> None:
    """Also as another program's tars, and copied with corruptions: no path may lead out of either."""
    example("shards").read(folder)
    dataset = Shards(folder)
    write_copy(dataset, dataset.records("all"), policy("cil"), folder.parent / "copy")


def labels_csv(folder: Path) -> None:
    Folder.write_example(folder)


def cells(folder: Path) -> None:
    add_cell(folder, made_up(Cell("none", "agw", "synthetic", "random", 0), 0.5, ("all",)))


def generated(folder: Path) -> None:
    pictures = (GeneratedImage("a.jpg", (0, 0, 4, 8), "front", "front/a.png", 0.5), GeneratedImage("b.jpg", None))
    folder.mkdir(parents=True)
    write_manifest(Manifest(folder, pictures, {"poses": ["front"], "generator": "abc"}))


def key_points(folder: Path) -> None:
    folder.mkdir(parents=True)
    keys = (("a.jpg", None), ("b.jpg", (0, 0, 4, 8)))
    write_table(folder / "key_points.npz", KeyPointTable(keys, torch.rand(2, 18, 3), {"estimator": "x"}))


def annotated(folder: Path) -> None:
    folder.mkdir(parents=True)
    points = [[1.0, 2.0, 2]] * len(KEY_POINT_NAMES)
    row = {"path": "cam1/0001/0001.png", "key_points": points, "garments": {"upper": "red shirt"}}
    (folder / "annotations.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "path": "b.png"}) + "\n")
    Folder.write_example(folder)


def sightings(folder: Path) -> None:
    folder.mkdir(parents=True)
    header = "file,video,frame,seconds,left,top,right,bottom,track"
    rows = [f"{n}.jpg,a.mp4,{n},{n / 10},0,0,{n + 4},9,{n % 2}" for n in range(4)]
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    people = ["video,frame,left,top,right,bottom,person", "a.mp4,1,0,0,5,9,Ann", "a.mp4,2,0,0,6,9,Bob"]
    (folder / "people.csv").write_text("\n".join(people) + "\n")


def weights(folder: Path) -> None:
    folder.mkdir(parents=True)
    network, _ = init_backbone("resnet18", backbone_settings(BackboneConfig("resnet18", "random", 0.02)), "random", 0)
    export_flat(network, folder / "backbone.pth")
    from dapg.models.weights.backbone_weights import save_backbone

    save_backbone(network, folder / "model.safetensors")


def read_weights(folder: Path) -> None:
    for file in sorted({*folder.glob("*.pth"), *folder.glob("*.safetensors")}):
        init_backbone("resnet18", backbone_settings(BackboneConfig("resnet18", "random", 0.02)), str(file), 0)


def generator(folder: Path) -> None:
    folder.mkdir(parents=True)
    network = build_generator(GeneratorConfig(width=2))
    save_generator(network, folder / "generator.safetensors", GeneratorFacts(32, 16, "synthetic", {"steps": 3}))


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (24, 12, 3), dtype=np.uint8)
    for form in FORMATS:
        Image.fromarray(noise).save(folder / f"a.{form.lower()}", form)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 16).save(folder / "grey.png")


def read_pictures(folder: Path) -> None:
    calls: list[Callable[[], object]] = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        calls += [
            partial(decode, data, (8, 4), (0, 0, 3, 3)),
            partial(upright_size, data),
            partial(grey_values, data, ""),
        ]
    all_of(calls)


def all_of(calls: Sequence[Callable[[], object]]) -> None:
    """Make every call, then raise the last of our errors."""
    failure: DapgError | None = None
    for call in calls:
        try:
            call()
        except DapgError as error:
            failure = error
    if failure is not None:
        raise failure


def config_file(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(recipes.pretraining("dapg"))))


def read_config(folder: Path) -> None:
    parse("dapg pretrain dapg", _defaults("dapg"), ["--config", str(folder / "config.yaml")], "", ("name",))


@functools.cache
def _defaults(method: str) -> Dataclass:
    return recipes.pretraining(method)


def reopened(folder: Path) -> None:
    settings = recipes.pretraining("simclr")
    stage = RunFolder(folder, settings, "pretrain", extendable=("train.steps",))
    stage.open()
    (folder / "metrics.jsonl").write_text("")
    stage.finish({"steps": 3})
    write_json(folder / "extensions.json", [{"train.steps": 2}])


def read_reopened(folder: Path) -> None:
    stage = RunFolder(folder, _defaults("simclr"), "pretrain", extendable=("train.steps",))
    stage.open()
    stage.close()
    stage.extensions()


def read_run(folder: Path) -> None:
    load_method(folder)
    own_data(str(folder))
    recipes.alignment("dapg_align", init=str(folder))
    loss_curve(folder)


def film(folder: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(parents=True)
    writer = cv2.VideoWriter(str(folder / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 32))
    for shade in range(8):
        writer.write(np.full((32, 32, 3), 30 * shade, np.uint8))
    writer.release()


def read_film(folder: Path) -> None:
    found, _ = videos.find_videos(folder, 10.0)
    for video in found:
        list(videos.Reader(video, lambda number: True))


def onnx_network(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx_graphs = pytest.importorskip("onnx_graphs")
    folder.mkdir(parents=True)
    onnx_graphs.coloured_peaks(folder / "network.onnx", size=(16, 8))


def read_onnx_network(folder: Path) -> None:
    from dapg.pose.estimators.onnx import HeatMapNetwork

    estimator = HeatMapNetwork(HeatMapNetwork.Config(model=str(folder / "network.onnx")))
    estimator.estimate(torch.zeros(1, 3, 16, 8, dtype=torch.uint8), torch.tensor([[16, 8]]))


def published(folder: Path) -> None:
    folder.mkdir(parents=True)
    names = ("visible_module.visible.conv1.weight", "classifier.weight", "NL_2.0.theta.weight")
    torch.save({"net": {name: torch.rand(2, 2) for name in names}, "epoch": 3}, folder / "agw.t")


def read_published(folder: Path) -> None:
    tensors = agw_checkpoints.read_published(folder / "agw.t")
    agw_checkpoints.persons(tensors)
    agw_checkpoints.non_local_counts(tensors)


def segment(folder: Path) -> None:
    folder.mkdir(parents=True)
    row = {
        "number": 1,
        "seconds": 0.1,
        "box": [0, 0, 4, 9],
        "score": 0.9,
        "file": "a.jpg",
        "sharpness": 1.0,
        "hash": "",
    }
    write_json(
        folder / "000000.json",
        {"fingerprint": "f", "rows": [row], "frames": 1, "undecodable": 0, "missing": 0, "dropped": {}},
    )


_VIDEO = videos.Video("a", Path("a.mp4"), 10.0, 9, "f")

READERS: dict[str, Reader] = {
    "settings": Reader(config_file, read_config),
    "run folder": Reader(reopened, read_reopened),
    "trained run": Reader(small_run, read_run),
    "report of a training": Reader(small_run, read_report),
    "report of an evaluation": Reader(evaluation, read_report),
    "metrics": Reader(small_run, read_metrics),
    "checkpoints": Reader(checkpoints, read_checkpoints),
    "cells": Reader(cells, lambda folder: read_cells(folder, with_persons=True)),
    "query scores": Reader(scored, lambda folder: read_query_scores(folder / "queries.npz")),
    "compared results": Reader(scored, lambda folder: combine_results([folder])),
    "feature file": Reader(features, lambda folder: [read_features(folder / "features.npz", p) for p in _protocols()]),
    "generated images": Reader(generated, lambda folder: read_manifest(folder).by_source()),
    "key points": Reader(key_points, read_table),
    "annotations": Reader(annotated, lambda folder: Annotations(Annotations.Config(), Folder(folder))),
    "sightings": Reader(sightings, lambda folder: name_people(read_sightings(folder), folder, folder / "people.csv")),
    "weights": Reader(weights, read_weights),
    "pose generator": Reader(generator, lambda folder: load_generator(folder / "generator.safetensors")),
    "pictures": Reader(pictures, read_pictures),
    "shards": Reader(packed, read_packed),
    "video": Reader(film, read_film),
    "ONNX network": Reader(onnx_network, read_onnx_network),
    "published checkpoint": Reader(published, read_published),
    "segment of a video": Reader(segment, lambda folder: segments.read_table(folder / "000000.json", _VIDEO)),
    **{f"data set {name}": example(name) for name in plugins.names("data.sets") if name not in ("synthetic", "shards")},
}


def _protocols() -> list[Protocol]:
    from dapg.evaluation.feature_files import PROTOCOLS

    return list(PROTOCOLS.values())


def _files(root: Path) -> dict[str, int]:
    return {
        str(file.relative_to(root)): file.stat().st_mtime_ns
        for file in root.rglob("*")
        if file.is_file() and ".lock" not in file.name
    }


def attack(name: str, count: int, folder: Path, seed: int) -> Counter[str]:
    """Damage an example ``count`` times and read it; what came of it.

    Raises:
        AssertionError: an error that is no line for a user, or a file outside the example's folder and its copy.
    """
    dice, reader, outcomes = random.Random(f"{name} {seed}"), READERS[name], Counter[str]()
    whole, case = folder / "whole" / "example", folder / "case" / "example"
    reader.make(whole)
    files = sorted(file for file in whole.rglob("*") if file.is_file() and ".lock" not in file.name)
    before = _files(folder)
    for number in range(count):
        shutil.copytree(whole, case)
        victim = dice.choice(files)
        data = mutated(victim.read_bytes(), victim.name, dice)
        (case / victim.relative_to(whole)).write_bytes(data)
        where = f"{name}, mutation {number} of seed {seed}: {victim.name} became {data[:200]!r}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(case)
            outcomes["read"] += 1
        except DapgError as error:
            text = str(error)
            assert text.isprintable(), where
            assert text, where
            assert "bug" not in text, where
            assert len(text) < 1000, f"{where}: {text}"
            outcomes["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        shutil.rmtree(case.parent)
        outside = _files(folder)
        assert outside == before, f"{where}: wrote {sorted(outside.keys() ^ before.keys())}"
    return outcomes


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_named(tmp_path: Path, name: str) -> None:
    outcomes = attack(name, 6, tmp_path, seed=1)
    assert outcomes.total() == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_are_read_or_named(tmp_path: Path, name: str) -> None:
    """220 of each reader, more than 5,000 in all; the sums are in docs/reliability.md."""
    started = time.process_time()
    outcomes = attack(name, 220, tmp_path, seed=2)
    print(f"\n{name}: {dict(sorted(outcomes.items()))}, {time.process_time() - started:.0f} s")


# ---- settings


def commands() -> Iterator[tuple[str, Dataclass]]:
    """Every command's settings by its name, with those of each of its plug-ins."""
    stages: dict[str, tuple[str, Callable[[str], Dataclass]]] = {
        "pretraining": ("pretrain", recipes.pretraining),
        "alignment": ("align", recipes.alignment),
        "finetuning": ("finetune", recipes.finetuning),
    }
    for folder, (stage, make) in stages.items():
        for method in plugins.names(f"methods.{folder}"):
            yield f"dapg {stage} {method}", make(method)
    yield "dapg evaluate", EvaluateSettings("random")
    yield "dapg score", FileSettings()


def _numeric(hint: object) -> bool:
    return get_origin(hint) is Annotated or any(map(_numeric, get_args(hint)))


def words_for(hint: Any) -> list[str]:
    """What a user may type by mistake: numbers beyond the range, and what is no number."""
    odd = ["", "nan", "inf", "-1e400", "1e9999", "-1", "0", "9" * 5000, "1_0", "0x10", "true", "null", "[1]", "{a: 1}"]
    odd += ["2026-01-01", "*a", "&a 1", "1;2", "1,2,3", "a\0b", "[" * 400, "é", "- 1", "!!python/none", "12:30:45"]
    ranges = [mark for mark in get_args(hint)[1:] if isinstance(mark, Range)] if get_origin(hint) is Annotated else []
    return odd + [str(end) for mark in ranges for end in (mark.low - 1, mark.high + 1, mark.low, mark.high)]


def try_settings(commands: Iterable[tuple[str, Dataclass]], share: float, seed: int) -> Counter[str]:
    dice, outcomes = random.Random(seed), Counter[str]()
    for program, defaults in commands:
        for setting in settings_in(defaults):
            if not _numeric(setting.hint):
                continue
            for word in words_for(setting.hint):
                if dice.random() >= share:
                    continue
                where = f"{program} --{setting.name} {word[:60]!r}"
                try:
                    parse(program, defaults, [f"--{setting.name}={word}"], "", ("name", "model"))
                    outcomes["taken"] += 1
                except DapgError as error:
                    text = str(error)
                    assert text.isprintable(), f"{where}: {text}"
                    assert "bug" not in text, f"{where}: {text}"
                    assert len(text) < 600, f"{where}: {text}"
                    outcomes["refused"] += 1
                except BaseException as error:
                    raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    return outcomes


def test_odd_numbers_are_taken_or_refused_in_one_line() -> None:
    some = [("dapg pretrain dapg", _defaults("dapg")), ("dapg evaluate", EvaluateSettings("random"))]
    assert try_settings(some, 0.02, seed=1).total() > 50


@pytest.mark.slow
def test_every_numeric_setting_refuses_odd_numbers() -> None:
    print(f"\nsettings: {dict(try_settings(commands(), 0.5, seed=2))}")
