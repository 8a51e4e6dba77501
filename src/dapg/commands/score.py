"""Score features of any other program by a published protocol: an .npz file is enough."""

from dapg.commands._next import dapg, say_next
from dapg.commands._scores import print_scores
from dapg.commands._settings import parse, take_positional

_HELP = """usage: dapg score FEATURES.npz --protocol sysu|regdb|llcm|market|plain [--NAME VALUE ...]

Score features by the rules of SYSU-MM01, RegDB, LLCM or Market-1501; plain leaves nothing out. The file has the arrays
query_features (queries, numbers), query_persons, query_cameras and the same three with gallery_; cameras where the
protocol needs them. A feature is scaled to unit length.

examples:
  dapg score features.npz --protocol sysu
  dapg score features.npz --protocol market --rerank k-reciprocal --out outputs/market.json
"""


def main(words: list[str], program: str) -> None:
    """Parse, score, print the table."""
    from dapg.evaluation.feature_files import FileSettings, score_file, write_result

    path, words = take_positional(words, "FEATURES.npz", None, program)
    settings = parse(program, FileSettings(), words, _HELP)
    result, scores = score_file(path, settings)
    write_result(settings.out, result, scores)
    print_scores(result)
    print(f"written: {settings.out}")
    say_next(("is another model better?", dapg("compare", settings.out, "OTHER")))
