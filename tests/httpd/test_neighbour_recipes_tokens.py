"""The pages of docs/recipes as they stand there: command-line clients that sign in with the
address of an Atlassian account and an API token."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from harness.client import SCRIPT
from harness.simulator import WORLD

recipe = pytest.mark.recipe


def token_of(person: str) -> str:
    return WORLD["accounts"][person]["api_tokens"][0]["token"]


def address_of(person: str) -> str:
    return WORLD["accounts"][person]["emails"][0]["email"]


def run(*words: str, home: Path, fails: bool = False, said: str = "", cwd: Path | None = None) -> str:
    """A program to its end, in a home of its own."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0",
                   "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@acme.example",
                   "GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@acme.example"}
    found = subprocess.run(words, cwd=cwd or home, env=environment, input=said, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=60)
    assert (found.returncode != 0) == fails, found.stdout
    return found.stdout



# -- WebDAV

# What a server may have for PHP and the like.
LAX = '<Directory "${ROOT}/srv">\nAllowOverride All\nOptions All\n</Directory>'
EXECUTABLE = '<FilesMatch "\\.cgi$">\nSetHandler cgi-script\nOptions +ExecCGI\n</FilesMatch>'


@recipe("webdav")
def test_webdav_with_curl(paste, new_browser, tmp_path):
    host, server = paste(writable=("/var/lib/dav", "/srv/files"), before=LAX, after=EXECUTABLE)
    (tmp_path / "notes.txt").write_text("notes of mark")
    url = host.url("/files/notes.txt")

    def curl(person: str | None, *words: str, token: str | None = None) -> str:
        who = ["-u", f"{address_of(person)}:{token or token_of(person)}"] if person else []
        return run("curl", "-sS", "-o", "got", "-w", "%{http_code}", *who, *words, url, home=tmp_path)

    for person, status in ((None, "401"), ("oscar", "403"), ("carla", "403")):
        assert curl(person, "-T", "notes.txt") == status
    assert curl("mark", "-T", "notes.txt", token="ATATT-guess") == "401"
    kept = server.root / "srv/files/notes.txt"
    assert not kept.exists()
    assert curl("mark", "-T", "notes.txt") == "201" and kept.read_text() == "notes of mark"
    for person, status in ((None, "401"), ("oscar", "403"), ("carla", "200"), ("mark", "200")):
        assert curl(person) == status
        assert ((tmp_path / "got").read_text() == "notes of mark") == (status == "200")
    assert curl("carla", "-X", "DELETE") == "403" and curl("mark", "-X", "MKCOL") in ("405",)
    assert curl("carla", "-X", "PROPFIND", "-H", "Depth: 1") == "207"
    # Nothing there is run or obeyed.
    uploads = {"run.cgi": "#!/bin/sh\nprintf '\\r\\nran'\n", "run.shtml": '<!--#echo var="REMOTE_USER" -->'}
    (server.root / "srv/files/.htaccess").write_text("RedirectMatch run /elsewhere\n")
    for name, text in uploads.items():
        (server.root / "srv/files" / name).write_text(text)
        (server.root / "srv/files" / name).chmod(0o755)
        assert run("curl", "-sS", "-u", f"{address_of('mark')}:{token_of('mark')}", host.url("/files/" + name), home=tmp_path) == text
    # A browser signs in as everywhere.
    assert new_browser().sign_in(url, "mark").text == "notes of mark"
    assert curl("mark", "-X", "DELETE") == "204" and not kept.exists()


@recipe("webdav")
@pytest.mark.one_mpm
def test_webdav_with_cadaver(paste, tmp_path):
    host, server = paste(writable=("/var/lib/dav", "/srv/files"), before=LAX, after=EXECUTABLE)
    (tmp_path / "notes.txt").write_text("notes of mark")

    def cadaver(person: str, *commands: str) -> str:
        netrc = tmp_path / ".netrc"
        netrc.write_text(f"machine localhost\nlogin {address_of(person)}\npassword {token_of(person)}\n")
        netrc.chmod(0o600)
        return run("cadaver", host.url("/files/"), home=tmp_path, said="\n".join([*commands, "quit", ""]))

    said = cadaver("mark", "mkcol talks", "put notes.txt talks/first.txt", "lock talks/first.txt", "unlock talks/first.txt",
                   "move talks/first.txt talks/second.txt", "ls talks")
    assert "second.txt" in said and "failed" not in said
    assert (server.root / "srv/files/talks/second.txt").read_text() == "notes of mark"
    assert "second.txt" in cadaver("carla", "ls talks")
    assert "403" in cadaver("carla", "put notes.txt") and "403" in cadaver("oscar", "ls")
    assert [path.name for path in (server.root / "srv/files").iterdir()] == ["talks"]


# -- Subversion

@recipe("subversion")
def test_subversion(paste, new_browser, tmp_path):
    def create(server) -> None:
        (server.root / "srv/svn").mkdir(parents=True)
        run("svnadmin", "create", str(server.root / "srv/svn/project"), home=tmp_path)

    host, server = paste(prepare=create, writable=("/srv/svn",))
    url = host.url("/svn/project")
    copy = tmp_path / "copy"

    def svn(person: str | None, *words: str, fails: bool = False, token: str | None = None) -> str:
        who = ["--username", address_of(person), "--password", token or token_of(person)] if person else []
        return run("svn", *words, "--non-interactive", "--no-auth-cache", *who, home=tmp_path, fails=fails)

    svn("mark", "checkout", url, str(copy))
    (copy / "plan.txt").write_text("the plan")
    svn("mark", "add", str(copy / "plan.txt"))
    svn("mark", "commit", "-m", "A plan", str(copy))
    assert run("svnlook", "author", str(server.root / "srv/svn/project"), home=tmp_path) == "mark_miller\n"
    assert svn("carla", "cat", url + "/plan.txt") == "the plan" and "mark_miller" in svn("carla", "log", url)
    (copy / "plan.txt").write_text("another plan")
    svn("carla", "commit", "-m", "No", str(copy), fails=True)
    for person, token in ((None, None), ("oscar", None), ("mark", "ATATT-guess")):
        assert "the plan" not in svn(person, "cat", url + "/plan.txt", fails=True, token=token)
        svn(person, "checkout", url, str(tmp_path / "stolen"), fails=True, token=token)
    svn("mark", "commit", "-m", "Yes", str(copy))
    assert svn("mark", "cat", url + "/plan.txt") == "another plan"
    assert "plan.txt" in new_browser().sign_in(url + "/", "carla").text
    assert new_browser().get(url + "/", SCRIPT).status == 401


# -- Git

@recipe("git")
def test_git(paste, tmp_path):
    def create(server) -> None:
        (server.root / "srv/git").mkdir(parents=True)
        run("git", "init", "--quiet", "--bare", str(server.root / "srv/git/project.git"), home=tmp_path)

    host, server = paste(prepare=create, writable=("/srv/git",))

    def url(person: str | None, token: str | None = None) -> str:
        who = f"{quote(address_of(person), safe='')}:{token or token_of(person)}@" if person else ""
        return f"http://{who}localhost:{host.port}/git/project.git"

    def git(*words: str, fails: bool = False, cwd: Path = tmp_path) -> str:
        return run("git", *words, home=tmp_path, fails=fails, cwd=cwd)

    mine = tmp_path / "mine"
    git("clone", "--quiet", url("mark"), str(mine))
    (mine / "plan.txt").write_text("the plan")
    git("add", "plan.txt", cwd=mine)
    git("commit", "--quiet", "-m", "A plan", cwd=mine)
    git("push", "--quiet", "origin", "HEAD:main", cwd=mine)
    git("clone", "--quiet", "-b", "main", url("carla"), str(tmp_path / "read"))
    assert (tmp_path / "read/plan.txt").read_text() == "the plan"
    before = git("ls-remote", url("mark"))
    (mine / "plan.txt").write_text("another plan")
    git("commit", "--quiet", "-am", "Another plan", cwd=mine)
    for person, token in ((None, None), ("carla", None), ("oscar", None), ("mark", "ATATT-guess")):
        git("push", url(person, token), "HEAD:main", fails=True, cwd=mine)
        if person != "carla":
            git("clone", url(person, token), str(tmp_path / "stolen"), fails=True)
    assert git("ls-remote", url("mark")) == before
    git("push", "--quiet", "origin", "HEAD:main", cwd=mine)
    assert git("ls-remote", url("mark")) != before
    # Without asking first, as no client of git's does it.
    for person, status in ((None, "401"), ("carla", "403"), ("oscar", "403")):
        said = run("curl", "-sS", "-o", "got", "-w", "%{http_code}", "-X", "POST", "-H",
                   "Content-Type: application/x-git-receive-pack-request", "-d", "0000", url(person) + "/git-receive-pack", home=tmp_path)
        assert said == status
