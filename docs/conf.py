"""Sphinx settings: MyST Markdown, furo theme."""

from dapg import __version__

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
