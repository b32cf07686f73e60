"""Published laws of data mixing, as plain functions: anchors that simulators are checked against."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.optimize import brentq

from allocgym.envs.core.errors import AllocgymError

CMR_TABLE_5 = {
    "460M": (0.22524761, 0.26944345, -0.48139982),
    "940M": (0.7520627, 0.13720245, -1.06581937),
    "1.6B": (-2.36384831, -0.15125569, 1.59223649),
    "3.1B": (-2.5368197, -0.42071423, 0.84375368),
}
"""alpha4, s4, beta3 of the critical mixture ratio (CMR, table 5, finance domain)."""

D_CPT_USAGE_1 = {
    "domain share": (0.90, 0.91, 0.92, 0.924, 0.93, 0.94, 1.0),
    "general loss": (2.9052, 2.9193, 2.9376, 2.9445, 2.9644, 2.9848, 3.4667),
    "general loss before": 2.8602,
}
"""D-CPT Law, usage 1 (chemistry, 1.8B, 10B tokens)."""


def critical_mixture_ratio(size: str, period: float) -> float:
    """Largest share of the new domain that costs general ability at most epsilon.

    CMR scaling law: ``R(T) = alpha4 T**s4 + beta3``, ``T`` in units of 0.2B tokens.
    """
    alpha, power, beta = CMR_TABLE_5[size]
    return alpha * period**power + beta


def largest_domain_share(
    shares: np.ndarray, general: np.ndarray, before: float, tolerance: float = 1.03
) -> float:
    """Largest domain share whose general loss stays within ``tolerance`` of what it was (D-CPT).

    Raises:
        AllocgymError: no share does.
    """
    allowed = np.asarray(general) <= tolerance * before
    if not allowed.any():
        raise AllocgymError("tolerance: no share keeps the general loss within it")
    return float(np.asarray(shares)[allowed].max())


@dataclasses.dataclass(frozen=True)
class LeakyMemory:
    """Memory of a general domain under replay: ``dm/dn = h - lam m``.

    ``dL = K (m**-beta - m0**-beta) + rw exp(-n / tau) (1 - h)``, n in 1e9 tokens, loss in nats.
    Parameters fitted by us to five public continual pre-training runs (Pythia-70M on Pile and
    Python, github.com/yegcjs/mixinglaws); one size, one seed, one pair of domains.
    """

    gain: float = 0.2563
    beta: float = 0.1936
    lam: float = 0.6583
    start: float = 0.4211
    rewarm: float = 0.0202
    tau: float = 8.0091

    def memory(self, replay: float, tokens: float) -> float:
        """Memory after ``tokens`` at constant replay: the solution of the linear equation."""
        level = replay / self.lam
        return level + (self.start - level) * float(np.exp(-self.lam * tokens))

    def loss_change(self, replay: float, tokens: float) -> float:
        """Change of the general loss after ``tokens`` at constant replay, nats."""
        known = self.memory(replay, tokens) ** -self.beta - self.start**-self.beta
        return float(self.gain * known + self.rewarm * np.exp(-tokens / self.tau) * (1 - replay))

    def critical_replay(self, tokens: float) -> float:
        """Smallest constant replay that leaves the general loss no higher after ``tokens``."""
        return float(brentq(lambda h: self.loss_change(h, tokens), 1e-3, 1 - 1e-9))


def repetition_effective(unique: float, seen: float, r_star: float = 15.387756) -> float:
    """Effective data of ``seen`` tokens of which ``unique`` are distinct (Muennighoff 2023, eq. 5).

    ``D' = U + U R* (1 - exp(-R / R*))`` with ``R = D / U - 1`` repetitions.
    """
    if seen <= unique:
        return seen
    return unique * (1 + r_star * (1 - float(np.exp(-(seen / unique - 1) / r_star))))
