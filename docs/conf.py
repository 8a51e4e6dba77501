"""Sphinx settings: MyST Markdown, furo theme; the pages of settings and modules are made from the code."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

from dapg import __version__

sys.path.insert(0, str(Path(__file__).parent))
from settings_pages import write_pages

write_pages()

project = "dapg"
author = "The dapg authors"
copyright = "2026, the dapg authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
apidoc_modules = [
    {
        "path": "../src/dapg",
        "destination": "reference/modules",
        "exclude_patterns": ["../src/dapg/**/_[a-z]*.py", "../src/dapg/__main__.py"],
        "automodule_options": {"members", "show-inheritance"},
        "include_private": False,
        "module_first": True,
    }
]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"dapg {release}"
exclude_patterns = ["_build"]
suppress_warnings = [
    "myst.xref_missing",  # links from docs to files of the repository
    "ref.python",  # two classes of one name, such as a Config in each method
]


def setup(app: Sphinx) -> None:
    """Leave out the keys of dictionaries that are no names, such as rank-1: autodoc cannot document them."""
    app.connect("autodoc-skip-member", lambda app, what, name, item, skip, options: skip or not name.isidentifier())
