"""Chromium, for tests of pages and for the screenshots in the docs: as wide as a desk's screen or as a phone's."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ARGUMENTS = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "disable-sync", "no-first-run", "hide-scrollbars",
    "disable-background-networking", "disable-component-update", "force-color-profile=srgb",
)  # fmt: skip


def missing() -> bool:
    """Whether there is no browser, and nobody has asked for one (DAPG_BROWSER)."""
    return shutil.which("chromedriver") is None and "DAPG_BROWSER" not in os.environ


def chromium(folder: Path) -> "Chrome":
    """A browser with its profile and downloads in a folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in (*ARGUMENTS, f"user-data-dir={folder / 'profile'}"):
        options.add_argument(f"--{argument}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def resize(driver: "Chrome", width: int, height: int = 900) -> None:
    """The page's size in CSS pixels; a window of this browser is never narrower than 500, an emulated device is."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def needed_width(driver: "Chrome") -> int:
    """How wide the page is with all its sections open: more than the window means that it scrolls sideways."""
    script = "for (const d of document.querySelectorAll('details')) d.open = true;"
    return int(driver.execute_script(script + "return document.documentElement.scrollWidth"))


def errors(driver: "Chrome") -> list[str]:
    """What the page has complained about."""
    return [str(entry["message"]) for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
