"""Score a model by a data set's published protocol: CMC, mAP, mINP, ranked lists."""

from collections.abc import Mapping, Sequence
from typing import Any

from dapg.commands._settings import parse, take_option, take_positional, wants_help
from dapg.core.errors import UsageError

_HELP = """usage: dapg evaluate MODEL [OPTIONS]

Score a model by a data set's test protocol. MODEL is the folder of a finished run, a weights file, or one of
  random       untrained weights        (--backbone resnet18 --backbone.width 0.25 ...)
  imagenet     ImageNet weights         (embedded for --backbone mobilenet_v2)
  histogram    colours alone, no network

examples:
  dapg evaluate outputs/pretrain/first
  dapg evaluate outputs/pretrain/first --data sysu=/data/SYSU-MM01 --mode all
  dapg evaluate outputs/agw --data regdb=/data/RegDB --mode visible-to-thermal --flip true --rerank k-reciprocal
  dapg evaluate imagenet --backbone mobilenet_v2 --out outputs/evaluate/imagenet
  dapg evaluate outputs/pretrain/first --corruption cil --corruption.repeats 3      corrupted pictures beside clean ones
  dapg evaluate MODEL --help    all options

--flip true and --rerank k-reciprocal|query-expansion add rows to the table; the rows without them stay.

Features from any other program, by the published rules (keys query_features, query_persons, query_cameras and the same
with gallery_; cameras where the protocol needs them):
  dapg evaluate --features file.npz --protocol sysu|regdb|llcm|market|plain [--rerank ...] [--out scores.json]

Several models of one method (seeds, RegDB's ten partitions): mean, 95 % interval over test persons and models, and the
spread over seeds, partitions, galleries and corruption repeats, each apart:
  dapg evaluate --combine RESULT RESULT ... [--out combined.json]

Is a difference more than luck? Paired differences (later group minus first) with 95 % intervals; several results of a
group are its seeds or partitions; with more than two groups p is adjusted by Holm's rule:
  dapg evaluate --compare first/result.json second/result.json
  dapg evaluate --compare base-0 base-1 base-2 vs ours-0 ours-1 ours-2 [vs ...] [--out compared.json]
RESULT is a result.json or the folder that holds it.
"""


def main(words: list[str], program: str) -> None:
    """Parse, score, print the table."""
    if wants_help(words):
        print(_HELP, end="")
        return
    if words and words[0] in ("--compare", "--combine"):
        out, rest = take_option(words[1:], "--out", "")
        unknown = [word for word in rest if word.startswith("-")]
        if unknown:
            raise UsageError(f"unknown option {unknown[0]} beside {words[0]}; see {program} --help")
        (_compare if words[0] == "--compare" else _combine)(rest, out, program)
        return
    features, words = take_option(words, "--features", "")
    if features:
        _score_file(features, words, program)
        return
    from pathlib import Path

    from dapg.evaluation.evaluate import EvaluateSettings, default_out, evaluate

    model, words = take_positional(words, "MODEL", None, program)
    defaults = EvaluateSettings(model=model)
    settings = parse(f"{program} {model}", defaults, words, "Score a model.", positionals=("model",))
    settings = default_out(settings)
    result = evaluate(settings)
    _print_scores(result)
    if not result["comparable"]:
        print("these splits are not the published ones: do not put the scores beside published ones")
    print(f"written: {Path(settings.out) / 'result.json'}")


def _print_scores(result: Mapping[str, Any]) -> None:
    """The table: the reported feature first, then the others; how sure, and what moves the score."""
    trials = result["trials"]
    sizes = f"{trials[0]['queries']} queries x {trials[0]['gallery']} gallery pictures"
    print(f"{result['data']['name']}, {result['data']['mode']}: protocol {result['protocol']}, {len(trials)} x {sizes}")
    width = max(map(len, result["scores"]))
    print(f"{'feature':{width}}  rank-1  rank-5    mAP   mINP  queries with a match")
    for name, scores in sorted(result["scores"].items(), key=lambda item: item[0] != result["feature"]):
        numbers = (scores["cmc"][0], scores["cmc"][min(4, len(scores["cmc"]) - 1)], scores["mAP"], scores["mINP"])
        row = "  ".join(f"{100 * number:5.1f}" for number in numbers)
        print(f"{name:{width}}   {row}  {scores['valid_queries']} of {scores['queries']}")
    middle = result["intervals"]["rank-1"]
    print(
        f"rank-1 of {result['feature']}: 95 % interval over {middle['persons']} test persons "
        f"{100 * middle['low']:.1f} to {100 * middle['high']:.1f}"
    )
    _print_spread(result["spread"])
    _print_corrupted(result)


def _print_spread(spread: Mapping[str, Mapping[str, Mapping[str, int | float]]]) -> None:
    """Standard deviation of the level means of each cause that has several levels."""
    for cause, found in spread["rank-1"].items():
        if found["levels"] > 1:
            parts = ", ".join(f"{measure} {100 * causes[cause]['std']:.2f}" for measure, causes in spread.items())
            print(f"standard deviation over {found['levels']} levels of {cause}: {parts}")


def _print_corrupted(result: Mapping[str, Any]) -> None:
    """The reported feature on each corrupted test set; the grid is for the report."""
    rows = [row for row in result["corrupted"] or () if row["group"] != "cell"]
    if not rows:
        return
    print(f"{result['feature']} on corrupted pictures, percent (relative: corrupted / clean, rank-1)")
    print(f"{'test set':12}  rank-1  +- repeats    mAP   mINP  relative")
    for row in rows:
        scores = row["scores"][result["feature"]]
        relative = scores["relative"]["rank-1"]
        share = "-" if relative is None else f"{relative:.2f}"
        numbers = [100 * scores[measure] for measure in ("rank-1", "mAP", "mINP")]
        repeats = 100 * scores["spread"]["rank-1"]["repeat"]["std"]
        print(f"{row['name']:12}  {numbers[0]:6.1f}  {repeats:10.1f}  {numbers[1]:5.1f}  {numbers[2]:5.1f}  {share:>8}")


def _score_file(features: str, words: list[str], program: str) -> None:
    """Scores of a feature file: the same rules, the same JSON."""
    protocol, words = take_option(words, "--protocol", "")
    out, words = take_option(words, "--out", "scores.json")
    if not protocol:
        raise UsageError("--features needs --protocol sysu, regdb, llcm, market or plain")

    from dapg.evaluation.feature_files import FileSettings, score_file, write_result

    settings = parse(f"{program} --features", FileSettings(), words, "Score features of another program.")
    result, scores = score_file(features, protocol, settings)
    write_result(out, result, scores)
    _print_scores(result)
    print(f"written: {out}")


def _compare(words: list[str], out: str, program: str) -> None:
    """Differences between groups of results on the same queries."""
    groups = _groups(words)
    if len(groups) < 2 or not all(groups):
        raise UsageError(f"{program} --compare needs two results, or groups of results with `vs` between them")

    from dapg.core.files import write_json
    from dapg.evaluation.comparison import compare_results

    compared = compare_results(*groups)
    for comparison in compared:
        sides = (" ".join(comparison[side]) for side in ("second", "first"))
        print(f"{' minus '.join(sides)}, protocol {comparison['protocol']}")
        for measure, interval in comparison["differences"].items():
            adjusted = f", {interval['p_holm']:.4f} by Holm's rule" if len(compared) > 1 else ""
            print(
                f"{measure:7} {100 * interval['value']:+6.1f}   95 % interval {100 * interval['low']:+.1f} to "
                f"{100 * interval['high']:+.1f}, p {interval['p']:.4f}{adjusted}, {interval['persons']} test persons, "
                f"{interval['seeds']} seeds"
            )
    if out:
        write_json(out, compared)
        print(f"written: {out}")


def _groups(words: Sequence[str]) -> list[list[str]]:
    """Results between the words ``vs``; without one each result is a group."""
    if "vs" not in words:
        return [[word] for word in words]
    groups: list[list[str]] = [[]]
    for word in words:
        if word == "vs":
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


def _combine(words: list[str], out: str, program: str) -> None:
    """Mean, interval and spread of several models of one method."""
    if not words:
        raise UsageError(f"{program} --combine needs results")

    from dapg.core.files import write_json
    from dapg.evaluation.comparison import combine_results

    combined = combine_results(words)
    print(f"{combined['data']}: protocol {combined['protocol']}, {combined['models']} models, {combined['feature']}")
    for name, scores in {"clean": combined["clean"], **combined["corrupted"]}.items():
        for measure, interval in scores["intervals"].items():
            print(
                f"{name:12} {measure:7} {100 * interval['value']:5.1f}   95 % interval {100 * interval['low']:.1f} to "
                f"{100 * interval['high']:.1f}, {interval['persons']} test persons, {interval['seeds']} models"
            )
        _print_spread(scores["spread"])
    if out:
        write_json(out, combined)
        print(f"written: {out}")
