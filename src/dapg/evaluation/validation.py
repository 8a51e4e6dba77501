"""Scores of a method while it is trained."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from dapg.core.runtime import Runtime
from dapg.data.base import Dataset
from dapg.data.verify import unseen_trials
from dapg.evaluation.corrupted_scores import CorruptionSettings, score_corrupted
from dapg.features.encoders import MethodEncoder
from dapg.features.extract import trial_features
from dapg.methods.base import Method
from dapg.scoring.metrics import mean_scores, score_trials


def validator(
    dataset: Dataset,
    mode: str,
    runtime: Runtime,
    training_persons: Sequence[int] = (),
    corruption: CorruptionSettings | None = None,
) -> Callable[[Method], dict[str, float]]:
    """A callable for the training loop: mAP (which chooses), rank-1 and mINP of the headline feature.

    Trials that test any of ``training_persons`` are left out. With ``corruption`` the same of each of its test sets
    follows (``corrupted all mAP`` ...); the corrupted images stay in memory between validations.

    Raises:
        UsageError: no such mode, or every trial of it tests training persons.
    """
    trials = unseen_trials(dataset.trials(mode), training_persons)
    runtime = replace(runtime, cache={})

    def validate(method: Method) -> dict[str, float]:
        encoder = MethodEncoder(method, runtime.device)
        table = trial_features(encoder, dataset, trials, runtime)
        mean = mean_scores(score_trials(table[encoder.headline], table.trials(trials)))
        scores = {"mAP": mean.mAP, "rank-1": mean.rank(1), "mINP": mean.mINP}
        if corruption is not None:
            sets = score_corrupted(encoder, dataset, trials, corruption, table, runtime)
            for name, set_scores in sets.items():
                means = set_scores.means(encoder.headline)
                scores |= {f"corrupted {name} {measure}": value for measure, value in means.items()}
        return scores

    return validate
