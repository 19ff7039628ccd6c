"""How Sphinx builds the documentation: `make docs`, then open build/docs/index.html."""

from importlib.metadata import version as version_of

project = "amqtt_db"
author = "the amqtt_db authors"
version = release = version_of("amqtt_db")
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"amqtt_db {release}"
html_copy_source = False
html_show_copyright = False
html_theme_options = {"sidebar_hide_name": False}
linkcheck_ignore = [r"http://127\.0\.0\.1"]
