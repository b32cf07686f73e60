"""The one loader of public data: files named by a path inside the folder ``ALLOCGYM_DATA``."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from allocgym.envs.core.errors import AllocgymError

VARIABLE = "ALLOCGYM_DATA"


class DataMissingError(AllocgymError):
    """A public data file is not on this machine."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A public data set: where it came from and what it is used for."""

    path: str
    what: str
    source: str
    licence: str
    used_for: str


CATALOGUE = (
    Dataset(
        "mixing/regmix",
        "512 + 256 mixtures of 17 Pile domains, 13 losses, at 1M and 60M parameters",
        "github.com/sail-sg/regmix @ b004d3a",
        "MIT",
        "data-mixing: fits and fidelity",
    ),
    Dataset(
        "mixing/olmix",
        "127 mixtures of 24 topics and 512 of 64 domains, 110 metrics in bits per byte, 30M parameters",
        "github.com/allenai/olmix @ 7f7ac1c",
        "Apache-2.0",
        "data-mixing: suite tables",
    ),
    Dataset(
        "mixing/doremi",
        "Pile domain weights",
        "github.com/sangmichaelxie/doremi @ 7cde52d",
        "MIT",
        "data-mixing: natural shares",
    ),
    Dataset(
        "mixing/corpora",
        "GSM8K problems; tiny-shakespeare",
        "github.com/openai/grade-school-math @ 3101c7d; github.com/karpathy/char-rnn @ 6f9487a",
        "MIT; public domain",
        "data-mixing: domains of real runs that informed no fit",
    ),
    Dataset(
        "rollouts",
        "group accuracies of 900 prompts over a GRPO run; 18 GRPO runs of a tiny model",
        "github.com/ypwang61/One-Shot-RLVR @ 21ed529; own work",
        "Apache-2.0; -",
        "rollout-budget: item fits, update law, replay and fidelity",
    ),
    Dataset(
        "prb/tractor",
        "packet traces of phones, KPI rows of an LTE base station each 250 ms",
        "github.com/genesys-neu/TRACTOR @ f2f052c",
        "MIT",
        "prb-slicing: traffic, channel fits, scenarios tractor and traces, fidelity",
    ),
    Dataset(
        "prb/tables",
        "transport block sizes and MCS of 36.213, CQI tables of 38.214",
        "3GPP 36.213 and 38.214; github.com/jjalcaraz-upct/network-slicing @ 65a3891",
        "facts; MIT",
        "prb-slicing: rate='tbs', fidelity",
    ),
    Dataset(
        "memory/iopddl",
        "contest instances B, G, V: strategies per node under a memory limit",
        "github.com/google/iopddl @ 8a61c43",
        "Apache-2.0",
        "strategy-selection: scenario iopddl, suite strategy",
    ),
    Dataset(
        "memory/minimalloc",
        "11 packing inputs: lifetimes and sizes of buffers",
        "github.com/google/minimalloc @ 9f5cf81",
        "Apache-2.0",
        "packing: scenario minimalloc, suite packing",
    ),
    Dataset(
        "population/mpl_loss_curves",
        "18 loss curves of language models, 9 schedules each of 2 sizes",
        "github.com/thu-yao-01-luo/MultiPowerLaw @ 8da9f19",
        "MIT",
        "population: fits of the Multi-Power Law",
    ),
    Dataset(
        "population/taskset_dpl",
        "8 tasks x 1,000 configurations x 51 points",
        "github.com/releaunifreiburg/DPL @ de44b74 (Google TaskSet)",
        "Apache-2.0",
        "curve-budget: scenario taskset (training)",
    ),
    Dataset(
        "population/algoperf",
        "2,595 training runs with targets, 183,569 evaluations",
        "github.com/mlcommons/submissions_algorithms @ 12c8e4e",
        "Apache-2.0",
        "curve-budget: scenario algoperf (testing only)",
    ),
)


def available(relative: str) -> bool:
    """Whether a file or folder of the public data is on this machine."""
    root = os.environ.get(VARIABLE)
    return bool(root) and (Path(str(root)) / relative).exists()


def path(relative: str) -> Path:
    """Return the path of a file of the public data.

    Raises:
        DataMissingError: the variable is not set, or the file is not there.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise DataMissingError(
            f"{relative}: public data is needed; set {VARIABLE} to the folder that holds it"
        )
    full = Path(root) / relative
    if not full.exists():
        raise DataMissingError(f"{relative}: not in {VARIABLE}={root}")
    return full


def checksum(dataset: Dataset) -> str:
    """SHA-256 over the names and contents of a data set's files, shortened."""
    root = path(dataset.path)
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        # A name ends at the zero byte and contents have one length: no two folders look alike.
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
