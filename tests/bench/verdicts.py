"""What the benchmark's figures must be, and whether they are: rows for the terminal and the manual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator

Figures = dict[str, Any]
STATES = {"living": "all living", "expired": "all expired"}


BUSY = "The machine had other things to do: times and rates are rough, counts of instructions are not."


def is_busy(figures: Figures) -> bool:
    """Whether more than a quarter of the processors was taken before the benchmark began."""
    return figures["machine"]["load_before"] > figures["machine"]["processors"] / 4


@dataclass
class Row:
    """One figure. limit is the text of what it must be, "" when nothing is asked; good says
    whether it is, None when it was not measured or nothing is asked."""

    group: str
    title: str
    value: str
    limit: str = ""
    good: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "good", False: "MISSED", None: ""}[self.good]


def _at_most(value: float, limit: float | None) -> bool | None:
    return None if limit is None else value <= limit


def _at_least(value: float, limit: float | None) -> bool | None:
    return None if limit is None else value >= limit


def _skipped(group: str, item: Figures) -> Row:
    return Row(group, item["title"], "not measured: " + item["skipped"])


# -- instructions

def instructions(figures: Figures) -> Iterator[Row]:
    group = "instructions of a request"
    part = figures["instructions"]
    if "skipped" in part:
        yield _skipped(group, {"title": "all of them", **part})
        return
    for kind in part["kinds"]:
        if "skipped" in kind:
            yield _skipped(group, kind)
        elif kind["ratio"] is None:
            yield Row(group, kind["title"], f"{kind['instructions']:,.0f}")
        else:
            limit = f"<= {kind['limit']:.2f} x" if kind["limit"] else ""
            yield Row(group, kind["title"], f"{kind['instructions']:,.0f} = {kind['ratio']:.2f} x", limit,
                      _at_most(kind["ratio"], kind["limit"]))


# -- requests

REQUEST_GROUPS = {"pages": "requests per second", "worker": "requests per second, mpm_worker",
                  "prefork": "requests per second, mpm_prefork", "http2": "requests per second, HTTP/2",
                  "live_sessions": "requests by live sessions", "cluster": "requests in a cluster",
                  "other_modules": "other modules"}


def requests(figures: Figures) -> Iterator[Row]:
    for name, series in figures["requests"].items():
        if not (group := REQUEST_GROUPS.get(name)):
            continue
        for item in series:
            if "skipped" in item:
                yield _skipped(group, item)
            elif "ratio" not in item:
                yield Row(group, item["title"], f"{item['per_second']:,.0f}/s")
            else:
                limit = f">= {item['limit']:.2f} x" if item.get("limit") else ""
                yield Row(group, item["title"], f"{item['per_second']:,.0f}/s = {item['ratio']:.2f} x "
                          f"(cpu {item['cpu_ratio']:.2f} x)", limit,
                          _at_least(item["ratio"], item.get("limit")))


def _latency_row(group: str, item: Figures) -> Row:
    ratios = [f" = {item[name]:.2f} x" if name in item else "" for name in ("p50_ratio", "p99_ratio")]
    limit = item["limit"]
    return Row(group, item["title"], f"p50 {item['p50_us']:,.0f} us{ratios[0]}, p99 {item['p99_us']:,.0f} us{ratios[1]}",
               f"p50 <= {limit:.2f} x" if limit else "", _at_most(item.get("p50_ratio", 0), limit))


def _latencies(figures: Figures, name: str, title: str) -> Iterator[Row]:
    for item in figures["requests"].get(name, []):
        if "skipped" in item:
            yield _skipped(title, item)
        else:
            yield _latency_row(f"{title}, {_in_the_mean(figures, name)} requests a second", item)


def _in_the_mean(figures: Figures, name: str) -> str:
    rates = [item["per_second"] for item in figures["requests"][name]]
    return f"{sum(rates) / len(rates):,.0f}"


def fixed_load(figures: Figures) -> Iterator[Row]:
    yield from _latencies(figures, "fixed_load", "latency")


def outage(figures: Figures) -> Iterator[Row]:
    yield from _latencies(figures, "outage", "latency while Bitbucket hangs")


def sign_ins(figures: Figures) -> Iterator[Row]:
    group = "sign-ins"
    items = {item["name"]: item for item in figures["requests"].get("sign_ins", [])}
    for item in items.values():
        if "skipped" in item:
            yield _skipped(group, item)
        else:
            refused = f", {item['refused']} refused" if item["refused"] else ""
            yield Row(group, f"{item['title']}, {item['at_once']} at once" if item["at_once"] > 1 else item["title"],
                      f"{item['per_second']:,.1f}/s, p50 {item['p50_ms']:,.0f} ms, p99 {item['p99_ms']:,.0f} ms, "
                      f"cpu {item['cpu_us'] / 1000:.2f} ms{refused}")
    yield from _sign_ins_compared(group, items)


def _sign_ins_compared(group: str, items: dict[str, Figures]) -> Iterator[Row]:
    if "ours_one" in items:
        ours, one = items["ours_100"], items["ours_one"]
        ratio = one["p50_ms"] / (2 * one["delay_ms"])
        yield Row(group, "one sign-in, against two answers of Bitbucket", f"{ratio:.2f} x", "<= 1.20 x", ratio <= 1.2)
        bound = ours["at_once"] * 1000 / (2 * ours["delay_ms"])
        yield Row(group, f"{ours['at_once']} at once, against what two answers each allow",
                  f"{ours['per_second'] / bound:.2f} x of {bound:,.0f}/s", ">= 0.83 x",
                  ours["per_second"] / bound >= 0.83)
        yield Row(group, "answers at once: how busy browsers and Bitbucket are themselves",
                  f"{items['ours_0']['busy']:.0%}")
    if "ours_one" in items and "openidc_one" in items:
        for name, title in (("0", "answers at once"), ("100", "answers after 100 ms")):
            ratio = items["ours_" + name]["per_second"] / items["openidc_" + name]["per_second"]
            yield Row(group, f"against mod_auth_openidc, {title}", f"{ratio:.2f} x", ">= 5.00 x", ratio >= 5)
        ratio = items["openidc_0"]["cpu_us"] / items["ours_0"]["cpu_us"]
        yield Row(group, "what mod_auth_openidc computes for one, answers at once", f"{ratio:.2f} x of this module's")


# -- the store

def _store(figures: Figures, measure: str) -> list[Figures]:
    return [item for item in figures["store"] if item["measure"] == measure]


def lookups(figures: Figures) -> Iterator[Row]:
    group, limit = "a lookup among live sessions", 1.10
    counted = figures["lookup_instructions"]
    timed = sorted(_store(figures, "lookup"), key=lambda item: item["sessions"])
    if isinstance(counted, dict):
        yield _skipped(group, {"title": "instructions", **counted})
        counted = []
    for name, title in (("get", "the store alone"), ("find", "cookie to account")):
        for item in counted:
            ratio, last = item[name] / counted[0][name], item is counted[-1]
            yield Row(group, f"{title}, {item['sessions']:,}: instructions", f"{item[name]:,.0f} = {ratio:.3f} x",
                      f"<= {limit:.2f} x" if last else "", _at_most(ratio, limit) if last else None)
        for item in timed:
            ratio, last = item[name + "_ratio"], item is timed[-1]
            yield Row(group, f"{title}, {item['sessions']:,}: time", f"{item[name + '_ns']:,.0f} ns = {ratio:.2f} x",
                      f"<= {limit:.2f} x" if last else "", _at_most(ratio, limit) if last else None)
    for item in timed:
        yield Row(group, f"one read of as much memory, {item['sessions']:,}: time",
                  f"{item['read_ns']:,.0f} ns; the store alone takes {item['get_ns'] / item['read_ns']:.1f} of them")


def lookups_apart(figures: Figures) -> Iterator[Row]:
    group = "a lookup with other work before it"
    for name, title in (("hashed", "the cookie is hashed"), ("known", "the cookie is remembered"),
                        ("expected", "and the record was asked for ahead")):
        for item in sorted(_store(figures, "apart"), key=lambda item: item["sessions"]):
            rest = (f", p99 {item['expected_p99_ns']:,.0f} ns, mean {item['expected_mean_ns']:,.0f} ns"
                    if name == "expected" else "")
            yield Row(group, f"{title}, {item['sessions']:,}", f"{item[name + '_ns']:,.0f} ns" + rest)


def processes(figures: Figures) -> Iterator[Row]:
    for item in _store(figures, "processes"):
        group = f"several processes, {item['sessions']:,} live sessions"
        yield Row(group, "lookups of one process", f"{item['one_per_second']:,.0f}/s")
        yield Row(group, "lookups of two at once", f"{item['two_per_second']:,.0f}/s = {item['ratio']:.2f} x",
                  ">= 1.60 x", item["ratio"] >= 1.6)
        yield Row(group, "the same by computing time", f"{item['cpu_ratio']:.2f} x")
        yield Row(group, f"cost of a lookup while another writes ({item['writes_per_second']:,.0f}/s)",
                  f"{item['cost_while_writing']:.2f} x")


def full(figures: Figures) -> Iterator[Row]:
    for item in _store(figures, "full"):
        is_put = item["operation"] == "put"
        yield Row(f"a full store of {item['segment_bytes'] // 2**20} MiB", f"{item['operation']}, {STATES[item['state']]}",
                  f"p50 {item['p50_us']:.1f} us, p99 {item['p99_us']:.1f} us, max {item['max_us'] / 1000:.2f} ms",
                  "p99 <= 1 ms" if is_put else "", item["p99_us"] <= 1000 if is_put else None)


def memory(figures: Figures) -> Iterator[Row]:
    group = "memory of a session"
    limits = {"short": 1024, "long": 7 * 1024}
    for item in _store(figures, "memory"):
        limit = limits.get(item["kind"])
        tokens = f"two tokens of {item['token_length']:,} characters, {item['workspaces']:,} workspace" \
                 + ("s" if item["workspaces"] > 1 else "")
        yield Row(group, tokens, f"{item['whole_per_session']:,.0f} bytes ({item['used_per_session']:,.0f} in blocks)",
                  f"<= {limit // 1024} KiB" if limit else "", _at_most(item["whole_per_session"], limit))


def start_and_recovery(figures: Figures) -> Iterator[Row]:
    for item in _store(figures, "import"):
        yield Row("start and recovery", f"taking over {item['sessions']:,} sessions at a start",
                  f"{item['seconds']:.2f} s")
    for item in _store(figures, "recovery"):
        yield Row("start and recovery",
                  f"wait after {item['recoveries']} writers were killed at work, {item['sessions']:,} live sessions",
                  f"p50 {item['p50_ms']:.3f} ms, max {item['max_ms']:.3f} ms"
                  + ("" if item["whole"] else "; THE STORE IS NOT WHOLE"),
                  "< 1 s", item["max_ms"] < 1000 and item["whole"])


REQUEST_PARTS: tuple[Callable[[Figures], Iterator[Row]], ...] = (requests, fixed_load, outage, sign_ins)
PARTS: tuple[Callable[[Figures], Iterator[Row]], ...] = (
    instructions, *REQUEST_PARTS, lookups, lookups_apart, processes, full, memory, start_and_recovery)


def rows(figures: Figures) -> list[Row]:
    return [row for part in PARTS for row in part(figures)]


def rows_of_requests(figures: Figures) -> list[Row]:
    return [row for part in REQUEST_PARTS for row in part(figures)]


def print_table(found: list[Row]) -> None:
    titles = max(len(row.title) for row in found)
    values = max((len(row.value) for row in found if not row.value.startswith("not measured")), default=0)
    group = ""
    for row in found:
        if row.group != group:
            print(f"\n{row.group}")
            group = row.group
        print(f"  {row.title:{titles}}  {row.value:{values}}  {row.limit:12} {row.verdict}".rstrip())
