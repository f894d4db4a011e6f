"""What is written for httpd to read: modules, virtual hosts, places, content."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Sequence

MPMS = ("event", "worker", "prefork")
MODULES = """authn_core authz_core authz_host authz_user alias mime dir env setenvif headers expires rewrite
    include proxy proxy_http proxy_connect cache cache_socache socache_shmcb ssl info""".split()
THREADS_PER_CHILD = 25
_numbers = itertools.count(1)
_ports_given: set[int] = set()


# -- where things are

def apxs(name: str) -> str:
    """One of apxs' values; "" without apxs. apxs also reads the system's configuration
    and complains about it, which is of no interest here."""
    try:
        return subprocess.run(["apxs", "-q", name], capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


@lru_cache(maxsize=None)
def httpd_program() -> Path:
    """Errors: RuntimeError."""
    for path in (Path(apxs("SBINDIR") or "/usr/sbin") / (apxs("PROGNAME") or "apache2"), Path("/usr/sbin/apache2")):
        if path.exists():
            return path
    raise RuntimeError("httpd is not installed: neither apxs nor /usr/sbin/apache2 is there")


@lru_cache(maxsize=None)
def modules_directory() -> Path:
    return Path(apxs("LIBEXECDIR") or "/usr/lib/apache2/modules")


def module_under_test() -> Path:
    """Errors: RuntimeError."""
    build = os.environ.get("ABB_BUILD_DIR")
    if not build:
        raise RuntimeError("set ABB_BUILD_DIR to the directory the module was built in")
    module = Path(build).resolve() / ".libs" / "mod_auth_bitbucket.so"
    if not module.exists():
        raise RuntimeError(f"{module} is not there: run make in ABB_BUILD_DIR")
    return module


PORTS = range(10_240, 32_000)
PORT_SHARES = 8


def free_port() -> int:
    """Below the range from which clients' connections take theirs, so that none takes it
    before httpd does. Each of several workers has a share of its own, as what one has found
    free is not yet taken; by chance, so that runs side by side seldom meet."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    ports = PORTS
    if worker:
        size = len(PORTS) // PORT_SHARES
        first = PORTS.start + int(worker.removeprefix("gw")) % PORT_SHARES * size
        ports = range(first, first + size)
    while True:
        port = random.choice(ports)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _ports_given:
            _ports_given.add(port)
            return port


# -- places and virtual hosts

def place(name: str, *lines: str, auth: bool = True) -> str:
    """A location with the test content in it, signed in with Bitbucket unless auth is False."""
    if auth:
        lines = ("AuthType Bitbucket", 'AuthName "Test site"', *lines)
    body = "\n".join("    " + line for line in lines)
    return f'Alias "/{name}" "${{CONTENT}}"\n<Location "/{name}">\n{body}\n</Location>'


@dataclass
class VirtualHost:
    """A site with a port and an OAuth client of its own. callback is the value of the
    directive; None leaves the directive out."""

    directives: str = ""
    name: str = "localhost"
    tls: bool = False
    callback: str | None = None
    configured: bool = True
    port: int = field(default_factory=free_port)
    client_id: str = field(default_factory=lambda: f"test-consumer-{next(_numbers)}")
    client_secret: str = ""
    scopes: Sequence[str] = ("account", "email", "repository")

    def __post_init__(self) -> None:
        self.client_secret = self.client_secret or "client-secret-of-" + self.client_id

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.name}:{self.port}"

    @property
    def callback_url(self) -> str:
        """As registered at Bitbucket. The directive may say the site's own address after it."""
        callback = (self.callback or "/bitbucket/callback").split()[0]
        return callback if "://" in callback else self.origin + callback

    def url(self, path: str) -> str:
        return self.origin + path

    def endpoint(self, name: str) -> str:
        """URL of login, logout, userinfo or callback."""
        return self.callback_url.rpartition("/")[0] + "/" + name

    def text(self) -> str:
        lines = [f"Listen 127.0.0.1:{self.port}", f"<VirtualHost 127.0.0.1:{self.port}>", f"ServerName {self.name}",
                 "LimitRequestLine 200000", "LimitRequestFieldSize 65536"]
        if self.tls:
            lines += ["SSLEngine on", "SSLCertificateFile conf/site.crt", "SSLCertificateKeyFile conf/site.key"]
        if self.configured:
            lines += [f"AuthBitbucketClientID {self.client_id}", f'AuthBitbucketClientSecret "{self.client_secret}"']
        if self.callback:
            lines.append(f"AuthBitbucketCallbackURL {self.callback}")
        return "\n".join([*lines, self.directives, "</VirtualHost>"])


# -- the whole file

def _mpm_settings(mpm: str) -> str:
    if mpm == "prefork":
        return "StartServers 4\nMinSpareServers 2\nMaxSpareServers 20\nServerLimit 40\nMaxRequestWorkers 40"
    return (f"StartServers 2\nMinSpareThreads 25\nMaxSpareThreads 75\nThreadsPerChild {THREADS_PER_CHILD}\nServerLimit 4\n"
            f"MaxRequestWorkers {4 * THREADS_PER_CHILD}")


def load_modules(names: Sequence[str]) -> str:
    directory = modules_directory()
    return "\n".join(f"LoadModule {name}_module {directory}/mod_{name}.so" for name in names
                     if (directory / f"mod_{name}.so").exists())


def base_text(root: Path, mpm: str, user: str | None = None) -> str:
    """Everything up to the first directive of the module."""
    cgi = "cgi" if mpm == "prefork" else "cgid"
    as_user = f"User {user}\nGroup {user}" if user else ""
    return f"""ServerRoot "{root}"
DefaultRuntimeDir "{root}/run"
PidFile run/httpd.pid
ServerName localhost
ServerTokens Prod
{load_modules([f"mpm_{mpm}", cgi, *MODULES])}
LoadModule auth_bitbucket_module "{module_under_test()}"
{as_user}
{_mpm_settings(mpm)}
<IfModule mod_cgid.c>
    ScriptSock cgid
</IfModule>
Define ROOT "{root}"
Define CONTENT "{root}/content"
ErrorLog logs/error.log
LogLevel info auth_bitbucket:trace8
LogFormat "%P %v %m %U %>s" brief
CustomLog logs/access.log brief
TypesConfig conf/mime.types
AddHandler cgi-script .cgi
AddType text/html .shtml
AddOutputFilter INCLUDES .shtml
DirectoryIndex index.html
DocumentRoot "{root}/content"
Timeout 20
KeepAliveTimeout 5
GracefulShutdownTimeout 5
TraceEnable off
<Directory "{root}/content">
    Options +ExecCGI +Includes +FollowSymLinks
    AllowOverride AuthConfig FileInfo Indexes Limit
    Require all granted
</Directory>
"""


def bitbucket_text(authorize_url: str, token_url: str, api_url: str) -> str:
    return (f"AuthBitbucketAuthorizeURL {authorize_url}\nAuthBitbucketTokenURL {token_url}\n"
            f"AuthBitbucketAPIURL {api_url}\n")


# -- content

# Prints its environment, each entry ended by a NUL, so that no value can hide another.
ENVIRONMENT_CGI = """#!/bin/sh
[ "$REQUEST_METHOD" != POST ] || cat > /dev/null
printf 'Content-Type: text/plain\\r\\n'
[ -z "$WANTED_CACHE_CONTROL" ] || printf 'Cache-Control: %s\\r\\n' "$WANTED_CACHE_CONTROL"
printf '\\r\\n'
env -0
"""
ERROR_CGI = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
printf 'error=%s id=%s status=%s' "$BITBUCKET_ERROR" "$BITBUCKET_ERROR_ID" "$REDIRECT_STATUS"
"""
PAGES = {
    "index.html": "<!DOCTYPE html><html lang=en><title>Index</title><p>The index page of the test content.</html>\n",
    "page.html": "<!DOCTYPE html><html lang=en><meta name=viewport content='width=device-width'><title>Page</title>"
                 "<link rel=icon href='data:,'><h1>The test page</h1>"
                 "<p><a href='/bitbucket/logout'>Sign out</a></html>\n",
    "include.shtml": "user=<!--#echo var=\"REMOTE_USER\" --> included=<!--#include virtual=\"page.html\" -->\n",
    "outside.shtml": "included=<!--#include virtual=\"/any/page.html\" -->\n",
    "data.txt": "plain data\n",
}


def write_content(root: Path) -> None:
    """The directories of a server root and the pages every test may ask for."""
    for name in ("conf", "logs", "run", "content", "sanitizer"):
        (root / name).mkdir()
    (root / "sanitizer").chmod(0o777)
    (root / "conf" / "mime.types").write_text("text/html html\ntext/plain txt\n")
    for name, text in PAGES.items():
        (root / "content" / name).write_text(text)
    for name, text in (("env.cgi", ENVIRONMENT_CGI), ("error.cgi", ERROR_CGI)):
        (root / "content" / name).write_text(text)
        (root / "content" / name).chmod(0o755)
