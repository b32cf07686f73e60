"""Renders the tables of ``docs/`` from the JSON in ``benchmarks/results/``.

``python -m allocgym.benchmarks.core.tables`` from a checkout rewrites what stands between
``<!-- results:PROBLEM/SUITE -->`` and ``<!-- end -->`` on every page.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

MARK = re.compile(r"(<!-- results:([\w/]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(str(c) for c in cells) + " |\n"


def figures(data: dict[str, Any], package: str) -> str:
    """The figures of a suite as a Markdown table, with how and when they were measured."""
    text = _row(["figure", "measured", "asked", "kind", "", "detail"]) + _row(["---"] * 6)
    words = {True: "met", False: "**missed**", None: "-"}
    for f in data["figures"]:
        word = words[f["met"]]
        if f["kind"] == "aim" and f["met"] is False:
            word = "not reached"
        value = "n/a" if f["value"] is None else f["value"]
        text += _row([f["name"], value, f["target"], f["kind"], word, f["detail"]])
    power = " Underpowered: fewer seeds than the suite states." if data["underpowered"] else ""
    given = data["argv"][2:] if data["argv"][:1] == ["bench"] else list(data["argv"])
    if "--out" in given:
        at = given.index("--out")
        del given[at : at + 2]
    problem = package.replace("_", "-")
    text += f"\n`allocgym bench {problem} {shlex.join(given)}`: {data['seconds']:.0f} s on "
    return text + f"{data['machine']['cores']} cores.{power}\n"


def objectives(data: dict[str, Any]) -> str:
    """Mean objective of every method in every scenario or case."""
    text = ""
    for name, result in data["results"].items():
        if not isinstance(result, dict) or "objective" not in result:
            continue
        means = {
            k: v if isinstance(v, float) else sum(v) / len(v)
            for k, v in result["objective"].items()
        }
        text += f"\n**{name}** (lower is better)\n\n"
        text += _row(["method", "objective", "learned minus it, 95 %"]) + _row(["---"] * 3)
        versus = result.get("learned (gradient) minus") or result.get("learned minus") or {}
        for method in sorted(means, key=lambda m: means[m]):
            d = versus.get(method)
            interval = f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]" if d else ""
            text += _row([method, f"{means[method]:.4f}", interval])
    return text


def tables(data: dict[str, Any]) -> str:
    """Tables a suite recorded as they were printed: ``{"table": {"columns": ..., "rows": ...}}``."""
    text = ""
    found = {"": data["results"], **data["results"]}
    for name, result in found.items():
        if not isinstance(result, dict) or "columns" not in result.get("table", {}):
            continue
        table = result["table"]
        text += f"\n**{name}**\n\n" if name else "\n"
        text += _row(table["columns"]) + _row(["---"] * len(table["columns"]))
        for row in table["rows"]:
            text += _row([f"{v:.4f}" if isinstance(v, float) else v for v in row])
    return text


def render(page: Path, results: Path) -> None:
    """Rewrite the marked parts of one page."""

    def fill(match: re.Match[str]) -> str:
        file = results / f"{match[2]}.json"
        if not file.exists():
            return f"{match[1]}Not measured yet.\n{match[3]}"
        data = json.loads(file.read_text())
        package = match[2].split("/")[0]
        return f"{match[1]}{figures(data, package)}{objectives(data)}{tables(data)}{match[3]}"

    page.write_text(MARK.sub(fill, page.read_text()))


def main() -> None:
    """Render every page of the checkout this runs in."""
    for page in sorted(Path("docs").glob("*.md")):
        render(page, Path("benchmarks/results"))


if __name__ == "__main__":
    main()
