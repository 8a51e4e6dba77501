"""Score a model by a data set's published protocol: CMC, mAP, mINP, ranked lists."""

from dapg.commands._next import dapg, finished, say_next
from dapg.commands._scores import print_scores
from dapg.commands._settings import parse, take_positional

_HELP = """usage: dapg evaluate MODEL [--NAME VALUE ...]

Score a model by a data set's test protocol. MODEL is the folder of a finished run or of an export, a weights or
ONNX file, a name or an address (dapg weights), or one of
  random       untrained weights        (--backbone resnet18 --backbone.width 0.25 ...)
  imagenet     ImageNet weights         (embedded for --backbone mobilenet_v2)
  histogram    colours alone, no network
A run is scored on the data set that it was trained on, unless --data says otherwise.
--flip and --rerank k-reciprocal|query-expansion add rows to the table; the rows without them stay.

examples:
  dapg evaluate outputs/pretrain/first
  dapg evaluate outputs/pretrain/first --data sysu=/data/SYSU-MM01 --mode all
  dapg evaluate outputs/agw --data regdb=/data/RegDB --mode visible-to-thermal --flip true --rerank k-reciprocal
  dapg evaluate imagenet --backbone mobilenet_v2 --out outputs/evaluate/imagenet
  dapg evaluate outputs/pretrain/first --corruption cil --corruption.repeats 3      corrupted images beside clean ones

Features of another program are scored by dapg score; dapg compare and dapg combine read what this command writes.
"""
_COMMON = (
    "mode feature backbone.init backbone.width height width flip ranked_lists activations tsne "
    "corruption.repeats corruption.detail seed batch_size workers out device"
)


def main(words: list[str], program: str) -> None:
    """Parse, score, print the table."""
    from pathlib import Path

    from dapg.data.source import root_of
    from dapg.evaluation.evaluate import EvaluateSettings, default_out, evaluate, own_data

    model, words = take_positional(words, "MODEL", None, program)
    defaults = EvaluateSettings(model, own_data(model))
    settings = default_out(parse(program, defaults, words, _HELP, ("model",), _COMMON))
    result = evaluate(settings)
    if result.get("reused"):
        print(finished(result))
    print(f"data: {settings.data.name}, {root_of(settings.data) or 'embedded'}")
    print_scores(result)
    if not result["comparable"] and settings.data.name != "synthetic":  # which nobody has published scores of
        print("these splits are not the published ones: do not put the scores beside published ones")
    print(f"written: {Path(settings.out) / 'result.json'}")
    page = Path(settings.out) / "report.html"
    say_next(
        ("curves and ranked lists as a page", dapg("report", settings.out, "--out", page)),
        ("or is another model better?", dapg("compare", settings.out, "OTHER")),
    )
