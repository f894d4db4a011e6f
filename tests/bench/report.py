#!/usr/bin/python3
"""Make the tables and plots of docs/performance.md from the benchmark's figures.

The page is written by people; between the lines `<!-- begin NAME -->` and `<!-- end NAME -->`
stands what this program writes. Plots go to images/ beside the page.

usage: report.py BENCH.JSON [--page FILE] [--any]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Callable, Sequence

import verdicts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
Figures = dict[str, Any]


# -- tables

def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def verdict_table(part: Callable[[Figures], Any], figures: Figures) -> str:
    """One table for each group of rows."""
    texts, groups = [], dict[str, list[verdicts.Row]]()
    for row in part(figures):
        groups.setdefault(row.group, []).append(row)
    for group, rows in groups.items():
        head = (group[0].upper() + group[1:], "Measured", "Asked", "")
        texts.append(table(head, [(row.title, row.value, row.limit, row.verdict) for row in rows]))
    if (drawn := DRAWN.get(part.__name__)) and PLOTS[drawn[0]](figures):
        texts.insert(0, f"![{drawn[1]}](images/{drawn[0]}.svg)")
    return "\n\n".join(texts) or "Not measured."


def machine(figures: Figures) -> str:
    facts = figures["machine"]
    rows = [("Processor", f"{facts['processor']}, {facts['processors']} used"),
            ("Memory", f"{facts['memory_bytes'] / 2**30:.0f} GiB"),
            ("System", f"{facts['system']}, Linux {facts['kernel']}"),
            ("httpd", facts["httpd"] + ", mpm_event"),
            ("valgrind", facts["valgrind"].removeprefix("valgrind-")),
            ("Measured", f"{facts['date']}, commit {facts['commit']}; load of others before: {facts['load_before']}")]
    text = table(("Machine", ""), [(name, escape(str(value))) for name, value in rows])
    if verdicts.is_busy(figures):
        text += "\n\n**" + verdicts.BUSY + "**"
    return text


def sizing(figures: Figures) -> str:
    """What to write for how many sessions, rounded up to sizes that people write."""
    kinds = {item["kind"]: item["whole_per_session"] for item in figures["store"] if item["measure"] == "memory"}
    if not kinds:
        return "Not measured."
    rows = []
    for sessions in (1_000, 10_000, 100_000, 1_000_000):
        rows.append([f"{sessions:,}", *(_written_size(kinds[kind] * sessions) for kind in ("short", "long"))])
    default = [f"{32 * 2**20 // kinds[kind]:,.0f}" for kind in ("short", "long")]
    head = ("Live sessions", "tokens of 43 characters", "tokens of 2,600 characters")
    return table(head, rows) + f"\n\nThe default of 32M holds {default[0]} sessions of the first kind or {default[1]} of the second."


def _written_size(size: float) -> str:
    """A tenth more than needed, in whole steps."""
    megabytes = max(size * 1.1 / 2**20, 1)
    step = 10 ** max(math.floor(math.log10(megabytes)) - 1, 0)
    megabytes = math.ceil(megabytes / step) * step
    return f"`shm({megabytes}M)`"


# -- plots: readable on light and dark, because they bring their own ground

STYLE = """<style>
.ground{fill:#ffffff} text{fill:#1f2328;font:13px system-ui,sans-serif} .faint{fill:#59636e} .grid{stroke:#d1d9e0}
.a{fill:#0969da;stroke:#0969da} .b{fill:#8c959f;stroke:#8c959f} .limit{stroke:#bc4c00}
@media (prefers-color-scheme:dark){.ground{fill:#151b23} text{fill:#f0f6fc} .faint{fill:#9198a1} .grid{stroke:#3d444d}
.a{fill:#4493f8;stroke:#4493f8} .b{fill:#656c76;stroke:#656c76} .limit{stroke:#f0883e}}
text.title{font-weight:600} .line{fill:none;stroke-width:2} .limit{stroke-width:2;stroke-dasharray:5 3} .end{text-anchor:end}
.middle{text-anchor:middle}
</style>"""


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{escape(title)}">\n{STYLE}\n<rect class="ground" width="{width}" height="{height}" '
            f'rx="8"/>\n<text class="title" x="16" y="26">{escape(title)}</text>\n{body}\n</svg>\n')


@dataclass
class Bar:
    label: str
    value: float
    text: str
    is_ours: bool = True
    limit: float | None = None


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero on, with a dashed line where a limit is."""
    width, left, right, step, top = 840, 390, 110, 30, 44
    most = max(max(row.value, row.limit or 0) for row in rows) or 1
    scale = (width - left - right) / most
    parts = []
    for number, row in enumerate(rows):
        y = top + number * step
        parts.append(f'<text class="end" x="{left - 10}" y="{y + 15}">{escape(row.label)}</text>'
                     f'<rect class="{"a" if row.is_ours else "b"}" x="{left}" y="{y + 2}" '
                     f'width="{max(row.value * scale, 1):.1f}" height="18" rx="2"/>')
        end = max(row.value, row.limit or 0) * scale
        parts.append(f'<text x="{left + end + 8:.1f}" y="{y + 15}">{escape(row.text)}</text>')
        if row.limit:
            x = left + row.limit * scale
            parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 1}" y2="{y + 23}"/>')
    height = top + len(rows) * step + 12
    if any(row.limit for row in rows):
        parts.append(f'<line class="limit" x1="{left}" x2="{left + 30}" y1="{height - 4}" y2="{height - 4}"/>'
                     f'<text class="faint" x="{left + 38}" y="{height}">what is asked</text>')
        height += 16
    return svg(width, height, title, parts)


@dataclass
class Line:
    label: str
    style: str
    points: Sequence[tuple[float, float]]


def lines(title: str, unit: str, series: Sequence[Line]) -> str:
    """Lines over a logarithmic number of sessions, from zero on."""
    width, height, left, right, top, bottom = 800, 340, 80, 150, 50, 50
    xs = sorted({x for line in series for x, _ in line.points})
    most = max(y for line in series for _, y in line.points) * 1.1
    low, high = math.log10(xs[0]), math.log10(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(x) - low) / (high - low) if high > low else 0.5
        return left + share * (width - left - right), height - bottom - y / most * (height - top - bottom)

    parts = []
    step = 10 ** math.floor(math.log10(most)) / (1 if most / 10 ** math.floor(math.log10(most)) >= 4 else 4)
    for number in range(int(most / step) + 1):
        _, y = place(xs[0], number * step)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text class="faint end" x="{left - 8}" y="{y + 4:.1f}">{number * step:,.0f}</text>')
    for x in xs:
        parts.append(f'<text class="faint middle" x="{place(x, 0)[0]:.1f}" y="{height - bottom + 20}">{x:,.0f}</text>')
    parts.append(f'<text class="faint middle" x="{(left + width - right) / 2}" y="{height - 10}">live sessions</text>'
                 f'<text class="faint" x="{left - 60}" y="42">{escape(unit)}</text>')
    for line in series:
        spots = [place(x, y) for x, y in line.points]
        parts.append(f'<polyline class="line {line.style}" style="fill:none" points="'
                     + " ".join(f"{x:.1f},{y:.1f}" for x, y in spots) + '"/>')
        parts += [f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in spots]
        parts.append(f'<text x="{spots[-1][0] + 10:.1f}" y="{spots[-1][1] + 4:.1f}">{escape(line.label)}</text>')
    return svg(width, height, title, parts)


# -- which plots

def instruction_plot(figures: Figures) -> str | None:
    kinds = {kind["name"]: kind for kind in figures["instructions"].get("kinds", [])}
    wanted = ("session", "session_crowd", "session_browser", "anonymous", "anonymous_browser", "redirect")
    rows = [Bar("open page", 1, "1")]
    rows[0].is_ours = False
    for kind in (kinds[name] for name in wanted if name in kinds):
        rows.append(Bar(kind["title"], kind["ratio"], f"{kind['ratio']:.2f}", kind["name"] != "redirect", kind["limit"]))
    return bars("Instructions of a request, open page = 1", rows) if len(rows) > 1 else None


def request_plot(figures: Figures) -> str | None:
    rows = [Bar("open page", 1, "1", False)]
    for name in ("pages", "live_sessions", "cluster", "other_modules"):
        for item in figures["requests"].get(name, []):
            if item.get("ratio") and str(item["base"]).startswith("open") and not item["name"].startswith(("redirect", "anonymous")):
                is_ours = name != "other_modules" and item["name"] != "ruled"
                rows.append(Bar(item["title"], item["ratio"], f"{item['ratio']:.2f}", is_ours, item["limit"]))
    return bars("Requests per second, open page of the same httpd = 1", rows) if len(rows) > 1 else None


def lookup_plot(figures: Figures) -> str | None:
    timed = sorted((item for item in figures["store"] if item["measure"] == "lookup"), key=lambda item: item["sessions"])
    if not timed:
        return None
    return lines("A lookup among live sessions, in random order", "nanoseconds", [
        Line("cookie to account", "a", [(item["sessions"], item["find_ns"]) for item in timed]),
        Line("the store alone", "b", [(item["sessions"], item["get_ns"]) for item in timed])])


def memory_plot(figures: Figures) -> str | None:
    limits = {"short": 1024, "long": 7168}
    rows = [Bar(f"two tokens of {item['token_length']:,} characters", item["whole_per_session"],
                f"{item['whole_per_session']:,.0f} bytes", limit=limits[item["kind"]])
            for item in figures["store"] if item["measure"] == "memory" and item["kind"] in limits]
    return bars("Memory of a session, everything included", rows) if rows else None


def latency_plot(figures: Figures) -> str | None:
    measured = [item for item in figures["requests"].get("fixed_load", []) if "skipped" not in item]
    rows = [Bar(f"{item['title']}, {name}", item[name + "_us"], f"{item[name + '_us']:,.0f} us",
                not item["name"].startswith("open"))
            for item in measured for name in ("p50", "p99")]
    return bars("Latency under a load that stays the same", rows) if rows else None


def sign_in_plot(figures: Figures) -> str | None:
    rows = [Bar(item["title"], item["per_second"], f"{item['per_second']:,.0f}/s", item["name"].startswith("ours"))
            for item in figures["requests"].get("sign_ins", []) if "skipped" not in item and item["at_once"] > 1]
    return bars("Sign-ins per second", rows) if rows else None


PLOTS: dict[str, Callable[[Figures], str | None]] = {"instructions": instruction_plot, "requests": request_plot, "latency": latency_plot, "sign_ins": sign_in_plot,
         "lookups": lookup_plot, "memory": memory_plot}
# Plots that stand above a table, where there are figures for one.
DRAWN = {"fixed_load": ("latency", "Latency"), "sign_ins": ("sign_ins", "Sign-ins per second")}
TABLES: dict[str, Callable[[Figures], str]] = {
    "machine": machine, "sizing": sizing,
    **{part.__name__: lambda figures, part=part: verdict_table(part, figures) for part in verdicts.PARTS}}


# -- the page

def fill(page: str, figures: Figures) -> str:
    """The page with its tables. Errors: KeyError for a name that nothing is made for."""
    def replace(found: re.Match[str]) -> str:
        return f"<!-- begin {found[1]} -->\n{TABLES[found[1]](figures)}\n<!-- end {found[1]} -->"
    return re.sub(r"<!-- begin ([a-z_]+) -->\n.*?<!-- end \1 -->", replace, page, flags=re.DOTALL)


def write(page: Path, template: Path, figures: Figures) -> list[Path]:
    """Write the page and its plots. A plot without figures is left as it is."""
    page.write_text(fill(template.read_text(), figures))
    written = [page]
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    for name, plot in PLOTS.items():
        if text := plot(figures):
            (images / f"{name}.svg").write_text(text)
            written.append(images / f"{name}.svg")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("figures", help="bench.json as `make bench` leaves it in the build directory")
    parser.add_argument("--page", default=str(PAGE), help="the page to write; its text comes from docs/performance.md")
    parser.add_argument("--any", action="store_true", help="also from a run that was no full one")
    options = parser.parse_args()
    figures = json.loads(Path(options.figures).read_text())
    if figures["extent"] != "full" and not options.any:
        print(f"{options.figures} is of a {figures['extent']} run; its figures are no measurement (--any takes them)",
              file=sys.stderr)
        return 1
    for file in write(Path(options.page), PAGE, figures):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
