"""The part of a result's JSON that is the same whatever the features came from: rules, trials, scores, how sure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from dapg.core.types import JsonObject, Protocol, Trial
from dapg.scoring.bootstrap import MEASURES, intervals, spread
from dapg.scoring.metrics import Accuracy, Scores, mean_scores


def describe_trial(trial: Trial) -> JsonObject:
    """Name, sizes, and where the split comes from."""
    return {
        "name": trial.name,
        "queries": len(trial.query),
        "gallery": len(trial.gallery),
        "drawn": trial.drawn,
        "cause": trial.cause,
    }


def describe_scores(
    protocol: Protocol, trials: Sequence[JsonObject], feature: str, scores: Mapping[str, Sequence[Scores]]
) -> JsonObject:
    """Protocol, rules, trials and scores of every feature; intervals and spread of the reported one.

    Args:
        protocol: the rules.
        trials: what ``describe_trial`` says of each.
        feature: the one to report.
        scores: of each feature, one entry a trial.
    """
    reported = scores[feature]
    return {
        "protocol": protocol.name,
        "rules": {**asdict(protocol), "camera_groups": dict(protocol.camera_groups)},
        "trials": list(trials),
        "feature": feature,
        "scores": {name: summary(of_trials) for name, of_trials in scores.items()},
        "intervals": {
            measure: asdict(interval)
            for measure, interval in intervals([[trial.per_query for trial in reported]]).items()
        },
        "spread": {measure: spread(_observations(trials, reported, measure)) for measure in MEASURES},
    }


def summary(trials: Sequence[Scores]) -> JsonObject:
    """Mean over the trials as the papers print it, and each trial's numbers."""
    mean = mean_scores(trials)
    return {
        "cmc": list(mean.cmc),
        "mAP": mean.mAP,
        "mINP": mean.mINP,
        "queries": trials[0].queries,
        "valid_queries": trials[0].valid_queries,
        "per_trial": [{measure: value_of(trial, measure) for measure in MEASURES} for trial in trials],
    }


def value_of(scores: Accuracy, measure: str) -> float:
    """One of ``MEASURES`` as a fraction."""
    return {"rank-1": scores.rank(1), "mAP": scores.mAP, "mINP": scores.mINP}[measure]


def _observations(
    trials: Sequence[JsonObject], scores: Sequence[Scores], measure: str
) -> list[tuple[dict[str, int | str], float]]:
    """A trial's score under the name of what the trials of this mode differ in."""
    return [
        ({str(trial["cause"]): str(trial["name"])}, value_of(trial_scores, measure))
        for trial, trial_scores in zip(trials, scores, strict=True)
    ]
