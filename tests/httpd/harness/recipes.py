"""The pages of docs/recipes: what they tell to paste, made to run on this machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Callable, Mapping

from . import config
from .server import Server, web_user

PAGES = Path(__file__).resolve().parents[3] / "docs" / "recipes"
# All that is changed in a block before httpd reads it: paths now begin at the test's own httpd.
# Tests add the addresses of what they start themselves.
SUBSTITUTED = {
    "/var/log/apache2/": "${ROOT}/logs/",
    "/var/": "${ROOT}/var/",
    "/srv/": "${ROOT}/srv/",
    "/etc/": "${ROOT}/etc/",
}
SERVED_ALREADY = {*config.MODULES, "cgi", "cgid"}
# As Debian has it: nothing is open unless a block opens it.
CLOSED = '<Directory "/">\nAllowOverride None\nRequire all denied\n</Directory>\n'


class Page:
    """A page by its name, without .md."""

    def __init__(self, name: str) -> None:
        self.text = (PAGES / f"{name}.md").read_text()

    def samples(self, language: str) -> list[str]:
        """Blocks of code as they stand there."""
        return re.findall(rf"(?ms)^```{language}\n(.*?)^```", self.text)

    def block(self, number: int, more: Mapping[str, str]) -> str:
        """What is to be pasted into httpd's configuration, for this machine."""
        text = self.samples("apache")[number]
        for written, here in more.items():
            assert written in text, f"the page no longer says {written}"
            text = text.replace(written, here)
        for written, here in SUBSTITUTED.items():
            text = re.sub(r"(?<![\w/}])" + written, lambda _: here, text)
        return text

    def modules(self) -> str:
        """LoadModule lines for all that the page says to enable."""
        commands = re.findall(r"(?m)^    sudo a2enmod ([a-z0-9_ ]+?)(?: +#.*)?$", self.text)
        names = dict.fromkeys(name for command in commands for name in command.split() if name not in SERVED_ALREADY)
        return "".join(f"LoadModule {name}_module {config.modules_directory()}/mod_{name}.so\n" for name in names)


class Paster:
    """Runs one block of a page. Set it up by the fixture paste."""

    def __init__(self, start_server: Any, mpm: str, name: str, number: int = 0) -> None:
        self._start_server = start_server
        self._mpm = mpm
        self._number = number
        self.page = Page(name)

    def block(self, more: Mapping[str, str] = {}) -> str:
        return self.page.block(self._number, more)

    def __call__(self, more: Mapping[str, str] = {}, *, before: str = "", after: str = "",
                 files: Mapping[str, str] = {}, programs: Mapping[str, str] = {}, writable: tuple[str, ...] = (),
                 prepare: Callable[[Server], None] | None = None, **of_host: Any) -> tuple[config.VirtualHost, Server]:
        """A site with the block in it. more: further substitutions; before, after: lines around the
        block that are no part of the page; files and programs: texts by their paths on the page;
        writable: directories that httpd's user owns."""
        host = config.VirtualHost("\n".join([before, self.block(more), after]), **of_host)
        return host, self.start(host, files=files, programs=programs, writable=writable, prepare=prepare)

    def start(self, *hosts: config.VirtualHost, files: Mapping[str, str] = {}, programs: Mapping[str, str] = {},
              writable: tuple[str, ...] = (), prepare: Callable[[Server], None] | None = None) -> Server:
        server = self._start_server.prepare(*hosts, mpm=self._mpm, main=self.page.modules() + CLOSED)
        for path, text in {**files, **programs}.items():
            target = server.root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o755 if path in programs else 0o644)
        if prepare:
            prepare(server)
        for path in writable:
            directory = server.root / path.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            if web_user():
                subprocess.run(["chown", "-R", f"{web_user()}:{web_user()}", str(directory)], check=True)
        return server.start()
