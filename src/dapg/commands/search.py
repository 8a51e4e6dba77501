"""Who is this, and where was the person seen? Search a gallery with one image or several of one person."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dapg.commands._settings import parse, take_words, wants_help
from dapg.core.errors import UsageError
from dapg.core.ranges import Count
from dapg.core.words import counted

if TYPE_CHECKING:
    from dapg.gallery.gallery import Gallery
    from dapg.gallery.search import Picture, SearchResult

_HELP = """usage: dapg search GALLERY IMAGE ... [--NAME VALUE ...]

The tracks most similar to the person in the images, each with its best image, and what that similarity means
where the gallery has thresholds (dapg threshold). Several images of one person are one query. Every search is
audited.

examples:
  dapg search outputs/gallery night.jpg
  dapg search outputs/gallery a.jpg b.jpg --camera gate,hall --after 2026-11-28T20:00:00 --reason "case 17"
  dapg search outputs/gallery night.jpg --json true
  dapg search outputs/gallery night.jpg --html outputs/answers.html
"""


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and how it is shown."""

    modality: Literal["", "visible", "infrared"] = ""
    """Kind of light of the query; empty: infrared if it is grey."""
    infrared: Literal["unknown", "near", "thermal"] = "unknown"
    """Kind of infrared of the query; another one than the gallery's is refused."""
    among: Literal["", "visible", "infrared"] = ""
    """Only gallery images of this kind of light."""
    camera: str = ""
    """Only these cameras, commas between them."""
    after: str = ""
    """Only images from this time on, such as 2026-11-28T22:00:00 or, of videos without a start, seconds."""
    before: str = ""
    """Only images before this time."""
    top: Count = 20
    """Number of answers."""
    reason: str = ""
    """For the audit, such as the number of a case."""
    json: bool = False
    """Print JSON."""
    html: str = ""
    """Write the answers with their images to this page."""
    model: str = ""
    """Where the gallery's model is now, if it was moved."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def main(words: list[str], program: str) -> None:
    """Parse, search, print a line for each answer."""
    if wants_help(words):
        parse(program, SearchSettings(), words, _HELP)
    places, words = take_words(words)
    settings = parse(program, SearchSettings(), words, _HELP)
    if len(places) < 2:
        raise UsageError(f"{program} needs GALLERY and IMAGE; see {program} --help")

    from json import dumps

    from dapg.core.types import Modality
    from dapg.data.sightings import clock, seconds
    from dapg.gallery.database import Filters
    from dapg.gallery.gallery import Gallery

    gallery = Gallery(places[0], settings.device, settings.model)
    if settings.reason:
        gallery = gallery.acting(gallery.actor.name, settings.reason)
    filters = Filters(
        camera=tuple(name.strip() for name in settings.camera.split(",") if name.strip()),
        after=seconds(settings.after) if settings.after else None,
        before=seconds(settings.before) if settings.before else None,
        modality=Modality[settings.among.upper()] if settings.among else None,
    )
    result = gallery.search(places[1:], settings.modality or None, filters, settings.top, settings.infrared)
    files = [] if settings.json and not settings.html else [_file(gallery, answer.picture) for answer in result.answers]
    if settings.json:
        print(dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        print(f"search {result.number}: {result.modality.name.lower()} query, {counted(len(result.answers), 'answer')}")
        if result.answers:
            print("place, likeness (the cosine, at most 1), verdict where thresholds are set, camera, time, person:")
        for place, (answer, file) in enumerate(zip(result.answers, files, strict=True), 1):
            picture, verdict = answer.picture, answer.verdict
            said = f"{verdict.word:8} {verdict.probability:4.0%}  " if verdict else ""
            track = f"{answer.pictures} in track" if answer.pictures > 1 else ""
            facts = filter(None, (picture.camera, clock(picture.time), picture.person, track))
            where = f"{', '.join(facts)}  #{picture.number} {file}"
            print(f"{place:3}  {answer.score:.3f}  {said}{where}")
        if not settings.html and any(file.startswith(_COPY) for file in files):
            export = f"dapg gallery export {places[0]} --search {result.number} --out case.zip"
            print(f"to see the gallery's copies: --html PAGE, or {export}")
    if settings.html:
        _write_page(gallery, result, files, places[1:], settings.html)
        print(f"written: {settings.html} (not to be shared if it shows real people)")


_COPY = "copy of "


def _file(gallery: "Gallery", picture: "Picture") -> str:
    """Where its file is; where that is gone, its name alone if the gallery has a copy."""
    from pathlib import Path

    from dapg.core.errors import DataError

    path = Path(picture.path)
    if path.is_file():
        return picture.path
    try:
        gallery.picture_file(picture.number)
    except DataError:
        return f"{path} (gone)"
    return f"{_COPY}{path.name}"


_KINDS = {"same": "right", "ask": "query", "unknown": "unknown"}
"""Verdict -> colour of the frame in ``style.css``."""


def _write_page(gallery: "Gallery", result: "SearchResult", files: list[str], queries: list[str], path: str) -> None:
    from pathlib import Path

    from dapg.core.files import atomic_write_text
    from dapg.core.images import thumbnail
    from dapg.data.sightings import clock
    from dapg.report.ranked_list import Figure
    from dapg.report.render import render

    answers = []
    for answer, file in zip(result.answers, files, strict=True):
        picture, word = answer.picture, answer.verdict.word if answer.verdict else ""
        said = f"{word} {answer.verdict.probability:.0%}" if answer.verdict else ""
        lines = (f"{answer.score:.3f}", said, picture.camera, clock(picture.time), picture.person or "")
        image = thumbnail(gallery.picture_file(picture.number))
        title = f"image {picture.number}, {file}"
        answers.append(Figure(_KINDS.get(word, "unknown"), image, title, tuple(filter(None, lines))))
    note = f"{result.modality.name.lower()} query; best image of each track, most similar first"
    shown = [Figure("query", thumbnail(Path(query).read_bytes()), "query", ("query",)) for query in queries]
    atomic_write_text(
        path, render("search_page.html", title=f"Search {result.number}", note=note, queries=shown, answers=answers)
    )
