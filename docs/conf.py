"""Builds the documentation's site: make docs."""

import re
from pathlib import Path

from iodine_pl import __version__

DOCS = Path(__file__).parent
ROOT = DOCS.parent
REPOSITORY = re.search(r'^Repository = "(.*)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]

project = "iodine-pl"
author = "The iodine-pl authors"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to headings, as GitHub has them
nb_execution_mode = "off"  # the notebook's outputs are part of it; tests/test_tutorial.py runs its cells
exclude_patterns = ["results"]

autodoc_inherit_docstrings = False  # Lightning's use roles of its own site
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "iodine-pl"
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
copybutton_exclude = ".linenos, .gp"


def _on_site(docname, source):
    """Turns what GitHub shows into a page: one link alone becomes its file, and links to other files lead to GitHub.

    Links in the pages are relative, so that they work on GitHub; the site has no other files than docs/.
    """
    folder = (DOCS / docname).parent
    alone = re.fullmatch(r"# .*\n+See \[.*\]\((\S+)\)\.\s*", source[0])
    if alone:
        page = (folder / alone[1]).resolve()
        source[0], folder = page.read_text(), page.parent

    def link(found):
        target = (folder / found[1]).resolve()
        if target.is_relative_to(DOCS) and target.suffix in (".md", ".ipynb", ".png", ".svg"):
            relative = target.relative_to(DOCS).as_posix()
            return f"](/{relative}{found[2]})"
        kind = "tree" if target.is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{target.relative_to(ROOT).as_posix()}{found[2]})"

    source[0] = re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)", lambda m: link(("", m[1], m[2] or "")), source[0])


def setup(app):
    app.connect("source-read", lambda app, docname, source: _on_site(docname, source))
