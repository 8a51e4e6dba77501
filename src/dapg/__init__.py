"""dapg: pre-training for visible-infrared person re-identification under corruption.

The names below are public and described in docs/reference/api.md; each is imported when it is first asked for, so that
``import dapg`` is fast and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dapg.core.errors import DapgError as DapgError
    from dapg.core.rng import SampleGenerator as SampleGenerator
    from dapg.core.train_config import DataConfig as DataConfig
    from dapg.core.types import Modality as Modality
    from dapg.core.types import Protocol as Protocol
    from dapg.core.types import Record as Record
    from dapg.core.types import Trial as Trial
    from dapg.corruptions._single_image import corrupt as corrupt
    from dapg.corruptions._single_image import corrupt_batch as corrupt_batch
    from dapg.corruptions.base import Corruption as Corruption
    from dapg.data.base import Dataset as Dataset
    from dapg.data.source import open_dataset as open_dataset
    from dapg.evaluation.evaluate import EvaluateSettings as EvaluateSettings
    from dapg.evaluation.evaluate import evaluate as evaluate
    from dapg.evaluation.feature_files import score_file as score_file
    from dapg.features.model import Model as Model
    from dapg.features.model import load as load
    from dapg.gallery.database import Filters as Filters
    from dapg.gallery.gallery import Gallery as Gallery
    from dapg.gallery.search import SearchResult as SearchResult
    from dapg.methods.base import Method as Method
    from dapg.methods.runs import load_method as load_method
    from dapg.models.backbones.base import Backbone as Backbone
    from dapg.pipelines.train import train as train
    from dapg.recipes import alignment as alignment
    from dapg.recipes import finetuning as finetuning
    from dapg.recipes import pretraining as pretraining
    from dapg.scoring.labels import Labels as Labels
    from dapg.scoring.metrics import Scores as Scores
    from dapg.scoring.metrics import score as score
    from dapg.scoring.metrics import score_features as score_features
    from dapg.training.align import align as align
    from dapg.training.finetune import finetune as finetune
    from dapg.training.pretrain import pretrain as pretrain

__version__ = "0.1.0"

_HOMES = {
    "core.errors": ("DapgError",),
    "core.rng": ("SampleGenerator",),
    "core.train_config": ("DataConfig",),
    "core.types": ("Modality", "Protocol", "Record", "Trial"),
    "corruptions._single_image": ("corrupt", "corrupt_batch"),
    "corruptions.base": ("Corruption",),
    "data.base": ("Dataset",),
    "data.source": ("open_dataset",),
    "evaluation.evaluate": ("EvaluateSettings", "evaluate"),
    "evaluation.feature_files": ("score_file",),
    "features.model": ("Model", "load"),
    "gallery.database": ("Filters",),
    "gallery.gallery": ("Gallery",),
    "gallery.search": ("SearchResult",),
    "methods.base": ("Method",),
    "methods.runs": ("load_method",),
    "models.backbones.base": ("Backbone",),
    "pipelines.train": ("train",),
    "recipes": ("alignment", "finetuning", "pretraining"),
    "scoring.labels": ("Labels",),
    "scoring.metrics": ("Scores", "score", "score_features"),
    "training.align": ("align",),
    "training.finetune": ("finetune",),
    "training.pretrain": ("pretrain",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ("__version__", *_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'dapg' has no public name {name!r}; see dapg.__all__")
    value: object = getattr(importlib.import_module(f"dapg.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
