"""How Sphinx builds these pages: every code block runs, every warning is an error, nothing is asked of the network."""

import sys
from pathlib import Path

import chainrule

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "chainrule"
author = "The chainrule authors"
copyright = author  # noqa: A001
release = version = chainrule.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "docstrings",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute", "gallery/*.ipynb", "gallery/*.py", "sg_execution_times.rst"]
default_role = "code"
nitpicky = False

# pages
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300  # seconds a cell, on a busy machine
nb_output_stderr = "warn"
nb_merge_streams = True
html_math_renderer = "mathml"

# the reference
autosummary_generate = True
autosummary_imported_members = True
# where two names differ in their case alone, so must not their files
autosummary_filename_map = {f"chainrule.{name}": f"chainrule.{name}-class" for name in ("Jacobian", "Plan")}
autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# the gallery
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r".*\.py",
    "backreferences_dir": None,
    "reset_modules": ("matplotlib", "gallery.as_it_comes"),
    "min_reported_time": 1,
    "show_memory": False,
    "parallel": 2,
    "show_signature": False,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
}

# the look
html_theme = "furo"
html_title = f"chainrule {release}"
html_static_path = ["_static"]
html_css_files = ["chainrule.css"]
html_copy_source = False
html_show_sphinx = False
