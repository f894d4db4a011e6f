"""A machine to install packages on: a directory with the programs of this one, which is changed into (chroot).

Real: dpkg, its database and its dependencies; the maintainer scripts; Debian's apache2 with a2enmod and its configuration;
httpd itself. Not real: the kernel and the network are those of this machine, and there is no systemd. What the packages
want done with the service apache2 is denied by policy-rc.d and written down; the test does it in their place. So nothing
here comes near a web server of this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Iterable, Iterator

# Of the server itself, fresh from Debian; all they need is copied from here.
SERVER = ["apache2", "apache2-bin", "apache2-data", "apache2-utils"]
NOT_COPIED = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bash-completion)/.|/usr/share/zoneinfo/.")
POLICY = "#!/bin/sh\necho \"$@\" >> /policy.log\nexit 101\n"


def run(*command: object, **more: object) -> str:
    """What it wrote. Errors: RuntimeError with that."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", **more)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


# -- which packages of this machine are copied

def _installed() -> tuple[dict[str, list[list[str]]], dict[str, str], list[str]]:
    """What each package needs (any of each list); who is behind a name; who is essential."""
    needs, behind, essential = {}, {}, []
    shown = run("dpkg-query", "-W", "-f", "${Package}\\t${Essential}\\t${Provides}\\t${Pre-Depends}, ${Depends}\\n")
    for line in shown.splitlines():
        name, is_essential, provides, depends = line.split("\t")
        needs[name] = list(_alternatives(depends))
        behind[name] = name
        for other in re.findall(r"[a-z0-9][a-z0-9+.-]+", re.sub(r"\(.*?\)", "", provides)):
            behind.setdefault(other, name)
        if is_essential == "yes":
            essential.append(name)
    return needs, behind, essential


def _alternatives(depends: str) -> Iterator[list[str]]:
    for clause in depends.split(","):
        names = [re.sub(r"\(.*?\)|:\w+", "", name).strip() for name in clause.split("|")]
        if any(names):
            yield names


def _all_needed(first: Iterable[list[str]]) -> list[str]:
    needs, behind, essential = _installed()
    found: set[str] = set()
    waiting = [[name] for name in essential] + list(first)
    while waiting:
        here = [behind[name] for name in waiting.pop() if name in behind]
        if here and here[0] not in found:
            found.add(here[0])
            waiting += needs[here[0]]
    return sorted(found)


# -- the machine

class Machine:
    def __init__(self, root: Path, downloads: Path) -> None:
        self.root = root
        debs = self._download(downloads)
        depends = ", ".join(run("dpkg-deb", "-f", deb, "Pre-Depends", "Depends") for deb in debs)
        depends = re.sub(r"(Pre-)?Depends:|\n", ",", depends)
        packages = [name for name in _all_needed([*_alternatives(depends), ["libcurl4", "libcurl4t64"], ["libjansson4"]])
                    if name not in SERVER]
        self._copy_files(packages)
        self._copy_database(packages)
        self._make_the_rest()
        self.install(*debs)

    @staticmethod
    def _download(directory: Path) -> list[Path]:
        directory.mkdir()
        try:
            run("apt-get", "-q", "download", *SERVER, cwd=directory)
        except RuntimeError:
            run("apt-get", "-q", "update")
            run("apt-get", "-q", "download", *SERVER, cwd=directory)
        return sorted(directory.glob("*.deb"))

    def _copy_files(self, packages: list[str]) -> None:
        listed = run("dpkg-query", "-L", *packages).splitlines()
        paths = dict.fromkeys(path for path in listed if path.startswith("/") and path != "/."
                              and not NOT_COPIED.match(path) and os.path.lexists(path))
        names = "\0".join(path[1:] for path in paths)
        for path in (path for path in Path("/").iterdir() if path.is_symlink() and path.readlink().parts[0] == "usr"):
            (self.root / path.readlink()).mkdir(parents=True, exist_ok=True)
            (self.root / path.name).symlink_to(path.readlink())
        packed = subprocess.run(["tar", "-C", "/", "--no-recursion", "--null", "-c", "-T", "-"], input=names.encode(),
                                stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-C", str(self.root), "-x"], input=packed.stdout, check=True)

    def _copy_database(self, packages: list[str]) -> None:
        database = self.root / "var/lib/dpkg"
        for name in ("info", "updates", "triggers", "alternatives"):
            (database / name).mkdir(parents=True, exist_ok=True)
        (database / "status").write_text(run("dpkg-query", "-s", *packages).strip() + "\n")
        for file in Path("/var/lib/dpkg/info").iterdir():
            if file.name == "format" or re.split(r"[:.]", file.name)[0] in packages or file.stem.split(":")[0] in packages:
                shutil.copy2(file, database / "info")

    def _make_the_rest(self) -> None:
        for name in ("dev", "tmp", "run/lock", "proc", "usr/sbin", "etc"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        for name, target in (("var/run", "/run"), ("var/lock", "/run/lock")):
            if not (self.root / name).is_symlink():
                (self.root / name).symlink_to(target)
        for minor, name in ((3, "null"), (5, "zero"), (8, "random"), (9, "urandom")):
            os.mknod(self.root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            (self.root / "dev" / name).chmod(0o666)
        for name in ("passwd", "group", "hosts", "nsswitch.conf"):
            shutil.copy2(Path("/etc") / name, self.root / "etc" / name)
        shutil.copytree("/etc/alternatives", self.root / "etc/alternatives", symlinks=True, dirs_exist_ok=True)
        policy = self.root / "usr/sbin/policy-rc.d"
        policy.write_text(POLICY)
        policy.chmod(0o755)
        self.run("ldconfig")

    def run(self, *command: object) -> str:
        """In the machine."""
        return run("chroot", self.root, *command, timeout=120,
                   env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"})

    # -- packages

    def install(self, *debs: Path) -> str:
        names = []
        for deb in debs:
            shutil.copy2(deb, self.root / "tmp")
            names.append("/tmp/" + deb.name)
        return self.run("dpkg", "-i", *names)

    def wanted_of_the_service(self) -> list[str]:
        """What packages asked for since the last call, as in "apache2 restart"."""
        file = self.root / "policy.log"
        asked = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return [re.sub("[()]", "", line).strip() for line in asked]

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def traces(self, word: str) -> list[str]:
        """Files anywhere in the machine with this in their name, but for what the test brought."""
        found = run("find", self.root, "-xdev", "-name", f"*{word}*", "-printf", "/%P\n").splitlines()
        return sorted(name for name in found if not name.startswith("/tmp/"))
