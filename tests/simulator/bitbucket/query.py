"""Lists as the API serves them: filter (q), sort, pages, trimming (fields).

Source: rest/intro, "Filter and sort API objects", "Pagination", "Partial
responses". Everything is bounded: a query of 2,000 characters, 20 brackets deep.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any, Callable, Mapping
from urllib.parse import quote

from .exchange import Call

MAX_PAGELEN = 100
MAX_QUERY = 2000
MAX_DEPTH = 20
_RANKS = {"none": 0, "read": 1, "write": 2, "admin": 3}

Object = dict[str, Any]
Test = Callable[[Object], bool]


class BadQuery(Exception):
    """The client's parameters make no sense; the text goes into a 400."""


def page_of(call: Call, values: list[Object], names: Mapping[str, str], pagelen: int, bare: bool = False) -> Object:
    """One page of values after q= and sort=, with absolute links to the others.

    names: what may be filtered and sorted by -> path in the object.
    Errors: BadQuery.
    """
    text = call.parameter("q")
    if text is not None:
        test = parse_filter(text, names)
        values = [value for value in values if test(value)]
    values = sort_by(call.parameter("sort"), values, names)
    pagelen = _whole(call, "pagelen", pagelen, MAX_PAGELEN)
    page = _whole(call, "page", 1, 10**9)
    start = (page - 1) * pagelen
    if page > 1 and start >= len(values):
        raise BadQuery("Invalid page")
    answer: Object = {"values": values[start:start + pagelen]}
    if not bare:
        answer.update(pagelen=pagelen, size=len(values), page=page)
    if start + pagelen < len(values):
        answer["next"] = _page_url(call, page + 1)
    if page > 1 and not bare:
        answer["previous"] = _page_url(call, page - 1)
    return answer


def _whole(call: Call, name: str, default: int, limit: int) -> int:
    text = call.parameter(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= limit:
        raise BadQuery(f"Invalid {name}")
    return int(text)


def _page_url(call: Call, page: int) -> str:
    pairs = [(k, v) for k, v in call.query if k != "page"] + [("page", str(page))]
    path = "/" + "/".join(quote(part, safe="", errors="surrogateescape") for part in call.segments)
    return call.origin + path + "?" + "&".join(
        f"{quote(k, safe='', errors='surrogateescape')}={quote(v, safe='', errors='surrogateescape')}" for k, v in pairs)


def look_up(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def sort_by(order: str | None, values: list[Object], names: Mapping[str, str]) -> list[Object]:
    if not order:
        return values
    name = order.removeprefix("-")
    if name not in names:
        raise BadQuery(f"Invalid sort field: {name[:100]}")
    return sorted(values, key=lambda v: str(look_up(v, names[name])).casefold(), reverse=order[0] == "-")


# -- the filter language

_TOKEN = re.compile(r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<op>!=|!~|>=|<=|=|~|>|<)|(?P<mark>[(),])'
                    r'|(?P<number>-?\d{1,15}(?:\.\d{1,15})?(?![\w.]))|(?P<word>[A-Za-z_][\w.]*))', re.DOTALL)


def parse_filter(text: str, names: Mapping[str, str]) -> Test:
    """A test for what q= says. Errors: BadQuery."""
    if len(text) > MAX_QUERY:
        raise BadQuery("The query is too long")
    parser = _Parser(_tokens(text), names)
    test = parser.any_of(0)
    if parser.tokens:
        raise BadQuery(f"Unexpected {parser.tokens[0][1][:100]!r} in the query")
    return test


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise BadQuery(f"Cannot read the query at character {at}")
        tokens.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
        at = match.end()
    return tokens


class _Parser:
    """OR binds weakest, then AND, then one comparison or a bracket."""

    def __init__(self, tokens: list[tuple[str, str]], names: Mapping[str, str]) -> None:
        self.tokens = tokens
        self.names = names

    def any_of(self, depth: int) -> Test:
        tests = [self.all_of(depth)]
        while self.skip_word("OR"):
            tests.append(self.all_of(depth))
        return lambda value: any(test(value) for test in tests)

    def all_of(self, depth: int) -> Test:
        tests = [self.one(depth)]
        while self.skip_word("AND"):
            tests.append(self.one(depth))
        return lambda value: all(test(value) for test in tests)

    def one(self, depth: int) -> Test:
        if depth > MAX_DEPTH:
            raise BadQuery("The query is nested too deeply")
        kind, token = self.take("a field")
        if token == "(" and kind == "mark":
            test = self.any_of(depth + 1)
            self.expect(")")
            return test
        if kind != "word":
            raise BadQuery(f"A field was expected, not {token[:100]}")
        if token not in self.names:
            raise BadQuery(f"Invalid field: {token[:100]}")
        path = self.names[token]
        if self.skip_word("NOT"):
            if not self.skip_word("IN"):
                raise BadQuery("IN was expected after NOT")
            wanted = self.values()
            return lambda value: look_up(value, path) not in wanted
        if self.skip_word("IN"):
            wanted = self.values()
            return lambda value: look_up(value, path) in wanted
        kind, operator = self.take("an operator")
        if kind != "op":
            raise BadQuery(f"An operator was expected, not {operator[:100]}")
        wanted_value = self.value()
        return lambda value: _compare(look_up(value, path), operator, wanted_value)

    def values(self) -> list[Any]:
        self.expect("(")
        values = [self.value()]
        while self.tokens and self.tokens[0] == ("mark", ","):
            self.tokens.pop(0)
            values.append(self.value())
        self.expect(")")
        return values

    def value(self) -> Any:
        kind, token = self.take("a value")
        if kind == "text":
            return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
        if kind == "number":
            return json.loads(re.sub(r"^(-?)0+(?=\d)", r"\1", token))
        constants = {"true": True, "false": False, "null": None}
        if kind == "word" and token.lower() in constants:
            return constants[token.lower()]
        raise BadQuery(f"A value was expected, not {token[:100]}")

    def take(self, what: str) -> tuple[str, str]:
        if not self.tokens:
            raise BadQuery(f"The query ends where {what} was expected")
        return self.tokens.pop(0)

    def expect(self, mark: str) -> None:
        if self.take(mark) != ("mark", mark):
            raise BadQuery(f"{mark} was expected in the query")

    def skip_word(self, word: str) -> bool:
        if self.tokens and self.tokens[0][0] == "word" and self.tokens[0][1].upper() == word:
            self.tokens.pop(0)
            return True
        return False


def _compare(have: Any, operator: str, want: Any) -> bool:
    if operator == "=":
        return type(have) is type(want) and have == want
    if operator == "!=":
        return not (type(have) is type(want) and have == want)
    if operator in ("~", "!~"):
        found = isinstance(have, str) and isinstance(want, str) and want.casefold() in have.casefold()
        return found == (operator == "~")
    if have in _RANKS and want in _RANKS:
        have, want = _RANKS[have], _RANKS[want]
    if type(have) is not type(want) or not isinstance(have, (str, int, float)):
        return False
    return {">": have > want, "<": have < want, ">=": have >= want, "<=": have <= want}[operator]


# -- partial responses

def trim(answer: Any, fields: str | None) -> Any:
    """What is left of an answer after fields=: plain names select, -names remove,
    +names would add what is always there."""
    if not fields or not isinstance(answer, dict):
        return answer
    names = [name.strip() for name in fields.split(",")[:100]]
    chosen = [name.split(".") for name in names if name and name[0] not in "+-"]
    result = _select(answer, chosen) if chosen else copy.deepcopy(answer)
    for name in names:
        if name.startswith("-") and len(name) > 1:
            _remove(result, name[1:].split("."))
    return result


def _select(value: Any, paths: list[list[str]]) -> Any:
    if isinstance(value, list):
        return [_select(item, paths) for item in value]
    if not isinstance(value, dict) or any(not path or path == ["*"] for path in paths):
        return value
    result = {}
    for key, item in value.items():
        below = [path[1:] for path in paths if path[0] in (key, "*")]
        if below:
            result[key] = _select(item, below)
    return result


def _remove(value: Any, path: list[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _remove(item, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) == 1:
            del value[path[0]]
        else:
            _remove(value[path[0]], path[1:])
