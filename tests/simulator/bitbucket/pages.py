"""The few HTML pages a person sees. No script, no foreign resource; everything
that comes from outside goes through escape()."""

from __future__ import annotations

import html
from typing import Any, Mapping, Sequence
from urllib.parse import quote

from .exchange import HTML, Answer

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
                               "frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_STYLE = """
:root { color-scheme: light dark; --ground: #f4f5f7; --card: #fff; --ink: #172b4d; --soft: #5e6c84;
  --line: #dfe1e6; --blue: #0052cc; --blue-ink: #fff; --hover: #ebf2ff; --bad: #bf2600; }
@media (prefers-color-scheme: dark) { :root { --ground: #101214; --card: #1d2125; --ink: #dee4ea;
  --soft: #9fadbc; --line: #38414a; --blue: #579dff; --blue-ink: #101214; --hover: #22314a; --bad: #fd9891; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.25rem 1rem 3rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 30rem; margin: 0 auto; }
.brand { display: flex; align-items: center; gap: .6rem; margin: 0 0 1.25rem; font-weight: 600; color: var(--soft); }
.brand span { width: 1.75rem; height: 1.75rem; border-radius: .4rem; background: var(--blue);
  clip-path: polygon(0 8%, 100% 8%, 84% 100%, 16% 100%); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1.25rem; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .5rem; }
p { margin: .5rem 0; } .soft { color: var(--soft); font-size: .9rem; }
a { color: var(--blue); } code { font-size: .9em; }
form { margin: 0; } ul { padding-left: 1.25rem; margin: .75rem 0; } li { margin: .25rem 0; }
button { font: inherit; color: inherit; cursor: pointer; border-radius: .5rem; border: 1px solid var(--line);
  background: transparent; min-height: 2.75rem; padding: .55rem .9rem; }
button:hover { background: var(--hover); } button:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
button.go { background: var(--blue); border-color: var(--blue); color: var(--blue-ink); font-weight: 600; }
button.go:hover { filter: brightness(1.1); }
.choices { display: grid; gap: .5rem; margin-top: 1rem; }
.choice { display: flex; gap: .8rem; align-items: center; width: 100%; text-align: left; }
.choice b, .choice small, .who b, .who small { display: block; line-height: 1.35; } .choice small, .who small { color: var(--soft); }
.choice img, .who img { width: 2.25rem; height: 2.25rem; border-radius: 50%; flex: none; }
.who { display: flex; gap: .8rem; align-items: center; margin: .75rem 0; }
.row { display: flex; gap: .6rem; margin-top: 1.25rem; } .row button { flex: 1; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } td { border-top: 1px solid var(--line);
  padding: .4rem .5rem .4rem 0; vertical-align: top; } footer { margin-top: 1.25rem; }
"""

SCOPE_TEXTS = {
    "account": "Read your account information",
    "account:write": "Read and modify your account information",
    "email": "Read your account’s primary email address",
    "repository": "Read your repositories",
    "repository:write": "Read and modify your repositories",
    "repository:admin": "Administer your repositories",
    "repository:delete": "Delete your repositories",
    "project": "Read your workspace’s project settings and its repositories",
    "project:admin": "Read and modify settings for projects in your workspace",
    "pullrequest": "Read your repositories and their pull requests",
    "pullrequest:write": "Read and modify your repositories and their pull requests",
    "team": "Read your team membership information",
    "webhook": "Read and modify your repositories’ webhooks",
}


def escape(value: Any) -> str:
    """For text and quoted attributes; a lone surrogate becomes a question mark."""
    return html.escape(str(value).encode("utf-8", "replace").decode())


def _page(title: str, content: str, status: int = 200) -> Answer:
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>{_STYLE}</style></head>
<body><main><p class="brand"><span></span>Bitbucket simulator</p>
<div class="card">{content}</div>
<footer class="soft">A stand-in for tests and demonstrations. No passwords here, no real accounts.</footer>
</main></body></html>
"""
    return Answer(status, text.encode(), HTML, _HEADERS)


def message(title: str, text: str, status: int) -> Answer:
    return _page(title, f"<h1>{escape(title)}</h1><p>{escape(text)}</p>", status)


def _person(account: Mapping[str, Any], second_line: str) -> str:
    picture = f"/account/{quote(str(account.get('uuid', '')), safe='', errors='replace')}/avatar/"
    return (f'<img src="{escape(picture)}" alt=""><span><b>{escape(account.get("display_name", "Nobody"))}</b>'
            f"<small>{escape(second_line)}</small></span>")


def sign_in(accounts: Mapping[str, Mapping[str, Any]], after: str, consumer: str | None) -> Answer:
    """Pick who you are. after: the path to go on to."""
    buttons = "".join(
        f'<button class="choice" name="account" value="{escape(name)}">{_person(account, account.get("about", ""))}</button>'
        for name, account in accounts.items())
    goal = f"Pick an account to continue to <b>{escape(consumer)}</b>." if consumer else "Pick an account."
    return _page("Sign in", f"""<h1>Sign in</h1><p class="soft">{goal}</p>
<form method="post" action="/account/signin"><input type="hidden" name="next" value="{escape(after)}">
<div class="choices">{buttons}</div></form>""")


def consent(account: Mapping[str, Any], consumer: str, scopes: Sequence[str], action: str,
            key: str, callback: str) -> Answer:
    lines = "".join(f"<li>{escape(SCOPE_TEXTS.get(scope, scope))} <code class=soft>{escape(scope)}</code></li>" for scope in scopes)
    return _page("Confirm access", f"""<h1>Confirm access to your account</h1>
<div class="who">{_person(account, "signed in at the simulator")}</div>
<p><b>{escape(consumer)}</b> asks to:</p><ul>{lines}</ul>
<p class="soft">You go back to {escape(callback)}.</p>
<form method="post" action="{escape(action)}"><input type="hidden" name="csrf" value="{escape(key)}">
<div class="row"><button class="go" name="decision" value="grant">Grant access</button>
<button name="decision" value="cancel">Cancel</button></div></form>
<p class="soft" style="margin-top:1.25rem"><a href="/account/signin?next={escape(quote(action, safe=''))}">Sign in as somebody else</a></p>""")


def sign_out(account: Mapping[str, Any] | None) -> Answer:
    if account is None:
        return _page("Signed out", '<h1>You are signed out</h1><p><a href="/account/signin">Sign in</a></p>')
    return _page("Sign out", f"""<h1>Sign out of the simulator?</h1>
<div class="who">{_person(account, "signed in at the simulator")}</div>
<form method="post" action="/account/signout"><div class="row"><button class="go">Sign out</button></div></form>
<p class="soft" style="margin-top:1.25rem"><a href="/account/signin">Sign in as somebody else</a></p>""")


def home(account: Mapping[str, Any] | None, consumers: Sequence[tuple[str, Sequence[str]]]) -> Answer:
    if account is None:
        who = '<p>Nobody is signed in here. <a href="/account/signin">Sign in</a></p>'
    else:
        who = (f'<div class="who">{_person(account, "signed in at the simulator")}</div>'
               '<p><a href="/account/signin">Sign in as somebody else</a> · <a href="/account/signout">Sign out</a></p>')
    rows = "".join(f"<tr><td><code>{escape(key)}</code><br>{escape(', '.join(urls) or 'no callback')}</td></tr>" for key, urls in consumers)
    return _page("Bitbucket simulator", f"""<h1>Bitbucket Cloud, simulated</h1>
<p>This server answers like Bitbucket Cloud’s OAuth 2.0 and the part of its API that tells who somebody is and
what they may see. It serves tests and demonstrations; all people in it are made up.</p>{who}
<p class="soft">Consumers registered here:</p><table>{rows}</table>
<p class="soft">Authorize at <code>/site/oauth2/authorize</code>, tokens at <code>/site/oauth2/access_token</code>,
API at <code>/2.0</code>, <a href="/_control/">steering for tests</a> at <code>/_control/</code>.</p>""")


def avatar(account: Mapping[str, Any]) -> Answer:
    """A coloured disc with initials."""
    words = [word for word in str(account.get("display_name") or "?").split() if word[0].isalnum()] or ["?"]
    initials = escape("".join(word[0] for word in (words[:1] + words[1:][-1:])).upper())
    hue = sum(str(account.get("uuid", "")).encode("utf-8", "replace")) * 47 % 360
    text = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
            f'<circle cx="32" cy="32" r="32" fill="hsl({hue},45%,42%)"/><text x="32" y="33" fill="#fff" '
            f'font-family="system-ui,sans-serif" font-size="25" font-weight="600" text-anchor="middle" '
            f'dominant-baseline="central">{initials}</text></svg>')
    return Answer(200, text.encode(), "image/svg+xml", {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
