"""Where a model looks in pictures of your own, and what it finds nearest in a gallery; writes a page."""

from dapg.commands._settings import parse, take_option, take_positional, wants_help
from dapg.core.errors import UsageError

_HELP = """usage: dapg explain MODEL PICTURE [PICTURE ...] [--gallery SOURCE] [OPTIONS]

Activation maps of single pictures, and with --gallery their nearest pictures there and what makes the two alike
(Grad-CAM of their similarity; without a gallery the strength of the feature map). MODEL as for `dapg evaluate`.
Writes a run folder and a page in it; `dapg report FOLDER` draws it again.

examples:
  dapg explain outputs/pretrain/first someone.jpg --gallery /path/to/pictures
  dapg explain imagenet a.jpg b.jpg --backbone mobilenet_v2 --out outputs/explain/imagenet
  dapg explain outputs/agw night.jpg --modality infrared --gallery sysu=/data/SYSU-MM01 --gallery.split test
  dapg explain MODEL --help    all options
"""


def main(words: list[str], program: str) -> None:
    """Parse, look, write the page."""
    if wants_help(words):
        print(_HELP, end="")
        return
    from dataclasses import replace
    from pathlib import Path

    from dapg.data.source import DataConfig, parse_source
    from dapg.evaluation.explain import ExplainSettings, explain
    from dapg.report.collect import collect
    from dapg.report.run_page import write_page

    model, words = take_positional(words, "MODEL", None, program)
    pictures, words = _leading(words)
    source, words = take_option(words, "--gallery", "")
    defaults = ExplainSettings(model=model, pictures=tuple(pictures))
    if source:
        defaults = replace(defaults, gallery=DataConfig(**parse_source(source)))  # type: ignore[arg-type]
    fixed = ("model", "pictures")
    settings = parse(f"{program} {model}", defaults, words, "Look at single pictures.", positionals=fixed)
    if not settings.pictures:
        raise UsageError(f"{program} needs a picture after the model; see {program} --help")
    result = explain(settings)
    for entry in result["ranked_lists"]:
        print(entry["query"]["path"])
        for answer in entry["answers"]:
            print(f"  {answer['similarity']:6.3f}  {answer['path']}")
    folder = Path(settings.out)
    for path in write_page(collect([folder]), folder / "page.html", "dapg explain"):
        print(f"written: {path}")


def _leading(words: list[str]) -> tuple[list[str], list[str]]:
    """Words before the first option, and the rest."""
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:count], words[count:]
