"""Everything that each kind of training depends on; ``recipes.py`` has complete ones."""

from dataclasses import dataclass, field
from typing import Literal

from dapg.core.ranges import Count, Seed, Share, Weight
from dapg.core.settings import run_only
from dapg.core.train_config import BackboneConfig, DataConfig, TrainConfig
from dapg.data.loading import LoaderConfig
from dapg.methods.base import MethodConfig


@dataclass(frozen=True)
class TrainingSettings:
    """What every training depends on."""

    name: str
    """Method: a file of ``dapg/methods``, below the kind of training."""
    method: MethodConfig
    """Its own settings (the ``Config`` nested in it)."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images; for a fine-tuning, of persons in both modalities."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network and first weights."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """Decoding."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, optimiser, precision."""
    seed: Seed = 0
    """Of new weights, the order of images and every draw."""
    out: str = run_only("")
    """Folder of the run."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class PretrainSettings(TrainingSettings):
    """Everything a pre-training run depends on; ``recipes.py`` has complete ones."""

    streamed: bool = False
    """Take packed images tar by tar, four tars mixed at a time, so that a disk or network reads in a row."""
    validation: str = ""
    """Test mode of the data set (e.g. visible) scored every ``train.validate_every`` steps and at the end; "" none."""


Positives = Literal["generated", "original", "shuffled", "true"]


@dataclass(frozen=True)
class AlignSettings(PretrainSettings):
    """Everything an alignment depends on; ``recipes.py`` has complete ones."""

    positives: Positives = "generated"
    """What an anchor is aligned with: its person generated in other poses; itself; the generated images of somebody
    else; true other images of its person, by labels. All but the first are for comparison."""
    generated: str = ""
    """Folder of ``dapg pose generate``, for ``generated`` and ``shuffled``."""
    generator: str = ""
    """In place of a folder, for ``generated``: make the images during training by this generator (embedded, a file or
    the folder of a finished ``dapg pose train``). Nobody then looks whether they hit the pose, and no body parts are
    carried, as the images' own key points are not at hand: everything is painted."""
    poses: tuple[str, ...] = ()
    """Which of the generated poses; none: all. ``true`` takes as many images (four where none are named)."""
    least_score: Share = 0.0
    """Generated images whose key points hit the target less than this (PCK at 0.2) are dropped."""
    keep_head: bool = True
    """Go on with the projection head of the run that ``backbone.init`` names."""
    visible_only: bool = True
    """Leave infrared images out: the generator has learnt visible ones."""


@dataclass(frozen=True)
class FinetuneSettings(TrainingSettings):
    """Everything a fine-tuning run depends on; ``recipes.py`` has complete ones.

    An epoch (``train.epochs``) is AGW's: as many steps as show the larger modality once, plus one.
    """

    pictures: Count = 4
    """Images of each person and modality in a batch; ``train.batch_size`` / 2 / this are its persons (AGW: 8 x 4)."""
    selection: Literal["last", "validation", "test"] = "last"
    """Which weights are kept: last, after training on all training persons; validation, those that score best on
    validation persons, who are then not trained on; test, those that score best on the test, as the published code
    does: a score of weights chosen so is no honest test score."""
    validate_epochs: Weight = 0.0
    """Epochs between scores when ``train.validate_every`` is 0; 0 scores at the end only."""
    corrupted_scores: bool = False
    """Score corrupted images beside the clean ones: one test set each of all, seen and unseen corruptions."""
