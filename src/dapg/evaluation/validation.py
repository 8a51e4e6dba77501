"""Scores of a method while it is trained."""

from collections.abc import Callable, Sequence

from dapg.core.runtime import Runtime
from dapg.core.types import Trial
from dapg.data.base import Dataset
from dapg.data.verify import unseen_trials
from dapg.features.encoders import Encoder, MethodEncoder
from dapg.features.extract import Unreadable, readable_trials, trial_features
from dapg.features.table import FeatureTable
from dapg.methods.base import Method
from dapg.scoring.metrics import mean_scores, score_trials

Further = Callable[[Encoder, Dataset, Sequence[Trial], FeatureTable], dict[str, float]]
"""More scores of an encoder on the same trials, whose clean features are given."""


def validator(
    dataset: Dataset, mode: str, runtime: Runtime, training_persons: Sequence[int] = (), further: Further | None = None
) -> Callable[[Method], dict[str, float]]:
    """A callable for the training loop: mAP (which chooses), rank-1 and mINP of the headline feature, and ``further``.

    Trials that test any of ``training_persons`` are left out.

    Raises:
        UsageError: no such mode, or every trial of it tests training persons.
    """
    trials = unseen_trials(dataset.trials(mode), training_persons)

    def validate(method: Method) -> dict[str, float]:
        encoder = MethodEncoder(method, runtime.device)
        unreadable: Unreadable = {}  # no reason to end a training
        table = trial_features(encoder, dataset, trials, runtime, unreadable)
        scored = readable_trials(trials, unreadable)
        mean = mean_scores(score_trials(table[encoder.headline], table.trials(scored)))
        scores = {"mAP": mean.mAP, "rank-1": mean.rank(1), "mINP": mean.mINP}
        return scores if further is None else scores | further(encoder, dataset, scored, table)

    return validate
