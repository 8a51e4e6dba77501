"""Score a model by a data set's published protocol: CMC, mAP, mINP, ranked lists."""

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
  dapg evaluate imagenet --backbone mobilenet_v2 --out outputs/evaluate/imagenet
  dapg evaluate outputs/pretrain/first --corruption cil --corruption.repeats 3      corrupted pictures beside clean ones
  dapg evaluate MODEL --help    all options

Features from any other program, by the published rules (keys query_features, query_persons, query_cameras and the same
with gallery_; cameras where the protocol needs them):
  dapg evaluate --features file.npz --protocol sysu|regdb|llcm|market|plain [--out scores.json]

Is a difference more than luck? Paired differences (second minus first) with 95 % intervals over test persons:
  dapg evaluate --compare first/result.json second/result.json
"""


def main(words: list[str], program: str) -> None:
    """Parse, score, print the table."""
    if wants_help(words):
        print(_HELP, end="")
        return
    if words and words[0] == "--compare":
        _compare(words[1:], program)
        return
    features, words = take_option(words, "--features", "")
    if features:
        _score_file(features, words, program)
        return
    from pathlib import Path

    from dapg.core.device import resolve_device
    from dapg.evaluation.stage import EvaluateSettings, evaluate
    from dapg.recipes.evaluation import default_out

    model, words = take_positional(words, "MODEL", None, program)
    defaults = EvaluateSettings(model=model)
    settings = parse(f"{program} {model}", defaults, words, "Score a model.", positionals=("model",))
    settings = default_out(settings)
    result = evaluate(settings, resolve_device(settings.device))
    print(f"{result['data']['name']}, {result['data']['mode']}: {len(result['trials'])} trials")
    width = max(map(len, result["scores"]))
    print(f"{'feature':{width}}  rank-1  rank-5    mAP   mINP")
    for name, scores in sorted(result["scores"].items(), key=lambda item: item[0] != result["feature"]):
        numbers = (scores["cmc"][0], scores["cmc"][min(4, len(scores["cmc"]) - 1)], scores["mAP"], scores["mINP"])
        print(f"{name:{width}}  " + "  ".join(f"{100 * number:5.1f}" for number in numbers))
    middle = result["intervals"]["rank-1"]
    print(
        f"rank-1 of {result['feature']}: 95 % interval over {middle['persons']} test persons "
        f"{100 * middle['low']:.1f} to {100 * middle['high']:.1f}"
    )
    _print_corrupted(result)
    if not result["comparable"]:
        print("these splits are not the published ones: do not put the scores beside published ones")
    print(f"written: {Path(settings.out) / 'result.json'}")


def _print_corrupted(result: dict[str, Any]) -> None:
    """The reported feature on each corrupted test set; the grid is for the report."""
    rows = [row for row in result.get("corrupted", []) if row["group"] != "cell"]
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
    if words:
        raise UsageError(f"unknown {words[0]!r} beside --features; see {program} --help")
    if not protocol:
        raise UsageError("--features needs --protocol sysu, regdb, llcm, market or plain")

    from dapg.evaluation.features import score_file, write_result

    result, scores = score_file(features, protocol)
    write_result(out, result, scores)
    print(f"{scores.queries} queries, {scores.valid_queries} with a match; protocol {result['protocol']}")
    for name, value in (("rank-1", scores.rank(1)), ("rank-5", scores.rank(5)), ("mAP", scores.mAP)):
        print(f"{name:7} {100 * value:5.1f}")
    print(f"{'mINP':7} {100 * scores.mINP:5.1f}\nwritten: {out}")


def _compare(words: list[str], program: str) -> None:
    """Differences between two results on the same queries."""
    if len(words) != 2 or any(word.startswith("-") for word in words):
        raise UsageError(f"{program} --compare needs two result files")

    from dapg.evaluation.bootstrap import compare_results

    compared = compare_results([words[0]], [words[1]])
    print(f"{words[1]} minus {words[0]}, protocol {compared['protocol']}")
    for measure, interval in compared["differences"].items():
        print(
            f"{measure:7} {100 * interval['value']:+6.1f}   95 % interval {100 * interval['low']:+.1f} to "
            f"{100 * interval['high']:+.1f}, {interval['persons']} test persons"
        )
