"""Every configuration block of the documents is read by httpd -t, and the module has nothing to say to it.

What a block does is for the tests of recipes, of rules and of directives; here is only shown that
whoever pastes it gets a server that starts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import certificates, config
from harness.fixtures import wanted_mpms

TOP = Path(__file__).resolve().parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
# Neighbours that blocks speak to; those that a block loads itself are left out.
NEIGHBOURS = """auth_basic authn_file cache_disk dav dav_fs dav_svn http2 lua proxy_fcgi proxy_wstunnel
    remoteip""".split()
# Paths of the documents are looked for below the test's own directory.
PATH = re.compile(r"(?<![\w/.}])/(?:var|srv|etc|run|usr/local)/[\w./-]*")
NEEDS_A_PLACE = re.compile(r"(?m)^(?:AuthType|Require) ")


@dataclass(frozen=True)
class Block:
    page: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"

    def parts(self) -> list[str]:
        """For one machine each."""
        return re.split(r"(?m)^(?=# On the machine )", self.text)


def blocks_of(page: str, text: str) -> list[Block]:
    """Blocks may stand in a list, a few spaces to the right."""
    found = re.finditer(r"(?ms)^(?P<margin> *)```(?:apache|httpd)\n(?P<text>.*?)^(?P=margin)```", text)
    return [Block(page, number, re.sub("(?m)^" + match["margin"], "", match["text"])) for number, match in enumerate(found, 1)]


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(str(page.relative_to(TOP)), page.read_text())]


class Reader:
    """Has httpd read blocks, each in a file of its own that makes it complete."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._base = config.base_text(root, wanted_mpms()[0]) + config.load_modules(NEIGHBOURS)
        self._secret = root / "conf" / "secret"
        self._secret.write_text("a-secret-of-the-right-length-0123456789\n")
        certificates.write(root / "conf" / "site", ["wiki.example.com"])

    def complaint(self, block: Block) -> str:
        """What httpd says to it; "" when that is nothing."""
        said = [self._read(f"{block.page.replace('/', '-')}-{block.number}-{part}", text)
                for part, text in enumerate(block.parts()) if text.strip()]
        return "\n".join(filter(None, said))

    def _read(self, name: str, text: str) -> str:
        file = self._root / "conf" / f"{name}.conf"
        file.write_text("\n".join([self._base, self._surroundings(text), self._for_this_machine(text)]))
        done = subprocess.run([str(config.httpd_program()), "-d", str(self._root), "-f", str(file), "-t"], text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
        said = [line for line in done.stdout.splitlines() if line != "Syntax OK"]
        return "\n".join(said) or ("" if done.returncode == 0 else f"status {done.returncode}")

    def _surroundings(self, text: str) -> str:
        """A site of which the block may be a part; what the block says itself comes later and counts."""
        lines = ["LogLevel warn", "ServerName https://wiki.example.com"]
        own = {"AuthBitbucketClientID": "some-key", "AuthBitbucketClientSecret": f"file:{self._secret}"}
        if "AuthBitbucketSessionCache" in text:
            own["AuthBitbucketSessionKey"] = f"file:{self._secret}"
        # A site that is there only to redirect to another has no client.
        if "Bitbucket" in text or NEEDS_A_PLACE.search(text):
            lines += [f"{directive} {value}" for directive, value in own.items() if directive not in text]
        return "\n".join(lines)

    def _for_this_machine(self, text: str) -> str:
        text = text.replace(" modules/mod_", f" {config.modules_directory()}/mod_")
        text = PATH.sub(lambda found: self._provided(found[0]), text)
        return f'<Location "/">\nAuthType Bitbucket\n{text}</Location>\n' if NEEDS_A_PLACE.search(text) else text

    def _provided(self, path: str) -> str:
        """A path of this machine for one of the documents, with something at it."""
        target = self._root / path.lstrip("/")
        if path.startswith("/etc/ssl"):
            source = self._root / "conf" / ("site.key" if target.suffix == ".key" or "private" in path else "site.crt")
        else:
            source = self._secret
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.startswith("/usr/local/sbin/"):
            target.write_text(f"#!/bin/sh\ncat {self._secret}\n")
            target.chmod(0o755)
        elif path.startswith("/etc/") or path.startswith("/run/credentials/"):
            shutil.copy(source, target)
        elif path in ("/var/lock/apache2", "/var/www/html"):
            target.mkdir(exist_ok=True)
        return str(target)


@pytest.fixture(scope="module")
def reader():
    root = Path(tempfile.mkdtemp(prefix="abb-documents-"))
    config.write_content(root)
    yield Reader(root)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def complaints(reader) -> dict[Block, str]:
    """Of all blocks; two are read at the same time."""
    blocks = all_blocks()
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(blocks, threads.map(reader.complaint, blocks)))


def test_blocks_are_found():
    blocks = all_blocks()
    assert len(blocks) > 100
    assert {"README.md", "docs/directives.md", "docs/rules.md", "docs/recipes/git.md"} <= {block.page for block in blocks}


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_block_is_read(complaints, block):
    assert complaints[block] == "", f"{block}:\n{block.text}"


# -- what is wrong is found

WRONG = [
    ("AuthBitbucketCalbackURL https://wiki.example.com/bitbucket/callback\n", "AuthBitbucketCalbackURL"),
    ('<Location "/">\n    AuthType Bitbucket\n    Require bitbucket-worspace acme\n</Location>\n', "bitbucket-worspace"),
    ("AuthBitbucketCallbackURL http://wiki.example.com/bitbucket/callback\n", "ABB0004"),
    ("Require bitbucket-workspace acme:admin\n", "'admin'"),
    ('<Location "/tool/">\n    ProxyPasss "http://127.0.0.1:9000/"\n</Location>\n', "ProxyPasss"),
]


@pytest.mark.parametrize("text, said", WRONG)
def test_a_wrong_block_is_found(reader, text, said):
    block, = blocks_of("none.md", f"A page.\n\n```apache\n{text}```\n")
    assert said in reader.complaint(block)
