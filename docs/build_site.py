"""Build the documentation site: `make docs`, or python docs/build_site.py [FOLDER].

Pages and notebooks are copied to FOLDER/source, laid out as in the repository, so that their links work in both places;
Sphinx makes FOLDER/site of them. Nothing is executed and no network is needed. A notebook is the executed copy of the
demo run where there is one, else the committed one without outputs."""

import os
import re
import shutil
import sys
from pathlib import Path

from api_entries import entries

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "docs" / "_build"
PAGES = ("CHANGELOG.md", "AGENTS.md", "CONTRIBUTING.md", "data/README.md", "results/README.md", "notebooks/README.md")
FILES = ("LICENSE", "docs/rooms.svg", *(f"results/reference/{name}.png" for name in ("demo_gain", "demo_scaling")))
HOME = "index.md"  # README.md on the site
NO_MATHS = "---\nmyst:\n  enable_extensions: [colon_fence]\n---\n"  # a $ in a page is a dollar; notebooks have formulas


def main(arguments: list[str]) -> int:
    from sphinx.cmd.build import main as sphinx

    folder = Path(arguments[0] if arguments else BUILD).resolve()
    gather(folder / "source")
    shutil.rmtree(folder / "site", ignore_errors=True)
    quiet = ["-q", "-W", "--keep-going", "-j", "auto", "-c", str(ROOT / "docs"), "-d", str(folder / "doctrees")]
    code = sphinx([*quiet, str(folder / "source"), str(folder / "site")])
    print(f"{folder / 'site' / 'index.html'}" if code == 0 else "the pages have faults, listed above", flush=True)
    return code


def gather(source: Path) -> None:
    """Write the pages and notebooks of the site into the folder `source`, in place of what an earlier build left there;
    ValueError for a folder that something else made."""
    if source.exists() and not (source / HOME).is_file():
        raise ValueError(f"{source} was not made by this script: give another folder")
    shutil.rmtree(source, ignore_errors=True)
    pages = [*PAGES, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in pages}
    texts[HOME] = (ROOT / "README.md").read_text(encoding="utf-8")
    texts["docs/api.md"] = with_entries(texts["docs/api.md"])
    texts["notebooks/README.md"] += toctree([path.name for path in notebooks()])
    texts[HOME] += toctrees(texts["docs/index.md"])
    for page, text in texts.items():
        write(source / page, NO_MATHS + link_home(text, page))
    for path in notebooks():
        write(source / "notebooks" / path.name, executed(path).read_text(encoding="utf-8"))
    for name in FILES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def executed(notebook: Path) -> Path:
    """The executed copy of a notebook in the demo run, or the notebook itself where there is none."""
    results = Path(os.environ.get("QATOOLKIT_RESULTS") or ROOT / "results")
    copy = results / "demo" / "notebooks" / notebook.name
    return copy if copy.is_file() else notebook


def link_home(text: str, page: str) -> str:
    """The text with links to the README of the repository leading to the site's first page."""

    def to_home(link: re.Match) -> str:
        target = os.path.normpath(Path(page).parent / link[1])
        return f"]({link[1].replace('README.md', HOME)}" if target == "README.md" else link[0]

    return re.sub(r"\]\(([./]*README\.md)", to_home, text)


def toctrees(index: str) -> str:
    """The sections of docs/index.md, lists of links, as tables of contents for the side of every page."""
    found = toctree(["docs/index.md"])
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        links = re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", section, re.MULTILINE)
        found += toctree([os.path.normpath(Path("docs") / link) for link in links], section.splitlines()[0])
    return found


def toctree(pages: list[str], caption: str = "") -> str:
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return "\n```{toctree}\n" + options + "\n" + "".join(f"{page}\n" for page in pages) + "```\n"


def with_entries(page: str) -> str:
    """The API page with the entries of every room in place of its mark."""
    return re.sub(r"<!-- names of ([\w.]+) -->", lambda mark: entries(mark[1]), page)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
