"""A parametric heuristic: few numbers, tuned by CMA-ES in the simulator, hard to beat."""

from __future__ import annotations

import numpy as np

from allocgym.agents.core.parametric import LinearScore
from allocgym.agents.data_mixing.heuristics import MixingAgent
from allocgym.envs.data_mixing.observation import ROW_FEATURES


class IndexMixer(LinearScore, MixingAgent):
    """``share_j ~ exp(weights . terms_j)``; the terms are those of the observation."""

    kind = "index"
    parameters = (
        "log weight",
        "log prior",
        "is source",
        "log loss / start",
        "log loss slope",
        "slack to lowest",
        "progress x source",
        "learning rate x source",
    )
    start = (1.0, *[0.0] * 7)

    def terms(self) -> np.ndarray:
        """See `LinearScore.terms`."""
        observation = self.problem.encode(self.memory)
        rows = observation["claimants"].astype(float)
        context = observation["context"].astype(float)
        column = {name: rows[..., i] for i, name in enumerate(ROW_FEATURES)}
        source = column["is source"]
        terms = (
            column["log weight x K"],
            column["log prior x K"],
            source,
            column["log loss / start"],
            column["log loss slope, 1 period"],
            column["log loss / own lowest"],
            context[:, :1] * source,
            context[:, 2:3] * source,
        )
        return np.stack(terms, -1)

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        score = np.where(self.outcome.instance.present, self.score(), -np.inf)
        p = np.exp(score - score.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))
