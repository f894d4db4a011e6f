"""Building the packages, in a copy of the source that has no version control."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from machine import run

TOP = Path(__file__).resolve().parents[2]
NAME = "libapache2-mod-auth-bitbucket"
MADE = [".git", "build", "build-*", "autom4te.cache", "__pycache__", ".pytest_cache", "configure", "configure~", "Makefile.in",
        "aclocal.m4", "build-aux", "libtool.m4", "lt*.m4"]


class Source:
    """directory: the copy. Packages come beside it."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "source"
        shutil.copytree(TOP, self.directory, ignore=shutil.ignore_patterns(*MADE), symlinks=True)

    @property
    def version(self) -> str:
        return run("dpkg-parsechangelog", "-S", "Version", cwd=self.directory).strip()

    def build(self, *arguments: str) -> None:
        """The unit tests are left out: other parts run them, and here they would take two minutes."""
        run("dpkg-buildpackage", "-us", "-uc", *arguments, cwd=self.directory,
            env={**os.environ, "DEB_BUILD_OPTIONS": f"nocheck parallel={os.cpu_count()}"})

    def become(self, version: str) -> None:
        """The next version, to be built with -nc: what need not be compiled again is not."""
        old = self.version
        for file in ("configure.ac", "debian/changelog"):
            path = self.directory / file
            path.write_text(path.read_text().replace(old, version, 1))
        for path in [*self.directory.glob("*.c"), *self.directory.glob("src/*.c")]:
            if re.search(r"\bABB_VERSION\b", path.read_text()):
                path.touch()
        run("dh_clean", "-Xbuild", cwd=self.directory)

    def file(self, ending: str) -> Path:
        return self.directory.parent / f"{NAME}{ending}"

    def deb(self, of: str = "") -> Path:
        [found] = self.directory.parent.glob(f"{NAME}{of}_{self.version}_*.deb")
        return found


def checks_at_build(source: Source, options: str) -> str:
    """What dh_auto_test would run."""
    return subprocess.run(["dh_auto_test", "--no-act", "-v", "-B", "build/debian"], cwd=source.directory, check=True,
                          text=True, capture_output=True, env={**os.environ, "DEB_BUILD_OPTIONS": options}).stdout
