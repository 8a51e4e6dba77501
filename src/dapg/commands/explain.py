"""Where a model looks in images of your own, and what it finds nearest in a gallery; writes a page."""

from dapg.commands._next import finished
from dapg.commands._settings import parse, take_positional, take_words
from dapg.core.errors import UsageError
from dapg.core.words import counted

_HELP = """usage: dapg explain MODEL IMAGE [IMAGE ...] [--gallery SOURCE] [--NAME VALUE ...]

Activation maps of single images, and with --gallery their nearest images there and what makes the two alike
(Grad-CAM of their similarity; without a gallery the strength of the feature map). MODEL as for `dapg evaluate`.
Writes a run folder and a page in it; `dapg report FOLDER` draws it again.

examples:
  dapg explain outputs/pretrain/first someone.jpg --gallery /path/to/images
  dapg explain imagenet a.jpg b.jpg --backbone mobilenet_v2 --out outputs/explain/imagenet
  dapg explain outputs/agw night.jpg --modality infrared --gallery sysu=/data/SYSU-MM01 --gallery.split test
"""


def main(words: list[str], program: str) -> None:
    """Parse, look, write the page."""
    from pathlib import Path

    from dapg.evaluation.explain import ExplainSettings, explain
    from dapg.features.extract import left_out
    from dapg.report.collect import collect
    from dapg.report.run_page import write_page

    model, words = take_positional(words, "MODEL", None, program)
    images, words = take_words(words)
    defaults = ExplainSettings(model=model, pictures=tuple(images))
    settings = parse(program, defaults, words, _HELP, positionals=("model", "pictures"))
    if not settings.pictures:
        raise UsageError(f"{program} needs an image after the model; see {program} --help")
    result = explain(settings)
    if result.get("reused"):
        print(finished(result))
    if result["ranked_lists"]:
        print("similarity of the nearest images of the gallery: the cosine of their features, 1 for equal ones")
    for entry in result["ranked_lists"]:
        print(entry["query"]["path"])
        for answer in entry["answers"]:
            print(f"  {answer['similarity']:6.3f}  {answer['path']}")
    for note in left_out(result.get("unreadable_queries", {}), ""):
        print(note)
    if result.get("unreadable"):
        print(f"left out: {counted(len(result['unreadable']), 'unreadable image')} of the gallery")
    folder = Path(settings.out)
    for path in write_page(collect([folder]), folder / "page.html", "dapg explain"):
        print(f"written: {path}")
