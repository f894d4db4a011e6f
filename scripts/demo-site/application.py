#!/usr/bin/python3
"""The demo's proxied application: a web server of its own that shows which request reached it."""

import argparse
import html
import http.server
import os
import pathlib
import re

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Proxied application &middot; mod_auth_bitbucket demo</title>
<link rel="stylesheet" href="/style.css">
<link rel="icon" href="data:,">
</head>
<body>
<header>
<strong><a href="/">mod_auth_bitbucket demo</a></strong>
<nav><a href="/">All pages</a> <a href="/bitbucket/userinfo">Who am I</a> <a href="/bitbucket/logout">Sign out</a></nav>
</header>
<main>
<h1>Proxied application</h1>
<div class="who"><p>Hello, <strong>{user}</strong>. The headers <code>X-Bitbucket-&hellip;</code> told me who you are.</p></div>
<p>This application runs in a process of its own and is reached through httpd. It received:</p>
<div class="table"><table class="values"><tbody>
{rows}
</tbody></table></div>
</main>
</body>
</html>
"""


def without_values(cookies):
    """The names of cookies: what they hold is nobody's business on a page."""
    return re.sub(r"=[^;]*", lambda value: f"= ({len(value.group()) - 1} characters)", cookies)


def row(name, value):
    return f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"


class Application(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        rows = [row("Request", self.requestline)]
        for name, value in self.headers.items():
            rows.append(row(name, without_values(value) if name.lower() == "cookie" else value))
        user = html.escape(self.headers.get("X-Bitbucket-Username") or "nobody")
        page = PAGE.replace("{rows}", "\n".join(rows)).replace("{user}", user)
        body = page.encode("utf-8", "surrogateescape")
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """httpd has the access log."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-file", type=pathlib.Path, required=True, help="where to write the port")
    arguments = parser.parse_args()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        written = arguments.port_file.with_suffix(".new")
        written.write_text(f"{server.server_port}\n")
        os.replace(written, arguments.port_file)
        server.serve_forever()


if __name__ == "__main__":
    main()
