"""Screenshots for the docs, into docs/images: the pages of the demo, of the experiment and of the gallery.

`make screenshots`; it needs Debian's chromium and chromium-driver. A finished demo is shown as it is, and without one
`dapg demo --fast` makes its page from the networks in the package. Usage: screenshots.py [FOLDER OF THE DEMO]
"""

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import chromium, resize  # noqa: E402  (a folder of tests, not a package)

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

IMAGES = ROOT / "docs" / "images"
LARGEST = 150_000
"""Bytes of a file."""
DAPG = (sys.executable, "-m", "dapg")


def main() -> None:
    """Make the pages, open them, save what is seen."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo")
    if not (demo / "report.html").exists():
        subprocess.run([*DAPG, "demo", "--fast", "--out", str(demo)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        driver = chromium(Path(folder))
        try:
            page = (demo / "report.html").resolve().as_uri()
            shoot(driver, page, "demo-page", 1400, 1560)
            shoot(driver, page, "demo-page-phone", 390, 1100)
            page = experiment_page(ROOT / "results" / "reproduce-small-test1000")
            shoot(driver, page, "experiment-page-small-test1000", 1400, 1560)
            shoot(driver, page, "experiment-growth-small-test1000", 1400, 340, "How the gain grows")
            shoot_gallery(driver, demo)
        finally:
            driver.quit()


def experiment_page(folder: Path) -> str:
    """Address of the page that is made from stored cells, by the command that the registered table names."""
    table = (folder / "tables" / "primary.md").read_text(encoding="utf-8")
    (command, *_) = re.findall(r"Run by `dapg reproduce run ([^`]+)`", table)
    words = [*DAPG, "reproduce", "show", *shlex.split(command)]
    subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return (folder / "page" / "report.html").resolve().as_uri()


def shoot_gallery(driver: "Chrome", demo: Path) -> None:
    """A search by the first night image that the demonstration offers."""
    from selenium.webdriver.support.ui import WebDriverWait

    words, somebody = [*DAPG, "serve", "--demo", str(demo), "--port", "0"], {**os.environ, "LOGNAME": "demo"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=somebody) as server:
        assert server.stdout is not None
        link = next(filter(None, (re.match(rb"open (\S+)", line) for line in server.stdout)), None)
        try:
            assert link, "the server did not start"
            resize(driver, 1400, 1700)
            driver.get(link[1].decode())
            wait = WebDriverWait(driver, 300)
            wait.until(lambda _: driver.find_elements("css selector", ".offer"))[0].click()
            wait.until(lambda _: driver.find_elements("css selector", "#answers .card img"))
            wait.until(lambda _: driver.execute_script("return [...document.images].every((i) => i.complete)"))
            save(driver, "gallery-page")
        finally:
            server.terminate()


def shoot(driver: "Chrome", address: str, name: str, width: int, height: int, heading: str = "") -> None:
    """The top of a page at a width, or what begins with a heading."""
    resize(driver, width, height)
    driver.get(address)
    if heading:
        script = "[...document.querySelectorAll('h2')].find((h) => h.textContent === arguments[0]).scrollIntoView()"
        driver.execute_script(script, heading)
    save(driver, name)


def save(driver: "Chrome", name: str) -> None:
    """As WebP, in the highest quality that is small enough."""
    shot = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    for quality in (85, 75, 65, 50, 35):
        stream = io.BytesIO()
        shot.save(stream, "WEBP", quality=quality, method=6)
        if stream.tell() <= LARGEST:
            break
    (IMAGES / f"{name}.webp").write_bytes(stream.getvalue())
    print(f"{IMAGES / name}.webp: {stream.tell():,} bytes")


if __name__ == "__main__":
    main()
