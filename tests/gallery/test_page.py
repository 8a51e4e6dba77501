"""The page in a real browser: `make test-browser`, which needs Debian's chromium and chromium-driver."""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import chromium, errors, missing, needed_width, resize

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(missing(), reason="needs apt-get install chromium chromium-driver"),
]
SECONDS = 120


class Page:
    """A browser at a served demonstration gallery."""

    def __init__(self, link: str, downloads: Path) -> None:
        self.driver = chromium(downloads)
        resize(self.driver, 1400, 1000)
        self.link, self.downloads = link, downloads

    def all(self, selector: str) -> list:  # type: ignore[type-arg]
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str):  # type: ignore[no-untyped-def]
        """The first element, as soon as it is there."""
        return self.until(lambda: [element for element in self.all(selector) if element.is_displayed()])[0]

    def until(self, condition):  # type: ignore[no-untyped-def]
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, SECONDS, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: condition())

    def cards(self) -> list[tuple[str, str]]:
        """(picture, text) of the answers."""
        script = "return [...document.querySelectorAll('#answers .card')].map((c) => [c.dataset.picture, c.innerText])"
        return [(picture, text) for picture, text in self.driver.execute_script(script)]

    def slide(self, severity: int) -> None:
        self.driver.execute_script(
            "const s = document.getElementById('severity'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change'));",
            severity,
        )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    command = [sys.executable, "-m", "dapg", "serve", "--demo", str(folder / "gallery"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "making a gallery of 100 rendered people" in server.stdout.readline()
        said = server.stdout.readline()
        link = re.fullmatch(r"open (\S+)\n", said)
        assert link, said
        opened = Page(link[1], folder)
        try:
            yield opened
        finally:
            opened.driver.quit()
            server.terminate()


def test_a_search_from_login_to_deletion(page: Page) -> None:
    driver, home = page.driver, page.link.partition("/login")[0]

    driver.get(home)  # nobody yet: the login page, and a wrong token
    page.one("#token").send_keys("wrong")
    page.one("button").click()
    page.until(lambda: "lets nobody in" in page.one("#message").text)
    assert len(errors(driver)) == 1  # the browser notes the refusal

    driver.get(page.link)
    page.until(lambda: page.all(".offer"))
    assert len(page.all(".offer")) == 12
    assert all(re.fullmatch(r"(person|stranger) \d{3}, camera \d", offer.text) for offer in page.all(".offer"))
    page.one(".offer").click()
    page.until(page.cards)
    assert "infrared query: 12 answers" in page.one("#summary").text
    clean = page.cards()
    assert any(word in clean[0][1] for word in ("same person", "have a person look", "probably somebody else"))

    page.slide(5)  # damage moves answers and says from where
    page.until(lambda: page.cards() != clean and any("without damage" in text for _, text in page.cards()))
    assert page.one("#damaged").get_attribute("src").startswith("blob:")
    page.slide(0)
    page.until(lambda: page.cards() == clean)

    canvas = page.one("canvas")  # a box by the keyboard changes the answers
    canvas.send_keys("\ue014")
    page.one("#search").click()
    page.until(lambda: page.cards() != clean)
    canvas.send_keys("\ue00c")
    page.one("#search").click()
    page.until(lambda: page.cards() == clean)

    page.one("#answers .card button").click()
    page.until(lambda: page.all("#timeline li"))
    page.one("#export").click()
    (case,) = page.until(lambda: list(page.downloads.glob("case-*.zip")))
    with zipfile.ZipFile(case) as archive:
        assert json.loads(archive.read("case.json"))["timeline"] == [int(clean[0][0])]

    page.one("#answers .card button.danger").click()
    page.one("#delete-reason").send_keys("asked to")
    page.one("dialog button.danger").click()
    page.until(lambda: clean[0][0] not in dict(page.cards()))
    page.one("#search").click()
    page.until(lambda: len(page.cards()) == 12)
    assert clean[0][0] not in dict(page.cards())

    resize(driver, 360, 800)  # a phone
    assert driver.execute_script("return window.innerWidth") == 360
    assert needed_width(driver) <= 360
    resize(driver, 1400, 1000)

    page.one("#logout").click()
    page.one("#token")
    driver.get(page.link)  # the link has been used
    page.one("#token")
    assert [error for error in errors(driver) if "401" not in error] == []
