"""Pages in a real browser, wide and as a phone shows them: `make test-browser`."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from browser import chromium, errors, missing, needed_width, resize
from dapg.core.types import JsonObject
from dapg.experiment.page import write_report
from dapg.experiment.paper import modes_of
from dapg.experiment.plan import Experiment
from dapg.experiment.store import add_cell
from dapg.report.demo_page import DemoPage, Gap, Scored, write_demo
from made_up_cells import made_up
from page_text import check_page

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(missing(), reason="needs apt-get install chromium chromium-driver"),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    opened = chromium(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.quit()


def search() -> JsonObject:
    """Two queries, eight answers each, all of one image."""
    stream = io.BytesIO()
    Image.new("RGB", (56, 112), (0, 90, 160)).save(stream, "JPEG")
    seen = {"path": "a.jpg", "person": 1, "camera": 3, "picture": "a"}
    answers = [{**seen, "similarity": 0.5, "match": place == 2} for place in range(8)]
    lists = [{"query": seen, "answers": answers}] * 2
    images = {"a": base64.b64encode(stream.getvalue()).decode()}
    return {"queries": 80, "first": 0.25, "five": 0.5, "lists": lists, "images": images}


def demo_page(folder: Path) -> Path:
    bounds = ((30.0, 36.0), (15.0, 20.0))
    scored = [
        Scored("stage-2", "both stages", 30.0, 33.0, 18.0, 20.0, bounds),
        Scored("imagenet", "ImageNet", 31.0, 33.5, 17.0, 19.0, bounds, (Gap(-0.5, -2.0, 1.2), Gap(1.0, -0.1, 2.2))),
    ]
    both = {"clean": search(), "fog": search()}
    searches = {"both stages": both, "ImageNet": both}
    serve, details = "dapg serve --demo outputs/a-folder-with-a-rather-long-name", "details.html"
    write_demo(folder / "demo.html", DemoPage("Demo", scored, searches, 0, 20, 2, b"", ["Note."], serve, details))
    return folder / "demo.html"


def experiment_page(folder: Path) -> Path:
    experiment = Experiment(("table1", "fig1", "beyond"), starts=("imagenet",), seeds=1, results=folder / "results")
    for cell in experiment.cells():
        if cell.finetuning == "agw":
            add_cell(experiment.folder, made_up(cell, 0.5, modes_of(cell.data)))
    write_report(experiment)
    return experiment.page


@pytest.mark.parametrize("make", [demo_page, experiment_page])
def test_pages_fit_a_phone_and_folded_sections_open(make, driver: "Chrome", tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path)
    text = path.read_text()
    check_page(text)
    for width in (1400, 390):
        resize(driver, width)
        driver.get(path.as_uri())
        assert driver.execute_script("return window.innerWidth") == width
        assert needed_width(driver) <= width, f"{path.name} scrolls sideways"
    images = driver.execute_script(
        "return [...document.querySelectorAll('figure use')].map((use) => use.getBBox().height)"
    )
    assert all(height == 112 for height in images), "what is stored at the foot is shown above"
    driver.get(path.as_uri())
    folded = re.findall(r'<section><details>\s*<summary>.*?</summary>\s*<div id="([^"]+)"', text)
    for anchor in folded:
        driver.get(f"{path.as_uri()}#{anchor}")
        opened = "return document.getElementById(arguments[0]).closest('details').open"
        assert driver.execute_script(opened, anchor), anchor
    assert errors(driver) == []
