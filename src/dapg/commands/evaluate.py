"""Score a model by a data set's published protocol: CMC, mAP, mINP, ranked lists."""

from dapg.commands._settings import parse, take_positional, wants_help

_HELP = """usage: dapg evaluate MODEL [OPTIONS]

Score a model by a data set's test protocol. MODEL is the folder of a finished run, a weights file, or one of
  random       untrained weights        (--backbone resnet18 --backbone.width 0.25 ...)
  imagenet     ImageNet weights         (embedded for --backbone mobilenet_v2)
  histogram    colours alone, no network

examples:
  dapg evaluate outputs/pretrain/first
  dapg evaluate outputs/pretrain/first --data sysu=/data/SYSU-MM01 --mode all
  dapg evaluate imagenet --backbone mobilenet_v2 --out outputs/evaluate/imagenet
  dapg evaluate MODEL --help    all options
"""


def main(words: list[str], program: str) -> None:
    """Parse, score, print the table."""
    if wants_help(words):
        print(_HELP, end="")
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
    if not result["comparable"]:
        print("these splits are not the published ones: do not put the scores beside published ones")
    print(f"written: {Path(settings.out) / 'result.json'}")
