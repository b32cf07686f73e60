"""The command line: ``allocgym list | train | evaluate | deploy | resume | ...``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run a command; a user's mistake is one sentence on stderr and exit code 2."""
    from allocgym.benchmarks.commands import app
    from allocgym.envs.core.errors import AllocgymError

    # Agents may be named as module:Class; those beside the user are found, but shadow nothing.
    sys.path.append(os.getcwd())
    try:
        app()
    except (AllocgymError, ImportError) as error:
        print(f"allocgym: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
