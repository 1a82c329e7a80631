"""Settings of the documentation: python -m sphinx -W --keep-going -E -b html docs docs/_build/html"""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import skecg  # noqa: E402

project = "skecg"
author = "the skecg developers"
copyright = author
release = version = skecg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "matplotlib.sphinxext.plot_directive",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "**/_templates"]
templates_path = ["api/_templates"]
default_role = "literal"
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

plot_basedir = str(HERE)
plot_include_source = False
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("svg", 100)]

html_theme = "pydata_sphinx_theme"
html_title = "skecg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_nav_level": 2,
    "navigation_with_keys": False,
}
html_sidebars = {"index": [], "examples/index": []}

ROOT_NAMES = list(skecg._PUBLIC)


def public_names():
    """Full names of everything that the package offers: of the root, and of each room."""
    names = [f"skecg.{name}" for name in ROOT_NAMES]
    for room in skecg._ROOMS:
        module = importlib.import_module(f"skecg.{room}")
        listed = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__ and callable(value)
        ]
        names += [f"skecg.{room}.{name}" for name in listed]
    root = {id(getattr(skecg, name)) for name in ROOT_NAMES}
    # what the root offers as well is listed there
    return [name for name in names if name.count(".") == 1 or id(locate(name)) not in root]


def locate(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def own_members(name):
    """Methods and properties of a class that skecg documents itself, in the order of their definition."""
    members = {}
    for base in locate(name).__mro__:
        if base.__module__.partition(".")[0] != "skecg":
            continue
        for member, value in vars(base).items():
            if member.startswith("_") or member in members or value is None:
                continue
            if inspect.isfunction(value) or isinstance(value, (property, classmethod)) or hasattr(value, "fn"):
                members[member] = "autoproperty" if isinstance(value, property) else "automethod"
    return list(members.items())


autosummary_context = {"own_members": own_members}
suppress_warnings = ["config.cache"]  # functions in the settings above are not cached, which is as well


def check_completeness(app):
    """A public name without a page, or a table that no longer says what is tested, breaks the build."""
    from sphinx.util import logging

    logger = logging.getLogger(__name__)
    listed, module = set(), ""
    for line in (HERE / "api" / "index.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            listed.add(f"{module}.{line.strip()}")
    for name in sorted(set(public_names()) ^ listed):
        what = "lists a name that is not public" if name in listed else "lacks the public name"
        logger.warning("api/index.md %s: %s", what, name)

    tests = HERE.parent / "tests" / "test_meta_estimators.py"
    if not tests.exists():
        return
    tested = {}
    for node in ast.parse(tests.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            tested[node.targets[0].id] = {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    page = (HERE / "guide" / "scikit_learn.md").read_text(encoding="utf-8")
    for table in ("WORKS", "FAILS"):
        part = re.search(rf"<!-- {table} -->(.*?)<!-- end -->", page, re.S).group(1)
        documented = set(re.findall(r"^\| `([^`]+)`", part, re.M))
        for name in sorted(documented ^ tested[table]):
            logger.warning("guide/scikit_learn.md and the tests disagree on %s in %s", name, table)


def link_outside(app, env, node, contnode):
    """References into other packages: links to scikit-learn's pages, plain text for the others."""
    from docutils import nodes

    target = node.get("reftarget", "")
    package = target.partition(".")[0]
    if package == "sklearn":
        address = f"https://scikit-learn.org/stable/modules/generated/{target}.html"
        return nodes.reference("", "", contnode, internal=False, refuri=address)
    if package in ("numpy", "torch", "skorch", "joblib", "scipy", "nn"):
        return contnode
    return None


def tidy_markdown(app, docname, source):
    """Drop the blank line that doctest needs between output and the end of a code block."""
    source[0] = re.sub(r"\n\n```\n", "\n```\n", source[0])


def setup(app):
    app.connect("builder-inited", check_completeness)
    app.connect("missing-reference", link_outside)
    app.connect("source-read", tidy_markdown)
