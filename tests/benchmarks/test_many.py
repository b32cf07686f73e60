"""Many controllers in one process keep nothing of the past (full size: `make test-many`)."""

import gc
import tracemalloc

from allocgym.benchmarks.core.many import run

BYTES = 30  # of a line of the journal: where it ends, its checksum, and room for growth


def test_controllers_side_by_side_keep_two_numbers_a_line(tmp_path):
    controllers, periods = 20, 120
    taken = {}
    tracemalloc.start()
    try:
        for done in run(tmp_path, controllers, periods):
            if done in (periods // 2, periods - 1):
                gc.collect()
                taken[done] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    early, late = taken.values()
    lines = controllers * 2 * (periods // 2)
    assert late - early < BYTES * lines + 100_000
    assert len(list(tmp_path.glob("*/journal.jsonl"))) == controllers
