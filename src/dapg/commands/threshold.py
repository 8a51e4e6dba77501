"""Same person, ask a person, or unknown: set thresholds on labelled images, and say how often they err."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_positional
from dapg.core.errors import UsageError

_HELP = """usage: dapg threshold MODEL|GALLERY --data LABELLED [--NAME VALUE ...]

Set two thresholds for each pair of kinds of light (query, gallery): from the higher one on an answer is called the same
person, below the lower one unknown, and in between a person has to look. Persons are divided in half ten times: set on
one half, read on the other. Needs the extra plot. The result goes into the run's folder or the gallery; of a model by
name, to --out. What holds for the labelled persons need not hold for yours: docs/how-to/gallery.md.

examples:
  dapg threshold outputs/agw --data sysu=/data/SYSU-MM01
  dapg threshold outputs/gallery --data labelled.csv --html outputs/thresholds.html
  dapg threshold agw-imagenet-small --data synthetic --drift all --out outputs/thresholds.json
"""
_COMMON = "data.split false_positives misses splits drift drift_queries out html batch_size workers device"


def main(words: list[str], program: str) -> None:
    """Parse, measure, store, print."""
    model, words = take_positional(words, "MODEL|GALLERY", None, program)

    from pathlib import Path

    from dapg.evaluation.thresholds import ThresholdSettings, measure

    settings = parse(program, ThresholdSettings(), words, _HELP, common=_COMMON)

    from dapg.core.files import atomic_write_text, write_json
    from dapg.features.extract import left_out
    from dapg.features.networks import Network, NetworkSettings, thresholds_file
    from dapg.gallery.gallery import ABOUT, Gallery
    from dapg.report.plots import error_curves
    from dapg.report.render import render

    gallery = Gallery(model, settings.device) if (Path(model) / ABOUT).is_file() else None
    wanted = NetworkSettings(model, settings.backbone, settings.height, settings.width)
    network = gallery.network() if gallery else Network(wanted, settings.device)
    if not settings.out and not settings.html and not Path(model).is_dir():
        raise UsageError(f"{model} is no folder: give --out FILE.json")
    card = network.card
    result = {"model": card.hash, "name": card.name, **measure(network.encoder, card.infrared, settings)}
    places = [settings.out] if settings.out else []
    if gallery:
        gallery.set_thresholds(result)
        places.append(model)
    elif Path(model).is_dir():
        places.append(str(thresholds_file(model)))
    for place in places[: len(places) - bool(gallery)]:
        write_json(place, result)
    print(f"{result['data']['name']}, split {result['data']['split']}: {result['persons']} persons")
    for note in left_out(result["unreadable"], "so that the thresholds are of the others"):
        print(note)
    for pair in result["too_few"]:
        print(f"left out: {pair}")
    print("FPIR: strangers who are called somebody; FNIR: persons who are missed; of both less is better")
    for pair in result["pairs"]:
        aimed, lights = pair["aimed"], f"{pair['query']} query, {pair['gallery']} gallery"
        print(f"\n{lights}: same from {pair['same']:.3f}, ask from {pair['ask']:.3f}")
        print(f"  set for FPIR {aimed['FPIR']:.1%}, FNIR {aimed['FNIR']:.1%}{aimed['note']}")
        for name, rate in {**pair["read"], **pair["rates"]}.items():
            print(f"  {name:30} {rate['text']}")
    if settings.html:
        page = render("threshold_page.html", title="Thresholds", result=result, curves=error_curves(result["pairs"]))
        atomic_write_text(settings.html, page)
        places.append(settings.html)
    print(f"\nwritten: {', '.join(places)}")
    if gallery:
        say_next(("search with them", dapg("search", model, "IMAGE")))
    elif Path(model).is_dir():  # a gallery takes those that lie beside its model, none from --out
        say_next(("make a gallery with them", dapg("index", "GALLERY", "IMAGES", "--model", model)))
