"""Settings of Sphinx for the documentation site; `make docs` builds it (build_site.py)."""

from docutils import nodes
from latex2mathml.converter import convert

project = "qatoolkit"
extensions = ["myst_nb"]
root_doc = "index"
language = "en"
default_role = "code"

nb_execution_mode = "off"  # notebooks are shown as they are
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
myst_update_mathjax = False

html_theme = "furo"
html_title = "qatoolkit"
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = html_show_sourcelink = html_show_copyright = html_show_sphinx = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse for files
html_math_renderer = "mathml"  # browsers draw it themselves, so no script has to be loaded
html_theme_options = {"top_of_page_buttons": []}
toc_object_entries_show_parents = "hide"


def write_formula(display: str):
    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode

    return visit, None


def describe_figures(app, doctree):
    """Give every figure in a notebook's outputs the line of code that drew it as its text for screen readers."""
    for cell in doctree.findall(lambda node: isinstance(node, nodes.container) and "cell" in node["classes"]):
        code = next((block.astext().strip() for block in cell.findall(nodes.literal_block)), "")
        for image in cell.findall(nodes.image):
            image["alt"] = f"Figure drawn by {code.splitlines()[-1]}" if code else "Figure"


def repair_navigation(app, page, template, context, doctree):
    """Captions at the side are no headings: they have no level among those of the page."""
    context["furo_navigation_tree"] = context["furo_navigation_tree"].replace(' role="heading"', "")


def setup(app):
    app.add_html_math_renderer("mathml", write_formula("inline"), write_formula("block"))
    app.connect("doctree-read", describe_figures)
    app.connect("html-page-context", repair_navigation, priority=900)  # after the theme
