"""Check the pages that sphinx-build has written: `python docs/check.py docs/_build`.

Every link within the site has a target, every picture is there and has a text for those who cannot
see it, no page loads anything from a network, none names a folder of the machine that built it, no
list has an empty item, no markup is read as text, and the words that people search for lead to the
page that answers them.
"""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What people type into the search, and the page that has to come first.
WORDS = {
    "install": "user_guide/installation",
    "gpu": "how_to/gpu",
    "save": "how_to/save_and_load",
    "load": "how_to/save_and_load",
    "pickle": "how_to/save_and_load",
    "anomaly": "how_to/strange_rows",
    "outlier": "how_to/strange_rows",
    "missing": "how_to/missing_values",
    "synthetic": "how_to/synthetic_rows",
    "umap": "user_guide/which_estimator",
    "csv": "user_guide/getting_started",
    "memory": "how_to/big_files",
    "progress": "user_guide/performance",
    "cite": "project/citing",
    "faq": "user_guide/faq",
    "dask": "how_to/parallel_search",
    "ray": "how_to/parallel_search",
    "weights": "how_to/weights",
    "units": "how_to/units",
    "duplicates": "how_to/repeated_rows",
    "integers": "how_to/integers_and_zeros",
    "classifier": "user_guide/densities",
}


class Page(HTMLParser):
    """Links, targets of links, and what a page loads."""

    def __init__(self, path):
        super().__init__()
        self.links, self.targets, self.loaded, self.silent = [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.targets |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        elif tag in ("img", "script") and attrs.get("src"):
            self.loaded.append(attrs["src"])
            if tag == "img" and "alt" not in attrs:
                self.silent.append(attrs["src"])
        elif tag == "link" and attrs.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(attrs["href"])


def broken_links(root, pages):
    """What is linked or loaded and is not there, or is in a network and loaded."""
    for path, page in pages.items():
        for address in page.loaded + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    yield path, f"loads {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield path, f"no file for {address}"
            elif target in pages and parts.fragment:
                if unquote(parts.fragment) not in pages[target].targets:
                    yield path, f"no target for {address}"


def machine_paths(root, pages):
    """Folders of the building machine in what is read."""
    folder = str(Path(__file__).resolve().parents[1])
    for path in pages:
        text = path.read_text(encoding="utf-8")
        if folder in text or re.search(r"/(home|root|tmp)/[\w.-]+/", text):
            yield path, "names a folder of the building machine"


def flaws(root, pages):
    """Pictures without a text, and items of a list without one: what was to be an empty cell."""
    for path, page in pages.items():
        for source in page.silent:
            yield path, f"no alternative text for {source}"
        text = path.read_text(encoding="utf-8")
        if re.search(r"<li>\s*</li>", text):
            yield path, "a list has an empty item"
        # Listings of sources have markup in docstrings.
        outside = re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
        if "_modules" not in path.parts and "``" in outside:
            yield path, "markup is read as text"


def words_that_lead_astray(root):
    """Words whose main entry in the index is not that of their page."""
    text = (root / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    entries = {word.lower(): places for word, places in index["indexentries"].items()}
    for word, page in WORDS.items():
        main = [index["docnames"][doc] for doc, _, is_main in entries.get(word, []) if is_main]
        if main != [page]:
            yield Path("searchindex.js"), f"{word} leads to {main}, not to {page}"


def main():
    root = Path(sys.argv[1]).resolve()
    # What the theme brings in _static are no pages.
    found = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path) for path in found}
    faults = [
        *broken_links(root, pages),
        *machine_paths(root, pages),
        *flaws(root, pages),
        *words_that_lead_astray(root),
    ]
    for path, fault in faults:
        print(f"{path}: {fault}")
    if faults:
        raise SystemExit(f"{len(faults)} faults in {len(pages)} pages")
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links: no fault")


if __name__ == "__main__":
    main()
