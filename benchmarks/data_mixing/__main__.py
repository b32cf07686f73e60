"""``python -m allocgym.benchmarks.data_mixing --suite NAME``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from allocgym.envs.core.errors import AllocgymError

SUITES = {
    "simulator": "every agent on every scenario (100 seeds: about 25 min on two cores)",
    "fidelity": "published figures, RegMix, and held-out real runs (about 2 min)",
    "speed": "steps per second, one core (about 2 min)",
    "real": "paired real training runs (10 seeds: about 70 min on two cores)",
}


def run(arguments: list[str]) -> int:
    """Parse, run one suite, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m allocgym.benchmarks.data_mixing",
        description="; ".join(f"{k}: {v}" for k, v in SUITES.items()),
    )
    parser.add_argument("--suite", choices=sorted(SUITES), required=True)
    parser.add_argument("--seeds", type=int, help="paired seeds (default: as stated)")
    parser.add_argument("--agents", help="comma-separated names or agent files")
    parser.add_argument("--cases", help="real: names of cases to run, separated by semicolons")
    parser.add_argument("--quick", action="store_true", help="under five minutes, underpowered")
    parser.add_argument("--out", type=Path, help="folder for the JSON and for cached cells")
    parser.add_argument("--check", action="store_true", help="exit 1 where a must is missed")
    options = parser.parse_args(arguments)
    agents = options.agents.split(",") if options.agents else None
    quick, out, check = options.quick, options.out, options.check
    if options.suite == "simulator":
        from allocgym.benchmarks.data_mixing import simulator

        return simulator.suite(options.seeds or (30 if quick else 100), quick, agents, out, check)
    if options.suite == "fidelity":
        from allocgym.benchmarks.data_mixing import fidelity

        return fidelity.suite(quick, out, check)
    if options.suite == "speed":
        from allocgym.benchmarks.data_mixing import speed

        return speed.suite(quick, out, check)
    from allocgym.benchmarks.data_mixing import real

    cases = options.cases.split(";") if options.cases else None
    return real.suite(options.seeds or (2 if quick else 10), quick, agents, out, check, cases)


def main() -> None:
    """Run from the shell; a user's mistake is one sentence."""
    try:
        raise SystemExit(run(sys.argv[1:]))
    except (AllocgymError, ImportError) as error:
        print(f"allocgym: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
