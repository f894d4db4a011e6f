"""scripts/html: the documents as HTML pages. Every link leads somewhere and no Markdown is left."""

import html.parser
import os
import pathlib
import re
import shutil
import subprocess
import urllib.parse

import pytest

TOP = pathlib.Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGES",
             *(str(path.relative_to(TOP)) for path in sorted(TOP.glob("docs/**/*.md")))]
VOID = {"meta", "link", "img", "br", "hr"}
KNOWN = VOID | set("html head title body header nav main footer details summary div span h1 h2 h3 h4 p a em strong code pre "
                   "ul ol li table thead tbody tr th td blockquote".split())


class Page(html.parser.HTMLParser):
    """What a page is made of. links are the addresses in its main part, relations those of rel=next and its like."""

    def __init__(self, path):
        super().__init__()
        self.open, self.faults, self.ids, self.tags = [], [], [], []
        self.addresses, self.links, self.contents, self.relations = [], [], [], {}
        self.title = self.prose = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        self.addresses += [found[name] for name in ("href", "src") if name in found]
        if tag == "a":
            self._note_link(found)

    def _note_link(self, found):
        for place, inside in ((self.links, "main"), (self.contents, "details")):
            if inside in self.open:
                place.append(found["href"])
        self.relations[found.get("rel")] = found["href"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> on line {self.getpos()[0]} closes something else")

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.title += data
        if not {"code", "pre", "title"} & set(self.open):
            self.prose += data


def run(top, directory, **environment):
    return subprocess.run([top / "scripts/html", directory], capture_output=True, text=True, check=False,
                          env=os.environ | environment)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("html")
    done = run(TOP, directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return directory


@pytest.fixture(scope="module")
def pages(built):
    return {str(path.relative_to(built)): Page(path) for path in built.rglob("*.html")}


def page_of(document):
    return "index.html" if document == "docs/README.md" else os.path.splitext(document)[0] + ".html"


def is_internal(address):
    return not urllib.parse.urlsplit(address).scheme


def target(page, address):
    """Of an address on a page: the path below the directory, and the anchor."""
    parts = urllib.parse.urlsplit(address)
    path = os.path.normpath(os.path.join(os.path.dirname(page), urllib.parse.unquote(parts.path))) if parts.path else page
    return path, parts.fragment


def source_lines(document):
    """Without blocks of code."""
    text = (TOP / document).read_text(encoding="utf-8")
    return re.sub(r"(?ms)^( *)```.*?^\1```$", "", text).splitlines()


def test_each_document_has_its_page(pages):
    assert {page_of(document) for document in DOCUMENTS} <= set(pages)


def test_every_page_is_reached_from_the_index_by_links_in_the_text(pages):
    reached, due = set(), ["index.html"]
    while due:
        page = due.pop()
        if page not in reached:
            reached.add(page)
            due += [target(page, link)[0] for link in pages[page].links if is_internal(link)]
    assert reached == set(pages)


def test_next_leads_through_all_pages_and_previous_back(pages):
    order = ["index.html"]
    while "next" in pages[order[-1]].relations and len(order) <= len(pages):
        order.append(target(order[-1], pages[order[-1]].relations["next"])[0])
    assert sorted(order) == sorted(pages)
    for before, page in zip(order, order[1:]):
        assert target(page, pages[page].relations["prev"])[0] == before
    assert order.index("docs/recipes/cgi.html") == order.index("docs/recipes/README.html") + 1


def test_every_link_and_anchor_leads_somewhere(built, pages):
    dangling = []
    for name, page in pages.items():
        for address in filter(is_internal, page.addresses):
            path, anchor = target(name, address)
            if not (built / path).is_file() or (anchor and anchor not in pages[path].ids):
                dangling.append(f"{name}: {address}")
    assert not dangling


def test_every_page_leads_home(pages):
    assert {target(name, page.relations["index"])[0] for name, page in pages.items()} == {"index.html"}


def test_pages_are_well_formed(pages):
    faults = {name: page.faults + sorted(set(page.tags) - KNOWN) for name, page in pages.items()}
    assert not {name: found for name, found in faults.items() if found}
    assert [name for name, page in pages.items() if len(page.ids) != len(set(page.ids))] == []


def test_titles_are_there_and_differ(pages):
    titles = [page.title for page in pages.values()]
    assert all("mod_auth_bitbucket" in title for title in titles)
    assert len(set(titles)) == len(titles)
    assert [name for name, page in pages.items() if page.tags.count("h1") != 1] == []


def test_no_markdown_is_left(pages):
    left = {name: re.findall(r"\]\(|\|---|```|\*\*|^#+ |^\|.*", page.prose, re.MULTILINE) for name, page in pages.items()}
    assert not {name: found for name, found in left.items() if found}


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGES"])
def test_headings_and_tables_are_those_of_the_document(pages, document):
    page = pages[page_of(document)]
    lines = source_lines(document)
    headings = [re.sub("[^a-z0-9 _-]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
                for line in lines if re.match("#+ ", line)]
    assert page.ids == headings
    assert page.tags.count("table") == sum(line.startswith("|---") for line in lines)


def test_every_change_is_an_item(pages):
    text = (TOP / "CHANGES").read_text(encoding="utf-8")
    assert pages["CHANGES.html"].tags.count("li") == text.count("\n  *) ")


def test_long_pages_have_a_table_of_contents(pages):
    for name in ("docs/directives.html", "docs/messages.html", "docs/security.html", "README.html"):
        assert pages[name].contents == [f"#{anchor}" for anchor in pages[name].ids[1:]]
    assert pages["docs/recipes/git.html"].contents == []


def test_pictures_are_there_and_know_the_dark(built, pages):
    pictures = sorted(built.rglob("*.svg"))
    assert [path.name for path in pictures] == sorted(path.name for path in TOP.glob("docs/**/*.svg"))
    assert pages["docs/performance.html"].tags.count("img") == len(pictures)
    assert all("prefers-color-scheme:dark" in path.read_text(encoding="utf-8") for path in pictures)


# --- what goes wrong ---------------------------------------------------------------------------

@pytest.fixture
def source(tmp_path):
    """A copy of what the pages are made of, to be spoilt."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGES", "LICENSE", "scripts/html", "scripts/html.css",
                 "tests/simulator/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, tmp_path / name)
    shutil.copytree(TOP / "docs", tmp_path / "docs")
    return tmp_path


def assert_refuses(source, sentence, **environment):
    done = run(source, source / "out", **environment)
    assert done.returncode == 1
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (source / "out").exists()


def test_a_link_to_nowhere_is_named(source):
    with (source / "docs/rules.md").open("a", encoding="utf-8") as page:
        page.write("\nSee [there](no-such-page.md#at-all).\n")
    assert_refuses(source, "docs/rules.md: the link no-such-page.md#at-all leads nowhere")


def test_a_document_that_no_list_has_is_named(source):
    (source / "docs/recipes/new.md").write_text("# New\n", encoding="utf-8")
    assert_refuses(source, "No list has docs/recipes/new.md: link it from docs/README.md or from the README.md of its folder.")


def test_without_the_library_the_package_is_named(source):
    (source / "markdown_it.py").write_text("raise ImportError\n", encoding="utf-8")
    assert_refuses(source, "apt-get install --no-install-recommends python3-markdown-it", PYTHONPATH=str(source))


def test_a_file_of_the_source_is_named_without_a_link(built):
    assert "see <code>LICENSE</code>." in (built / "README.html").read_text(encoding="utf-8")
