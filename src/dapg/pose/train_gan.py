"""Trains a pose generator: two networks against each other. Its own short loop; set-up and checkpoints as elsewhere.

As in ``training/loop.py`` the images of step t and all draws for them are functions of (seed, t), and what has memory
(both networks, the average of the generator, one optimiser) is in the checkpoint: a resumed run is exact. One process.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from dapg.augment.carry import carry
from dapg.augment.skeleton import draw_skeletons
from dapg.core.batch import Batch
from dapg.core.device import resolve_device, send
from dapg.core.errors import UsageError
from dapg.core.files import atomic_write_text
from dapg.core.images import IMAGENET_MEAN, IMAGENET_STD, normalise, to_float
from dapg.core.key_points import mirror
from dapg.core.metrics_log import MetricsLog
from dapg.core.progress import progress_bar
from dapg.core.ranges import Count, CountOrZero, Decay, Seed, Share, Weight
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.run_folder import RunFolder
from dapg.core.schema import wall
from dapg.core.settings import run_only, to_dict
from dapg.core.train_config import DataConfig
from dapg.core.types import UNKNOWN, JsonObject, Record
from dapg.core.words import without_folders
from dapg.data.base import Dataset
from dapg.data.image_lines import read_groups
from dapg.data.loading import LoaderConfig, training_batches
from dapg.data.samplers import LocalBatches
from dapg.data.source import list_hash, open_dataset, parse_source, select_records
from dapg.losses.adversarial import feature_loss, fools_loss, reconstruction_loss, tells_apart_loss
from dapg.models.backbones.base import Backbone
from dapg.models.blocks.pooling import average_pool
from dapg.models.momentum import momentum_copy, update_momentum
from dapg.models.pn_gan import (
    STRIDE,
    AttentionGenerator,
    DiscriminatorConfig,
    GeneratorConfig,
    PatchDiscriminator,
    PoseGenerator,
    build_generator,
    lay,
)
from dapg.models.weights.backbone_weights import init_backbone
from dapg.models.weights.pose_weights import GENERATOR_FILE, GeneratorFacts, load_generator, save_generator
from dapg.pose.mask import person_mask
from dapg.pose.pairs import (
    DESCRIPTIONS,
    Joined,
    PairKind,
    Pairs,
    PairSampler,
    held_out_persons,
    key_points_of,
    make_pairs,
    persons_tested,
    training_records,
)
from dapg.training import checkpoint
from dapg.training.loop import FiniteCheck, Interrupt, not_found_again

CARD = "README.md"
COARSE = 8
"""Pixels over whose mean carried parts are compared with the target."""


@dataclass(frozen=True)
class PairConfig:
    """Where pairs come from."""

    kind: PairKind = "synthetic"
    """labels: identity labels, as published; synthetic: rendered persons; groups: pseudo-persons; self: no labels."""
    groups: str = ""
    """For kind groups: a file with a line ``path<TAB>number`` an image."""
    key_points: str = ""
    """Table of ``dapg pose estimate``; empty: the one beside the data, or the exact ones of synthetic people."""
    more: str = ""
    """More images of the same persons, NAME=PATH (its same split), such as ``dapg data synth --poses canonical``."""
    targets: Literal["all", "more"] = "all"
    """all: every image can be source and target; more: only those of ``more`` are targets, only others sources."""
    held_out: str = ""
    """A data set, NAME or NAME=PATH, with the same person numbers, whose validation and test persons are left out."""
    visible_only: bool = True
    """Leave infrared images out: the paper generates visible ones."""
    mirror: bool = False
    """Mirror half of the pairs (the published training does not)."""
    uncarried: Share = 0.1
    """Share of the pairs in which a generator with ``carry`` gets no carried parts: it must work without them too."""


@dataclass(frozen=True)
class GanLossConfig:
    """Weights of the terms."""

    adversarial: Weight = 1.0
    """Weight of fooling the discriminator (naiq/PN_GAN: 1)."""
    adversarial_from: Share = 0.0
    """Part of the training after which the discriminator comes in; 0: from the start, as published."""
    real: Literal["source", "target"] = "target"
    """Which image is the real one; the published training shows the source."""
    reconstruction: Weight = 10.0
    """Weight of the absolute difference to the target image (naiq/PN_GAN: 10)."""
    person_weight: Weight = 3.0
    """How many times more a pixel of the person counts than others; 1 as published."""
    features: Weight = 2.0
    """Weight of the likeness of ImageNet MobileNetV2's features; 0 as published."""
    identity: Weight = 0.0
    """Weight of the likeness of its last features, of the person alone before grey; 0 as published."""
    coarse: Weight = 10.0
    """With carried parts: weight of the absolute difference of means over 8 x 8 pixels, once they are laid over what
    is painted. Pixel by pixel a texture that is a little off would cost more than none."""
    trust: Weight = 2.5
    """With carried parts: weight of each share of them that is painted over, so that this must be worth it."""
    cycle: Weight = 10.0
    """For self pairs: weight of coming back to the image through another pose."""


@dataclass(frozen=True)
class GanTrainConfig:
    """How long, how large, how often."""

    steps: CountOrZero = 0
    """Steps (one of each network); 0: ``epochs`` decides."""
    epochs: Weight = 20.0
    """Passes over all pairs when ``steps`` is 0 (naiq/PN_GAN: 20)."""
    batch_size: Count = 32
    """Pairs a step (naiq/PN_GAN: 32)."""
    lr: Weight = 2e-4
    """Adam's rate for both networks (naiq/PN_GAN: 2e-4)."""
    discriminator_lr: Weight = 2e-4
    """The discriminator's own rate."""
    beta_1: Decay = 0.5
    """Adam's (naiq/PN_GAN: 0.5)."""
    beta_2: Decay = 0.999
    """Adam's."""
    by_epoch: bool = False
    """Hold the rate within an epoch as published (the last of 20 epochs then has rate 0)."""
    constant: Share = 0.5
    """Part of the training before the rate falls linearly to 0 (naiq/PN_GAN: 10 of 20 epochs)."""
    average: Share = 0.0
    """Momentum of an average of the generator's weights, which is then the result; 0, as published: last weights."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Autocast type."""
    checkpoint_every: Count = run_only(500)
    """Steps between checkpoints."""
    keep_last: Count = run_only(2)
    """Checkpoints kept."""
    log_every: Count = run_only(20)
    """Steps between lines of metrics.jsonl."""

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch))


@dataclass(frozen=True)
class GanSettings:
    """Everything a GAN training depends on; ``pose/recipe.py`` has complete ones."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The network that is kept."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """Its opponent."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images; never a test split."""
    pairs: PairConfig = field(default_factory=PairConfig)
    """Which two images belong together."""
    losses: GanLossConfig = field(default_factory=GanLossConfig)
    """Weights of the terms."""
    train: GanTrainConfig = field(default_factory=GanTrainConfig)
    """Length, optimiser."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """Decoding; the generator works at this size."""
    init: str = ""
    """Start from a trained generator (a file, or a finished run's folder), for example one of a smaller size."""
    seed: Seed = 0
    """Of weights, order of pairs and every draw."""
    out: str = run_only("outputs/pose/gan")
    """Folder of the run."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


class Networks(nn.Module):
    """All that has weights: what a checkpoint holds."""

    def __init__(self, settings: GanSettings) -> None:
        """Build both networks from the seed, or take the generator from ``init``."""
        super().__init__()
        self.generator = _first_generator(settings)
        self.discriminator = PatchDiscriminator(settings.discriminator, generator_from("discriminator", settings.seed))
        self.average = momentum_copy(self.generator) if settings.train.average else None

    def result(self) -> PoseGenerator:
        """The generator that is kept."""
        return self.generator if self.average is None else self.average


def _first_generator(settings: GanSettings) -> PoseGenerator:
    if not settings.init:
        return build_generator(settings.generator, generator_from("pose generator", settings.seed))
    generator, _ = load_generator(settings.init)
    if isinstance(generator, AttentionGenerator) and replace(generator.config, carry=True) == settings.generator:
        start = AttentionGenerator(settings.generator)
        start.take(generator)
        return start
    if generator.config != settings.generator:
        raise UsageError(f"--init {settings.init} holds {generator.config}, not {settings.generator}")
    return generator.requires_grad_(True)


def rate_factor(step: int, total_steps: int, steps_per_epoch: int, config: GanTrainConfig) -> float:
    """Factor on the learning rate at step 0, 1, ...

    Constant for the part ``constant`` of the training, then linear to 0. ``by_epoch``: the published schedule, 1 -
    max(0, e - c) / (E - c) with epoch e = 1 ... E and c = ``constant`` * E, so that the last epoch has rate 0.
    """
    if config.by_epoch:
        epochs = max(1, math.ceil(total_steps / steps_per_epoch))
        flat = config.constant * epochs
        return 1 - max(0.0, step // steps_per_epoch + 1 - flat) / max(epochs - flat, 1e-9)
    flat = config.constant * total_steps
    return 1 - max(0.0, step - flat) / max(total_steps - flat, 1e-9)


def train_gan(settings: GanSettings) -> JsonObject:
    """Train (or go on, or reuse) one pose generator; returns the content of result.json.

    The folder then holds config.yaml, metrics, checkpoints, ``generator.safetensors``, a model card (README.md) that
    says what the pairs were made from, and result.json.

    Raises:
        UsageError: wrong settings, a test split, no pairs, or the folder holds another run.
        DataError, WeightsError: see there.
        TrainingError: a loss that is not finite, or a full disk.
        Terminated: SIGTERM or Ctrl-C; the checkpoint is named.
    """
    _check(settings)
    stage = RunFolder(Path(settings.out), settings, "pose train", extendable=("train.steps", "train.epochs"))
    finished = stage.open()
    if finished is not None:
        stage.close()
        return {**finished, "reused": True}
    with stage.working():
        return stage.finish(_train(settings, stage.folder))


def _check(settings: GanSettings) -> None:
    if settings.loader.height % STRIDE or settings.loader.width % STRIDE:
        raise UsageError(f"--loader.height and --loader.width are multiples of {STRIDE}")
    if settings.losses.adversarial:
        settings.discriminator.check_size(settings.loader.height, settings.loader.width)
    if settings.data.split in ("val", "test", "query", "gallery"):
        raise UsageError(
            f"--data.split {settings.data.split}: a generator that saw test persons would spoil every score"
        )
    if settings.losses.real == "source" and settings.discriminator.sees_pose:
        raise UsageError("a discriminator that sees the pose needs --losses.real target: only its pose is known")


@dataclass(frozen=True)
class TrainingData:
    """What the loop reads."""

    dataset: Dataset
    records: list[Record]
    pairs: Pairs


def open_pairs(settings: GanSettings) -> TrainingData:
    """Data sets, records and pairs of a run; no test person is among them.

    Raises:
        UsageError: persons of the data set's own test are in the split, or there are no pairs.
        DataError: data or key points are missing.
    """
    config = settings.pairs
    sets = [open_dataset(settings.data)]
    lists = [select_records(sets[0], settings.data, settings.seed)]
    if config.more:
        more = replace(parse_source(config.more), split=settings.data.split)
        sets.append(open_dataset(more))
        lists.append(select_records(sets[1], more, settings.seed))
    left_out: set[int] = set()
    if config.held_out:
        left_out = held_out_persons(open_dataset(parse_source(config.held_out)))
    lists = [training_records(records, left_out, config.visible_only) for records in lists]
    seen = {record.person for records in lists for record in records} & persons_tested(sets[0])
    if seen:
        raise UsageError(
            f"{len(seen)} test persons are in the training images, e.g. person {min(seen)}: take another --data.split"
        )
    tables = (
        key_points_of(part, own, config.key_points, "--pairs.key_points") for part, own in zip(sets, lists, strict=True)
    )
    points = torch.cat(list(tables))
    joined = Joined(sets)
    records = joined.join(lists)
    groups = {f"0/{path}": group for path, group in read_groups(Path(config.groups)).items()} if config.groups else None
    if config.targets == "more" and not config.more:
        raise UsageError("--pairs.targets more needs --pairs.more")
    first_target = len(lists[0]) if config.targets == "more" else 0
    return TrainingData(joined, records, make_pairs(records, points, config.kind, groups, first_target))


# ---- the loop ------------------------------------------------------------------------------------------------------


def _train(settings: GanSettings, run: Path) -> JsonObject:
    data = open_pairs(settings)
    training = _Training(settings, data, run)
    total, start, course = training.total, training.start, training.course
    if start > total:
        raise UsageError(f"{run} has already trained {start} steps, more than the {total} asked for")
    check = FiniteCheck(data.records, run, at_once=training.device.type == "cpu")
    metrics = MetricsLog(run, start)
    interrupt = Interrupt()
    opened = time.perf_counter()
    try:
        with progress_bar("pose GAN", "step", total, start) as bar:
            for done, batch, terms in training.steps(total, check):
                course.bad_images |= {note.name: [note.reason, note.replacement] for note in batch.bad_images}
                course.add(terms)
                bar.update(1)
                if done % settings.train.log_every == 0 or done == total:
                    logs = course.close_window()
                    if not all(map(math.isfinite, logs.values())):
                        _find_broken_step(training, done)
                    metrics.write(done, "train", {**logs, "lr": training.optimizer.param_groups[0]["lr"]})
                    bar.set_postfix_str(f"reconstruction {logs['reconstruction']:.3f}", refresh=False)
                if done % settings.train.checkpoint_every == 0 or done == total or interrupt.received:
                    if check.failed is not None and bool(check.failed):
                        _find_broken_step(training, done)
                    course.seconds, opened = course.seconds + time.perf_counter() - opened, time.perf_counter()
                    saved = checkpoint.save(run, done, training.networks, training.optimizer, course.state())
                    checkpoint.prune(run, settings.train.keep_last, keep_best=False)
                    if interrupt.received and done < total:
                        raise interrupt.stopped(f"at step {done}; checkpoint: {saved}")
    finally:
        interrupt.restore()
        metrics.close()
    facts = {"steps": total, "seconds": course.seconds, "logs": course.logs, "bad_images": course.bad_images}
    return _finish(settings, run, training.networks, data, facts)


@dataclass
class _Course:
    """What a training remembers beside networks and optimiser; in every checkpoint."""

    seconds: float = 0.0
    logs: dict[str, float] = field(default_factory=dict)
    """Means over the last window."""
    bad_images: dict[str, list[str]] = field(default_factory=dict)
    steps: int = 0
    """In the window that is open."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Over these steps."""

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Take the terms of one step."""
        self.steps += 1
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def close_window(self) -> dict[str, float]:
        """Means since the last call; they come from the device at once."""
        means = (torch.stack(list(self.sums.values())) / self.steps).tolist()
        self.logs = dict(zip(self.sums, means, strict=True))
        self.steps, self.sums = 0, {}
        return self.logs

    def state(self) -> JsonObject:
        """Plain values and tensors on the host, for a checkpoint."""
        return {**vars(self), "sums": {name: total.cpu() for name, total in self.sums.items()}}


class _Training:
    """The steps of one training from its newest checkpoint on, or from the beginning."""

    def __init__(self, settings: GanSettings, data: TrainingData, run: Path) -> None:
        self.settings, self.data, self.run, self.device = settings, data, run, resolve_device(settings.device)
        self.sampler = PairSampler(data.pairs, settings.train.batch_size, settings.seed)
        self.total = settings.train.total_steps(self.sampler.steps_per_epoch)
        self.networks = Networks(settings).to(self.device)
        self.optimizer = _optimizer(self.networks, settings.train)
        self.start, self.course = _restore(run, self.networks, self.optimizer)

    def steps(self, end: int, check: FiniteCheck) -> Iterator[tuple[int, Batch, dict[str, Tensor]]]:
        """Do the steps up to ``end``: how many are done, the batch and the named terms after each.

        Raises:
            TrainingError: a term is not finite, and ``check`` looks at once.
        """
        settings, data, pinned = self.settings, self.data, self.device.type == "cuda"
        step_of = _Step(settings, self.networks, self.optimizer, data.pairs.points, self.device)
        local = LocalBatches(self.sampler, self.start, end)
        batches = training_batches(data.dataset, data.records, local, settings.loader, pinned)
        for step, batch in enumerate(batches, self.start):
            factor = rate_factor(step, self.total, self.sampler.steps_per_epoch, settings.train)
            for group in self.optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            terms = step_of(batch.to(self.device), step, self.total)
            check.add(step, list(terms.values()), [batch.indices], terms)
            yield step + 1, batch, terms


def _find_broken_step(training: _Training, reached: int) -> NoReturn:
    """Do the steps since the last checkpoint again, which are functions of (seed, step), and look at each.

    Raises:
        TrainingError: names the step, or those among which it was, should it not come again.
    """
    again = _Training(training.settings, training.data, training.run)
    for _ in again.steps(reached, FiniteCheck(training.data.records, training.run, at_once=True)):
        pass
    raise not_found_again(again.start, reached, training.run)


def _optimizer(networks: Networks, config: GanTrainConfig) -> torch.optim.Optimizer:
    """One Adam for both: a parameter without gradient is passed over, so it equals two, and is stored once."""
    rates = ((networks.generator, config.lr), (networks.discriminator, config.discriminator_lr))
    groups = [{"params": list(network.parameters()), "lr": rate, "base_lr": rate} for network, rate in rates]
    return torch.optim.Adam(groups, betas=(config.beta_1, config.beta_2))


def _restore(run: Path, networks: Networks, optimizer: torch.optim.Optimizer) -> tuple[int, _Course]:
    device = next(networks.parameters()).device

    def take(candidate: checkpoint.Checkpoint) -> tuple[int, _Course]:
        state = checkpoint.load(candidate, networks, optimizer)
        with wall(f"checkpoint {candidate.folder}"):
            course = _Course(**state)
            course.sums = {name: total.to(device) for name, total in course.sums.items()}
        return candidate.step, course

    return checkpoint.restore(run, device, take) or (0, _Course())


@dataclass(frozen=True)
class _Pairs:
    """B pairs on the device; images in [-1, 1]."""

    source: Float[Tensor, "B 3 H W"]
    source_points: Float[Tensor, "B 18 3"]
    target: Float[Tensor, "B 3 H W"]
    target_points: Float[Tensor, "B 18 3"]
    pose: Float[Tensor, "B 3 H W"]
    """The targets' skeletons."""
    carried: Bool[Tensor, "B"]
    """Pairs that get carried parts."""


class _Step:
    """One update of the generator, then one of the discriminator."""

    def __init__(
        self,
        settings: GanSettings,
        networks: Networks,
        optimizer: torch.optim.Optimizer,
        points: Float[Tensor, "R 18 3"],
        device: torch.device,
    ) -> None:
        self.settings, self.networks, self.optimizer = settings, networks, optimizer
        self.points = points.to(device)
        self.size = (settings.loader.height, settings.loader.width)
        looks = settings.losses.features or settings.losses.identity
        self.eye = _feature_network().to(device) if looks else None

    def __call__(self, batch: Batch, step: int, total: int) -> dict[str, Tensor]:
        """The named terms, detached."""
        losses = self.settings.losses
        adversarial = losses.adversarial > 0 and step >= losses.adversarial_from * total
        pairs = self._pairs(batch, step)
        self.networks.train()
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.settings.train.precision == "bf16"):
            logs, judged, pose_of_judged = self._improve_generator(pairs, adversarial)
            if adversarial:
                real = pairs.source if losses.real == "source" else pairs.target
                logs |= self._improve_discriminator(real, pairs.pose, judged.detach(), pose_of_judged)
        if self.networks.average is not None:
            momentum = min(self.settings.train.average, (1 + step) / (10 + step))
            update_momentum(self.networks.average, self.networks.generator, momentum)
        return {name: value.detach().float() for name, value in logs.items()}

    def _pairs(self, batch: Batch, step: int) -> "_Pairs":
        """What a step learns from; some pairs mirrored, and some with nothing carried, if asked for."""
        half, options = len(batch) // 2, self.settings.pairs
        images = 2 * to_float(batch.images) - 1
        points = self.points[batch.indices]
        draws = SampleGenerator.for_step(self.settings.seed, step, torch.arange(half))
        if options.mirror:
            chosen: Bool[Tensor, "B"] = send(draws.fork("mirror").bernoulli(0.5), images.device)
            both = torch.cat([chosen, chosen])
            images = torch.where(both[:, None, None, None], images.flip(3), images)
            points = torch.where(both[:, None, None], mirror(points), points)
        pose = 2 * draw_skeletons(points[half:], self.size) - 1
        carried = send(~draws.fork("carried").bernoulli(options.uncarried), images.device)
        return _Pairs(images[:half], points[:half], images[half:], points[half:], pose, carried)

    def _generate(
        self, pairs: "_Pairs", images: Tensor, own: Tensor, points: Tensor, pose: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images whose key points are ``own`` in the poses ``points``, with skeletons ``pose``: made, and painted.

        Both (B, 3, H, W); third, (B, 1, H, W), how much of the carried parts was painted over.
        """
        generator = self.networks.generator
        if not isinstance(generator, AttentionGenerator) or not generator.config.carry:
            generated = generator(images, pose)
            return generated, generated, generated.new_zeros(len(generated), 1, *self.size)
        carried = carry(images, own, points) * pairs.carried[:, None, None, None]
        painted, trust = generator.paint(images, pose, carried)
        return lay(painted, trust, carried), painted, carried[:, 3:] * (1 - trust)

    def _improve_generator(self, pairs: "_Pairs", adversarial: bool) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The terms, and what the discriminator is to judge with its pose."""
        losses, source, target = self.settings.losses, pairs.source, pairs.target
        generated, painted, lost = self._generate(pairs, source, pairs.source_points, pairs.target_points, pairs.pose)
        person = person_mask(pairs.target_points, self.size)
        terms = {
            "reconstruction": losses.reconstruction * reconstruction_loss(painted, target, person, losses.person_weight)
        }
        if self.settings.generator.carry:
            seen, wanted, where = (functional.avg_pool2d(images, COARSE) for images in (generated, target, person))
            terms["coarse"] = losses.coarse * reconstruction_loss(seen, wanted, where, losses.person_weight)
            terms["trust"] = losses.trust * lost.mean()
        judged, judged_pose = generated, pairs.pose
        if self.settings.pairs.kind == "self":  # own pose above; there and back through the next image's pose
            elsewhere, judged_pose = pairs.target_points.roll(1, dims=0), pairs.pose.roll(1, dims=0)
            judged, _, _ = self._generate(pairs, source, pairs.source_points, elsewhere, judged_pose)
            back, _, _ = self._generate(pairs, judged, elsewhere, pairs.target_points, pairs.pose)
            terms["cycle"] = losses.cycle * reconstruction_loss(back, source, person, losses.person_weight)
        if losses.features:
            terms["features"] = losses.features * feature_loss(self._look(painted), self._look(target))
        if losses.identity:
            known = self._recognise(generated, person), self._recognise(target, person)
            terms["identity"] = losses.identity * feature_loss(*known)
        if adversarial:
            self.networks.discriminator.requires_grad_(False)
            terms["fools"] = losses.adversarial * fools_loss(self._judge(judged, judged_pose))
            self.networks.discriminator.requires_grad_(True)
        self._update(torch.stack(list(terms.values())).sum())
        return terms, judged, judged_pose

    def _improve_discriminator(
        self, real: Tensor, real_pose: Tensor, generated: Tensor, made_pose: Tensor
    ) -> dict[str, Tensor]:
        loss = tells_apart_loss(self._judge(real, real_pose), self._judge(generated, made_pose))
        self._update(loss)
        return {"tells_apart": loss}

    def _judge(self, images: Tensor, poses: Tensor) -> Tensor:
        scores: Tensor = self.networks.discriminator(images, poses if self.settings.discriminator.sees_pose else None)
        return scores

    def _look(self, images: Tensor) -> dict[str, Tensor]:
        """MobileNetV2's maps at strides 2, 4 and 8."""
        assert self.eye is not None
        x = self.eye.stem(normalise((images + 1) / 2, IMAGENET_MEAN, IMAGENET_STD))
        maps = {"stem": x}
        for name in ("layer1", "layer2"):
            for block in self.eye.stages()[name]:
                x = block(x)
            maps[name] = x
        return maps

    def _recognise(self, images: Tensor, person: Tensor) -> dict[str, Tensor]:
        """MobileNetV2's last maps of the person before grey, at stride 16 and on average."""
        assert self.eye is not None
        maps = self.eye(normalise((person * images + 1) / 2, IMAGENET_MEAN, IMAGENET_STD))
        return {"last": maps, "mean": average_pool(maps)}

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def _feature_network() -> Backbone:
    """The embedded ImageNet network; it is not trained."""
    backbone, _ = init_backbone("mobilenet_v2", {"last_stride": 1}, "imagenet", 0)
    return backbone.eval().requires_grad_(False)


# ---- what is left behind -------------------------------------------------------------------------------------------


def _finish(settings: GanSettings, run: Path, networks: Networks, data: TrainingData, course: JsonObject) -> JsonObject:
    persons = sorted({record.person for record in data.records if record.person != UNKNOWN})
    training = {
        "data": to_dict(settings.data),
        "pairs": {**to_dict(settings.pairs), "count": len(data.pairs), "meaning": DESCRIPTIONS[settings.pairs.kind]},
        "pictures": len(data.records),
        "pictures_hash": list_hash(data.records),
        "pictures_without_key_points": data.pairs.without_points,
        "persons": len(persons),
        "person_numbers": persons,
        "steps": course["steps"],
        "batch_size": settings.train.batch_size,
        "seed": settings.seed,
        "init": settings.init,
    }
    facts = GeneratorFacts(settings.loader.height, settings.loader.width, settings.pairs.kind, training)
    save_generator(networks.result(), run / GENERATOR_FILE, facts)
    atomic_write_text(run / CARD, card(facts, networks.result()))
    return {**course, **training, "supervision": settings.pairs.kind}


def card(facts: GeneratorFacts, generator: PoseGenerator) -> str:
    """A model card: what the generator is, what it saw, what it must not be used to claim."""
    training, config = facts.training, generator.config
    weights = sum(weight.numel() for weight in generator.parameters())
    labels = {
        "labels": "It SAW IDENTITY LABELS of its training images: results that use it are not label-free.",
        "synthetic": "It saw no identity label of a real person: its persons are rendered.",
        "groups": "It saw no identity labels; its pseudo-persons come from a file of groups.",
        "self": "It saw no labels.",
    }[facts.supervision]
    start = f", from {without_folders(training['init'])}" if training["init"] else ""
    return f"""# Pose generator

Turns an image of a person and a drawn skeleton into the same person in the skeleton's pose (PN-GAN, Qian et al. 2018;
`dapg pose train`).

* Network: {config.kind}{", with carried parts" if config.carry else ""}, width {config.width}, {config.blocks} blocks,
  {weights / 1e6:.2f} million weights, {facts.height} x {facts.width} pixels.
* Pairs: {training["pairs"]["meaning"]}. {labels}
* Data: {training["data"]["name"]}, {training["pictures"]} images, {training["persons"]} persons,
  {training["pairs"]["count"]} pairs; {training["pictures_without_key_points"]} images without usable key points.
* Training: {training["steps"]} steps of {training["batch_size"]} pairs, seed {training["seed"]}{start}.

What synthetic people show is no claim about real data.
"""
