"""Shared by the commands that score: tables of scores for the terminal."""

from collections.abc import Mapping

from dapg.commands._next import PER_CENT
from dapg.core.types import JsonObject
from dapg.core.words import counted


def print_scores(result: JsonObject) -> None:
    """The table: the reported feature first, then the others; how sure, and what moves the score."""
    trials = result["trials"]
    sizes = f"{counted(trials[0]['queries'], 'query')} and {counted(trials[0]['gallery'], 'gallery image')}"
    searches = f"{counted(len(trials), 'trial')} of {sizes}"
    print(f"{result['data']['name']}, {result['data']['mode']}: protocol {result['protocol']}, {searches}")
    print(PER_CENT)
    width = max(map(len, result["scores"]))
    print(f"{'feature':{width}}  rank-1  rank-5    mAP   mINP  queries with a match")
    for name, scores in sorted(result["scores"].items(), key=lambda item: item[0] != result["feature"]):
        fifth = scores["cmc"][4] if len(scores["cmc"]) > 4 else None  # a shorter --max_rank
        numbers = (scores["cmc"][0], fifth, scores["mAP"], scores["mINP"])
        row = "  ".join(f"{'-':>5}" if number is None else f"{100 * number:5.1f}" for number in numbers)
        print(f"{name:{width}}   {row}  {scores['valid_queries']} of {scores['queries']}")
    middle = result["intervals"]["rank-1"]
    print(
        f"rank-1 of {result['feature']}: 95 % interval over {counted(middle['persons'], 'test person')} "
        f"{100 * middle['low']:.1f} to {100 * middle['high']:.1f}"
    )
    print_spread(result["spread"])
    for note in result.get("notes", ()):
        print(f"note: {note}")
    _print_corrupted(result)


def print_spread(spread: Mapping[str, Mapping[str, Mapping[str, int | float]]]) -> None:
    """Standard deviation of the level means of each cause that has several levels."""
    for cause, rank_1 in spread["rank-1"].items():
        if rank_1["levels"] > 1:
            parts = ", ".join(f"{measure} {100 * causes[cause]['std']:.2f}" for measure, causes in spread.items())
            print(f"standard deviation over {counted(int(rank_1['levels']), cause)}: {parts}")


def _print_corrupted(result: JsonObject) -> None:
    """The reported feature on each corrupted test set; the grid is for the report."""
    rows = [row for row in result["corrupted"] or () if row["group"] != "cell"]
    if not rows:
        return
    print(f"{result['feature']} on corrupted images (± repeats: standard deviation; relative: rank-1 / clean rank-1)")
    print(f"{'test set':12}  rank-1   ± repeats    mAP   mINP  relative")
    for row in rows:
        scores = row["scores"][result["feature"]]
        relative = scores["relative"]["rank-1"]
        share = "-" if relative is None else f"{relative:.2f}"
        numbers = [100 * scores[measure] for measure in ("rank-1", "mAP", "mINP")]
        repeats = 100 * scores["spread"]["rank-1"]["repeat"]["std"]
        print(f"{row['name']:12}  {numbers[0]:6.1f}  {repeats:10.1f}  {numbers[1]:5.1f}  {numbers[2]:5.1f}  {share:>8}")
