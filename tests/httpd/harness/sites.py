"""The standard site: one server with the virtual hosts that most tests use."""

from __future__ import annotations

from dataclasses import dataclass

from .config import VirtualHost, place
from .server import Server
from .simulator import Simulator

ERROR_DOCUMENTS = """Alias "/errors" "${CONTENT}"
ErrorDocument 401 /errors/error.cgi
ErrorDocument 403 /errors/error.cgi
ErrorDocument 503 /errors/error.cgi"""

PLAIN = "\n".join([
    place("any", "Require valid-user"),
    place("team", "Require bitbucket-workspace acme"),
    place("owners", "Require bitbucket-workspace acme:owner"),
    place("globex", "Require bitbucket-workspace globex"),
    place("nobody", "Require user nobody-at-all"),
    place("preflight", "<RequireAny>", "Require method OPTIONS", "Require valid-user", "</RequireAny>"),
    place("by-uuid", "AuthBitbucketRemoteUser uuid", "Require valid-user"),
    place("by-account-id", "AuthBitbucketRemoteUser account_id", "Require valid-user"),
    place("by-email", "AuthBitbucketRemoteUser email", "Require valid-user"),
    place("by-nickname", "AuthBitbucketRemoteUser nickname", "Require valid-user"),
    place("by-username", "AuthBitbucketRemoteUser username", "Require valid-user"),
    place("open", auth=False),
    # The identity as mod_rewrite sees it by looking ahead.
    "RewriteEngine On",
    "RewriteCond %{LA-U:REMOTE_USER} (.+)",
    "RewriteRule ^/any/env\\.cgi$ - [E=SEEN_AHEAD:%1]",
])


@dataclass
class Site:
    """plain: http, several rules. quiet: http, rules that name no workspace. documents:
    http, with ErrorDocuments. secure: https. shared: https, cookie of a domain."""

    server: Server
    plain: VirtualHost
    quiet: VirtualHost
    documents: VirtualHost
    secure: VirtualHost
    shared: VirtualHost


def standard_site(simulator: Simulator, mpm: str) -> Site:
    plain = VirtualHost(PLAIN)
    quiet = VirtualHost(place("any", "Require valid-user"))
    documents = VirtualHost("\n".join([ERROR_DOCUMENTS, place("any", "Require valid-user"),
                                       place("team", "Require bitbucket-workspace acme")]))
    secure = VirtualHost(place("any", "Require valid-user"), tls=True)
    shared = VirtualHost("\n".join(["AuthBitbucketCookieDomain example.test", place("any", "Require valid-user")]),
                         name="wiki.example.test", tls=True)
    hosts = [plain, quiet, documents, secure, shared]
    return Site(Server(hosts, simulator, mpm, main="AuthBitbucketHTTPTimeout 2s 8s\n"), *hosts)
