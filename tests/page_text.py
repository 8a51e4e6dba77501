"""What a reader finds on a page of ours, read from its text."""

import base64
import html
import html.parser
import re
from typing import NamedTuple


class Shown(NamedTuple):
    """An image of a ranked list."""

    kind: str
    label: str
    caption: str
    content: bytes


def shown_images(page: str) -> list[Shown]:
    """The images of ranked lists in their order; each is stored once at the foot of the page."""
    stored = {
        name: base64.b64decode(data)
        for name, data in re.findall(r'<image id="(\w+)"[^>]*href="data:image/jpeg;base64,([^"]+)"', page)
    }
    pattern = r'<figure class="(\w+)"><svg [^>]*aria-label="([^"]*)">.*?(?:<use href="#(\w+)"/>)?</svg>(.*?)</figure>'
    return [
        Shown(kind, html.unescape(label), re.sub(r"<[^>]+>", "", caption), stored.get(name, b""))
        for kind, label, name, caption in re.findall(pattern, page, re.DOTALL)
    ]


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def check_page(page: str) -> None:
    """What holds for every page: a conclusion first, contents, few open sections, and nothing without a text."""
    reader = Reader(page)
    names = [tag for tag, _ in reader.tags]
    assert names.count("h1") == 1
    assert page.index("</h1>") < page.index('class="conclusion"') < page.index("<nav") < page.index("<main>")
    anchors = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(set(ids)) == len(ids), "an id names one thing"
    assert len(re.findall("<section>", page)) == len([anchor for anchor in anchors if (anchor or "")[1:] in ids])
    assert len(re.findall(r"<section><details open>", page)) <= 8
    for tag, attributes in reader.tags:
        if tag == "img":
            assert attributes["alt"], attributes
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden"), attributes
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "not run" not in re.findall(r"<td[^>]*>(.*?)</td>", page)
