"""Take images of people into a gallery: crop folders, CSV lists, data sets, videos, a watched folder."""

from dapg.commands._next import dapg, say_next
from dapg.commands._settings import parse, take_option, take_words, wants_help
from dapg.core.errors import UsageError
from dapg.core.words import counted

_HELP = """usage: dapg index GALLERY SOURCE ... --model RUN|NAME [--NAME VALUE ...]

Encode images and keep them in the folder GALLERY, which is made where it is missing; --model is needed only then.
SOURCE is a folder of crops (with labels.csv or manifest.csv where it has them), a CSV list, a video, a folder of
videos, or a data set as NAME or NAME=PATH. Only what is new is read; a killed command goes on where it stopped.
With --workers or --engine others encode, in shards, and this command writes.
Times: the columns time and track of a CSV list, or --start for videos. --migrate true re-encodes the gallery with
another model, and then switches to it.

examples:
  dapg index outputs/gallery synthetic --model outputs/agw
  dapg index outputs/gallery night.mp4 --modality infrared --start 2026-11-28T22:00:00
  dapg index outputs/gallery /camera/incoming --camera gate --file_times true --watch true
  dapg index outputs/gallery /shared/crops --workers 8
  dapg index outputs/gallery --model outputs/better --migrate true

People must be allowed to be searched for: docs/how-to/gallery.md.
"""
_COMMON = "model camera modality infrared start split labels copy watch every batch_size threads device engine.workers"


def main(words: list[str], program: str) -> None:
    """Parse, index, print counts."""
    from dapg.gallery.indexing import IndexSettings

    if wants_help(words):
        parse(program, IndexSettings(), words, _HELP, common=_COMMON)
    (folder, *sources), words = take_words(words) if words and not words[0].startswith("-") else (([""], words))
    migrating, words = take_option(words, "--migrate", "false")
    store, words = take_option(words, "--store", "")
    settings = parse(program, IndexSettings(), words, _HELP, common=_COMMON)
    if not folder or (not sources and migrating != "true"):
        raise UsageError(f"{program} needs GALLERY and SOURCE; see {program} --help")

    from pathlib import Path

    from dapg.core.schema import read_json
    from dapg.gallery.gallery import ABOUT, SQLITE, Gallery
    from dapg.gallery.postgres import without_password

    if (Path(folder) / ABOUT).is_file():
        there = read_json(Path(folder) / ABOUT)["store"]
        if store and without_password(store) != there:
            raise UsageError(
                f"{folder} is a gallery in {there}, not in {without_password(store)}: leave --store out, or give a new "
                "folder"
            )
        gallery = Gallery(folder, settings.device)
    elif not settings.model:
        raise UsageError(
            f"{folder} is a new gallery: {program} needs --model RUN|NAME, the network that it is made with"
        )
    else:
        gallery = Gallery.create(folder, settings.network, settings.device, store or SQLITE)
    if migrating == "true":
        print(f"{counted(gallery.migrate(settings.network, settings.batch_size), 'image')} re-encoded")
        if not sources:
            return
    report = gallery.index(sources, settings)
    for note in report.notes:
        print(note)
    rate = f", {report.added / report.seconds:,.0f} a second" if report.added else ""
    print(
        f"{counted(report.added, 'image')} added{rate}; left out: {report.known:,} known, "
        f"{report.duplicates:,} duplicate, {report.damaged:,} damaged, {report.deleted:,} deleted before"
    )
    say_next(
        ("search it", dapg("search", folder, "IMAGE")),
        ("or in the browser", dapg("serve", folder)),
    )
