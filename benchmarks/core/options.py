"""What a suite is asked for, and how ``allocgym bench`` reads it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from allocgym.benchmarks.commands.arguments import folder, names
from allocgym.benchmarks.core import engines
from allocgym.envs.core.cache import cache_folder
from allocgym.envs.core.registry import Suite, load


@dataclasses.dataclass(frozen=True)
class Options:
    """What a suite was asked for.

    Attributes:
        seeds: paired seeds to run.
        quick: under five minutes; the suite cuts what it must and says so.
        agents: names or agent files to compare, or None for the suite's own list.
        cases: names of scenarios or cases to run, or None for all of them.
        out: folder for the JSON and for cached cells, or None.
        check: exit 1 where a must is missed.
        stated: seeds the suite needs for its aims to be judged.
    """

    seeds: int
    quick: bool = False
    agents: list[str] | None = None
    cases: list[str] | None = None
    out: Path | None = None
    check: bool = False
    stated: int = 1

    @property
    def underpowered(self) -> bool:
        """Fewer seeds than stated: aims are printed, not judged."""
        return self.seeds < self.stated

    @property
    def cells(self) -> Path:
        """Folder of cached cells; without ``out`` one that all suites of this user share."""
        return (self.out or cache_folder()) / "cells"


def run(problem: str, suites: Mapping[str, Suite], arguments: list[str]) -> int:
    """Parse the arguments, run one suite, return its exit code.

    Args:
        problem: id, such as ``"data-mixing"``.
        suites: by name.
        arguments: of the command line, without the program's name.
    """
    parser = argparse.ArgumentParser(
        prog=f"allocgym bench {problem}",
        description="; ".join(f"{name}: {suite.about}" for name, suite in suites.items()),
    )
    parser.add_argument("--suite", choices=sorted(suites), required=True)
    parser.add_argument("--seeds", type=int, help="paired seeds (default: as the suite states)")
    parser.add_argument("--agents", help="comma-separated names or agent files")
    parser.add_argument("--cases", help="scenarios or cases to run, separated by semicolons")
    parser.add_argument("--quick", action="store_true", help="under five minutes, underpowered")
    parser.add_argument("--out", type=Path, help="folder for the JSON and for cached cells")
    parser.add_argument("--check", action="store_true", help="exit 1 where a must is missed")
    parser.add_argument("--engine", default="local", help="local or ray: where cells are run")
    parser.add_argument("--address", help="of a running Ray cluster (default: one on this machine)")
    given = parser.parse_args(arguments)
    if given.seeds is not None and given.seeds < 1:
        parser.error(f"--seeds: an integer >= 1 expected, given {given.seeds}")
    if given.out is not None:
        folder(given.out, "--out")
    suite = suites[given.suite]
    options = Options(
        seeds=given.seeds or (suite.quick_seeds if given.quick else suite.seeds),
        quick=given.quick,
        agents=names(given.agents) if given.agents else None,
        cases=[c.strip() for c in given.cases.split(";")] if given.cases else None,
        out=given.out,
        check=given.check,
        stated=suite.seeds,
    )
    with engines.using(given.engine, given.address):
        return int(load(suite.target)(options))
