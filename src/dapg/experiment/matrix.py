"""The experiment matrix as data: pre-trainings x fine-tuners x data sets x seeds, and each cell's chain of trainings.

A cell is one fine-tuned network: (nothing or) a pre-training, (nothing or) the alignment, a fine-tuning. It is scored
in every mode of its data set, on clean and on corrupted images, so that Tables I and II need 7 x 2 x 2 cells and not
twice as many. Trainings with equal settings share a folder, whichever tables ask for them.
"""

import dataclasses
import fnmatch
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dapg import recipes
from dapg.core import plugins, scales
from dapg.core.errors import UsageError
from dapg.core.files import sha256
from dapg.core.scales import Stage
from dapg.core.settings import to_dict
from dapg.core.train_config import DataConfig
from dapg.methods.runs import FOLDERS, method_class
from dapg.models.weights import pose_weights
from dapg.pose.generate import GenerateSettings
from dapg.training.training_settings import AlignSettings, Positives, PretrainSettings, TrainingSettings

NEED_GENERATED: tuple[Positives, ...] = ("generated", "shuffled")
"""Positives that are taken from a folder of generated pictures."""
SCALES = tuple(scale.name for scale in scales.SCALES.values() if scale.settings != "recommended")
"""Scales at which every method is as it was published, without what helped beyond."""
TABLES = (
    *("primary", "table1", "table2", "table3", "fig1", "beyond", "finetuners", "stage1", "stage2"),
    *("images", "labels"),
)


@dataclass(frozen=True)
class Arm:
    """One way to come by the weights that fine-tuning starts from."""

    title: str
    pretraining: str = ""
    """A file of ``dapg/methods/pretraining``; empty: none, the start's own weights."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Dotted settings of the method that differ from the scale's."""
    alignment: str = ""
    """A file of ``dapg/methods/alignment`` to run after it; empty: none."""
    positives: Positives = "generated"
    """What the alignment aligns a picture with (``AlignSettings.positives``)."""
    aligned: dict[str, Any] = field(default_factory=dict)
    """Dotted settings of the alignment's method that differ from the scale's."""
    align_rate: float = 1.0
    """The alignment's learning rate as a share of the scale's."""
    starts: tuple[str, ...] = ("random", "imagenet")
    """Starts with which the arm makes sense."""
    reconstruction: bool = False
    """Built from a title, as neither code nor text of the method is public."""
    length: float = 1.0
    """Length of stage 1 as a share of the scale's."""
    images: int = 0
    """Unlabelled images that stage 1 sees, drawn by the seed; 0: all of the scale's."""
    equal_passes: bool = False
    """Train stage 1 only as long as MoCo v2's two encoder passes a picture would take, not for equally many steps."""


CORRUPTED, CHANNEL, _ALIGN = {"pair": "corrupted"}, {"channel": 0.5, "channel_order": "before"}, "dapg_align"
MIXED = {"views.mixing": 0.6}
"""Channel mixing in every view, the anchor too, as often as in fine-tuning at scale ``small``."""
MIXED_OUTSIDE = {**MIXED, "positives_reduction": "mean_outside"}
"""The registered stage 1."""
TWO_VIEWS = {"positives": 1, "alpha": 1.0, "symmetric": True, "chain.anchor": "clean"}
"""A clean view and one that is corrupted zero to three times."""
ARMS: dict[str, Arm] = {
    "in-sup": Arm("ImageNet, supervised", starts=("imagenet",)),
    "none": Arm("no pre-training", starts=("random",)),
    "pnl": Arm("PNL", "pnl"),
    "byol": Arm("BYOL", "byol"),
    "ssl": Arm("SSL", "channel_transformer", reconstruction=True),
    "vtbr": Arm("VTBR", "vtbr"),
    "simclr": Arm("SimCLR", "simclr"),
    "dapg": Arm("DAPG, both stages", "dapg", alignment=_ALIGN),
    "dapg-1": Arm("DAPG, stage 1", "dapg"),
    "dapg-1-single": Arm("stage 1 without L_total: InfoNCE with one positive", "mocov2", CORRUPTED),
    "dapg-1-single-batch": Arm(
        "stage 1 without L_total: InfoNCE with one positive, the batch's negatives",
        "dapg",
        {"positives": 1, "alpha": 1.0, "negatives": "batch"},
    ),
    "dapg-2": Arm("stage 2 only", alignment=_ALIGN, align_rate=10.0),
    "mocov2": Arm("MoCo v2", "mocov2"),
    "simclr-corrupted": Arm("SimCLR, corrupted views", "simclr", CORRUPTED),
    "byol-corrupted": Arm("BYOL, corrupted views", "byol", CORRUPTED),
    "dapg-1-passes": Arm("DAPG, stage 1, equal passes", "dapg", equal_passes=True),
    "dapg-1-queue": Arm("stage 1, momentum queue as negatives", "dapg", {"negatives": "queue"}),
    "dapg-1-shared": Arm("stage 1, one crop for all views (literal)", "dapg", {"chain.geometry": "shared"}),
    "dapg-1-outside": Arm("stage 1, positives averaged outside", "dapg", {"positives_reduction": "mean_outside"}),
    "dapg-1-no-js": Arm("stage 1, no JS term", "dapg", {"js_weight": 0.0}),
    "dapg-1-js-12": Arm("stage 1, JS weight 12", "dapg", {"js_weight": 12.0}),
    "dapg-1-tau-0.7": Arm("stage 1, temperature 0.7 (printed)", "dapg", {"temperature": 0.7}),
    "dapg-1-symmetric": Arm("stage 1, each view the anchor in turn", "dapg", {"symmetric": True}),
    "dapg-1-channel": Arm("stage 1, channel-augmented views", "dapg", CHANNEL),
    "dapg-1-mixed": Arm("stage 1, channels mixed in every view", "dapg", MIXED),
    "dapg-1-mixed-second": Arm(
        "stage 1, channels mixed, x_mix in the crop of x2", "dapg", {**MIXED, "chain.mixed_crop": "second"}
    ),
    "dapg-1-mixed-turns": Arm(
        "stage 1, channels mixed, each view the anchor in turn",
        "dapg",
        {**MIXED, "chain.mixed_crop": "second", "symmetric": True, "positives_reduction": "mean_outside"},
    ),
    "dapg-1-mixed-outside": Arm("stage 1, channels mixed, positives averaged outside", "dapg", MIXED_OUTSIDE),
    "dapg-1-mixed-outside-1000": Arm("stage 1 (mixed, outside), 1,000 images", "dapg", MIXED_OUTSIDE, images=1000),
    "dapg-1-mixed-outside-2000": Arm("stage 1 (mixed, outside), 2,000 images", "dapg", MIXED_OUTSIDE, images=2000),
    "dapg-1-mixed-outside-whole": Arm(
        "stage 1 (mixed, outside), whole images corrupted", "dapg", {**MIXED_OUTSIDE, "chain.geometry": "whole"}
    ),
    "dapg-1-mixed-outside-bank": Arm(
        "stage 1 (mixed, outside), two chains of each image kept",
        "dapg",
        {**MIXED_OUTSIDE, "chain.geometry": "whole", "chain.bank": 2},
    ),
    **{
        f"dapg-1-mixed-outside-no-{family}": Arm(
            f"stage 1 (mixed, outside), without {family}", "dapg", {**MIXED_OUTSIDE, "chain.leave_out": (family,)}
        )
        for family in ("noise", "blur", "weather", "digital")
    },
    "dapg-1-mixed-outside-half": Arm("stage 1 (mixed, outside), half as long", "dapg", MIXED_OUTSIDE, length=0.5),
    "dapg-1-mixed-outside-again": Arm("stage 1 (mixed, outside), twice as long", "dapg", MIXED_OUTSIDE, length=2.0),
    "dapg-1-two-views": Arm("stage 1 of two views, clean and corrupted", "dapg", TWO_VIEWS),
    "dapg-1-two-views-mixed": Arm("stage 1 of two views, channels mixed", "dapg", {**TWO_VIEWS, **MIXED}),
    "simclr-mixed": Arm("SimCLR, channels mixed in every view", "simclr", MIXED),
    "dapg-1-curriculum": Arm("stage 1, severities rise over half of it", "dapg", {"curriculum": 0.5}),
    "dapg-1-again": Arm("stage 1 trained as long again", "dapg", length=2.0),
    "dapg-original": Arm("both stages, channels without pose", "dapg", alignment=_ALIGN, positives="original"),
    "dapg-shuffled": Arm("both stages, generated of other persons", "dapg", alignment=_ALIGN, positives="shuffled"),
    "dapg-pose": Arm("both stages, pose without channels", "dapg", alignment=_ALIGN, aligned={"channel": 0.0}),
    "dapg-steep": Arm("both stages, alignment at ten times its rate", "dapg", alignment=_ALIGN, align_rate=10.0),
    "dapg-channel": Arm("both stages, channel-augmented views in both", "dapg", CHANNEL, alignment=_ALIGN),
    "dapg-true": Arm("both stages, true other pictures (uses labels)", "dapg", alignment=_ALIGN, positives="true"),
}
"""Every arm by the name that ``--only`` and result files use."""

PERSONS_DRAWN = "data.persons"
"""Setting of a fine-tuner that sees only persons whom its seed draws."""
FINETUNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "pmwgcn-no-mask": ("pmwgcn", {"method.mask": 0.0}),
    "pmwgcn-no-wavelet": ("pmwgcn", {"method.block.wavelet": False}),
    "pmwgcn-no-graph": ("pmwgcn", {"method.block.graph": False}),
    "agw-50": ("agw", {PERSONS_DRAWN: 50}),
    "agw-100": ("agw", {PERSONS_DRAWN: 100}),
}
"""Fine-tuners with a part taken away, or with fewer persons: name -> file of ``dapg/methods/finetuning`` and dotted
settings. Every other name is a file's own."""

_TABLE_ARMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "primary": (("in-sup", "none", "simclr", "dapg-1", "dapg-1-mixed-outside", "dapg"), ("agw", "cil")),
    "table1": (("in-sup", "none", "pnl", "byol", "ssl", "vtbr", "simclr", "dapg"), ("cil", "agw")),
    "table2": (("in-sup", "none", "pnl", "byol", "ssl", "vtbr", "simclr", "dapg"), ("cil", "agw")),
    "table3": (("dapg-1-single", "dapg-1-single-batch", "dapg-2", "dapg-1", "dapg"), ("agw",)),
    "fig1": (("in-sup", "none"), ("agw", "cil", "pmwgcn")),
    "beyond": (
        (
            *("in-sup", "none", "mocov2", "dapg-1-single", "simclr", "simclr-corrupted", "byol", "byol-corrupted"),
            *("dapg-1-single-batch", "dapg-1", "dapg-1-passes", "dapg"),
        ),
        ("agw", "cil", "caj"),
    ),
    "finetuners": (
        ("in-sup", "none", "dapg-1"),
        (
            *("baseline", "agw", "cil", "caj", "pmwgcn"),
            *(name for name, (_, changes) in FINETUNERS.items() if PERSONS_DRAWN not in changes),
        ),
    ),
    "stage1": (
        (
            *("in-sup", "none", "mocov2", "dapg-1-single", "simclr", "simclr-corrupted", "byol", "byol-corrupted"),
            *("dapg-1-single-batch", "dapg-1", "dapg-1-passes", "dapg-1-queue", "dapg-1-shared", "dapg-1-outside"),
            *("dapg-1-no-js", "dapg-1-js-12", "dapg-1-tau-0.7", "dapg-1-channel", "dapg-1-curriculum"),
            *("dapg-1-symmetric", "dapg-1-mixed", "dapg-1-mixed-second", "dapg-1-mixed-turns", "dapg-1-mixed-outside"),
            *("dapg-1-two-views", "dapg-1-two-views-mixed", "simclr-mixed"),
            *("dapg-1-mixed-outside-whole", "dapg-1-mixed-outside-bank"),
            *(name for name in ARMS if name.startswith("dapg-1-mixed-outside-no-")),
        ),
        ("agw",),
    ),
    "stage2": (
        (
            *("in-sup", "none", "dapg-1", "dapg-1-again", "dapg-original", "dapg-shuffled", "dapg", "dapg-pose"),
            *("dapg-channel", "dapg-steep", "dapg-true", "dapg-1-single", "dapg-1-single-batch", "dapg-2"),
        ),
        ("agw",),
    ),
    "images": (
        (
            *("in-sup", "none", "dapg-1-mixed-outside", "dapg-1-mixed-outside-1000", "dapg-1-mixed-outside-2000"),
            *("dapg-1-mixed-outside-half", "dapg-1-mixed-outside-again"),
        ),
        ("agw",),
    ),
    "labels": (("in-sup", "none", "dapg-1-mixed-outside"), ("agw-50", "agw-100", "agw")),
}
"""Table -> its arms and fine-tuners. ``primary`` is for the registered comparison, ``beyond`` is what a fair comparison
needs and the paper does not have, ``finetuners`` has every way to fine-tune, ``stage1`` and ``stage2`` take the stages
apart and score within the visible cameras too, frozen and fine-tuned; ``images`` and ``labels`` say how the gain grows
with the images and steps of stage 1 and with the persons of fine-tuning."""


Group = tuple[str, str, str]
"""Data set (RegDB's partitions together), start, fine-tuning."""


@dataclass(frozen=True)
class Cell:
    """One fine-tuned network and how it comes about."""

    arm: str
    finetuning: str
    data: str
    """synthetic, sysu, regdb or thermal, the last two with ``-t`` for partition t."""
    start: str
    """Where the very first weights come from: random or imagenet."""
    seed: int
    chain: tuple[TrainingSettings, ...] = ()
    """Trainings in order, the fine-tuning last; empty where ``missing`` says why there are none."""
    missing: str = ""
    """A part that is not in the package; empty: the cell can run."""

    @property
    def name(self) -> str:
        """Unique in one experiment."""
        return f"{self.arm}+{self.finetuning}-{self.data}-{self.start}-{self.seed}"

    @property
    def group(self) -> Group:
        """What it has in common with the cells that it is compared with."""
        return self.data.split("-")[0], self.start, self.finetuning


@dataclass(frozen=True)
class Source:
    """A data set to fine-tune and test on."""

    name: str
    """synthetic, sysu, regdb, or thermal: rendered people in RegDB's layout."""
    root: str = ""


PARTITIONS = {"regdb": 10, "thermal": 3}
"""Data sets that are split into halves of persons several times, each a training of its own."""


def cells(
    tables: Sequence[str],
    scale: str,
    sources: Sequence[Source],
    starts: Sequence[str],
    seeds: int,
    root: Path,
    only: str = "*",
) -> list[Cell]:
    """The cells of the tables, each once, seeds outermost so that every arm has one before any has two.

    Args:
        tables: of ``TABLES``.
        scale: one of ``SCALES``: networks and trainings.
        sources: data sets; RegDB counts ten times, once a partition, thermal people three times.
        starts: random, imagenet or both.
        seeds: seeds 0, 1, ... of each cell.
        root: where the trainings' folders are.
        only: patterns of cell names, separated by spaces.

    Raises:
        UsageError: an unknown table, start or scale, or patterns that fit no cell.
    """
    for table in tables:
        if table not in TABLES:
            raise UsageError(f"no table is called {table!r}; known: {', '.join(TABLES)}, all")
    if scale not in SCALES:
        raise UsageError(f"a scale is {', '.join(SCALES)}, not {scale!r}")
    known = scales.SCALES[scale].starts
    for start in starts:
        if start not in known:
            raise UsageError(f"--scale {scale} starts from {' or '.join(known)}, not from {start!r}")
    wanted: dict[str, tuple[Cell, DataConfig]] = {}
    for seed, start, table in itertools.product(range(seeds), starts, tables):
        arms, finetuners = _rows(table)
        for (name, data), finetuner, arm in itertools.product(_splits(sources), finetuners, arms):
            if start in arm_called(arm).starts:
                cell = Cell(arm, finetuner, name, start, seed)
                wanted.setdefault(cell.name, (cell, data))
    chosen = [name for name in wanted if any(fnmatch.fnmatch(name, pattern) for pattern in only.split())]
    if wanted and not chosen:
        hint = "" if plugins.GIVEN else "; a method of your own needs --plugins FOLDER"
        raise UsageError(f"--only {only!r} fits none of the {len(wanted)} cells, such as {next(iter(wanted))}{hint}")
    return [_with_chain(*wanted[name], scale, root) for name in chosen]


def arm_called(name: str) -> Arm:
    """The arm of a name; a pre-training method from a folder of plug-ins is one by itself."""
    return ARMS.get(name) or Arm(name, name)


def _rows(table: str) -> tuple[list[str], list[str]]:
    """Arms and fine-tuners of a table, and those from folders of plug-ins: each pre-training is one more arm of every
    table, each fine-tuner one more of ``finetuners``.
    """
    arms, finetuners = _TABLE_ARMS[table]
    more = plugins.added_names(FOLDERS["finetune"]) if table == "finetuners" else []
    return [*arms, *plugins.added_names(FOLDERS["pretrain"])], [*finetuners, *more]


def _splits(sources: Sequence[Source]) -> Iterator[tuple[str, DataConfig]]:
    """What cells call it, and where it is."""
    for source in sources:
        if source.name in PARTITIONS:
            for partition in range(1, PARTITIONS[source.name] + 1):
                yield f"{source.name}-{partition}", DataConfig("regdb", source.root, f"train-{partition}")
        else:
            yield source.name, DataConfig(source.name, source.root)


def _with_chain(cell: Cell, data: DataConfig, scale: str, root: Path) -> Cell:
    arm, finetuner, start, seed = cell.arm, cell.finetuning, cell.start, cell.seed
    absent = _absent(arm, finetuner)
    if absent:
        return replace(cell, missing=absent)
    chain: list[TrainingSettings] = []
    spec = arm_called(arm)
    first = None
    if spec.pretraining:
        first = pretraining_settings(spec, scale, start, seed, root)
        chain.append(first)
    if spec.alignment:
        chain.append(alignment_settings(spec, scale, first, start, seed, root))
    plugin, changes = FINETUNERS.get(finetuner, (finetuner, {}))
    last = recipes.finetuning(plugin, scale, start)
    backbone = replace(last.backbone, init=chain[-1].out) if chain else last.backbone
    last = changed(replace(last, backbone=backbone, seed=seed, data=data), changes)
    chain.append(replace(last, out=str(folder(root, "finetune", last))))
    return replace(cell, chain=tuple(chain))


def pretraining_settings(spec: Arm, scale: str, start: str, seed: int, root: Path) -> PretrainSettings:
    """Stage 1 of an arm, in a folder below ``root``."""
    settings = recipes.pretraining(spec.pretraining, scale, start)
    settings = replace(settings, method=changed(settings.method, spec.changes), seed=seed)
    file, labels = settings.method.line_file, method_class("pretrain", settings.name).needs_labels
    if file and (scales.SCALES[scale].labelled or not labels):  # else the data brings labels of its own
        data = replace(settings.data, split=scales.SCALES[scale].stages["pretrain"].split)  # what the others see
        settings = replace(
            settings, data=data, method=changed(settings.method, {file: str(root / file / f"{data.name}.tsv")})
        )
    if spec.images:
        settings = replace(settings, data=replace(settings.data, subset=spec.images))
    share = spec.length * (2 / settings.method.passes if spec.equal_passes else 1.0)
    settings = replace(settings, train=settings.train.lasting(share))
    return replace(settings, out=str(folder(root, "pretrain", settings)))


def alignment_settings(
    spec: Arm, scale: str, first: PretrainSettings | None, start: str, seed: int, root: Path
) -> AlignSettings:
    """Stage 2, fitted to the settings of the stage 1 before it if there is one."""
    settings = recipes.alignment(spec.alignment, scale, first or "", start)
    optimizer = replace(settings.train.optimizer, lr=spec.align_rate * settings.train.optimizer.lr)
    settings = replace(
        settings,
        method=changed(settings.method, spec.aligned),
        positives=spec.positives,
        train=replace(settings.train, optimizer=optimizer),
        seed=seed,
    )
    if spec.positives in NEED_GENERATED:
        name = f"{settings.data.name}-{settings.data.split or 'default'}-{sha256(pose_weights.EMBEDDED)[:10]}"
        settings = replace(settings, generated=str(root / "poses" / name))
    return replace(settings, out=str(folder(root, "align", settings)))


def _absent(arm: str, finetuner: str) -> str:
    """What a cell needs and the package does not have."""
    spec = arm_called(arm)
    tuner, _ = FINETUNERS.get(finetuner, (finetuner, {}))
    wanted: dict[Stage, str] = {"pretrain": spec.pretraining, "align": spec.alignment, "finetune": tuner}
    for stage, name in wanted.items():
        if name and name not in plugins.names(FOLDERS[stage]):
            return f"{FOLDERS[stage].removeprefix('methods.')} method {name!r} is not in the package yet"
    if spec.alignment and spec.positives in NEED_GENERATED and not pose_weights.EMBEDDED.is_file():
        return "no trained pose generator is in the package yet, which the alignment needs"
    return ""


def poses(aligned: AlignSettings) -> GenerateSettings:
    """What makes the pictures that an alignment takes from a folder; every seed and arm shares them."""
    return GenerateSettings(out=aligned.generated, split=aligned.data.split, visible_only=aligned.visible_only)


def folder(root: Path, stage: str, settings: TrainingSettings) -> Path:
    """One folder for equal settings: its name ends in their hash. The place of earlier folders does not count."""
    values = _counted(settings)
    file = (values["method"], settings.method.line_file)
    for where, name in ((values["backbone"], "init"), (values, "generated"), file):
        if "/" in str(where.get(name, "")):
            where[name] = Path(where[name]).name
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
    return root / stage / f"{settings.name}-{digest}"


def _counted(settings: Any) -> Any:
    """Plain values of the settings that change the result."""
    plain = to_dict(settings)

    def drop(kind: Any, values: Any) -> None:
        for item in dataclasses.fields(kind):
            if item.metadata.get("run_only"):
                values.pop(item.name, None)
            elif dataclasses.is_dataclass(getattr(kind, item.name)):
                drop(getattr(kind, item.name), values[item.name])

    drop(settings, plain)
    return plain


def changed(settings: Any, changes: dict[str, Any]) -> Any:
    """Frozen settings with dotted names replaced; names that the settings do not have are an error of the caller."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        inner = changed(getattr(settings, first), {rest: value}) if rest else value
        settings = replace(settings, **{first: inner})
    return settings
