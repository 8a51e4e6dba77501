"""Sphinx settings: MyST Markdown, furo theme; the pages of settings are made from the code first."""

import sys
from pathlib import Path

from dapg import __version__

sys.path.insert(0, str(Path(__file__).parent))
from settings_pages import write_pages

write_pages()

project = "dapg"
author = "The dapg authors"
copyright = "2026, the dapg authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"dapg {release}"
exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # links from docs to files of the repository
