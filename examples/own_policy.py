"""A policy of one's own: name it ``own_policy:MostWanted`` wherever an agent can be named.

Run beside this file: ``allocgym evaluate data-mixing --agents own_policy:MostWanted``.
"""

import numpy as np

from allocgym.agents.data_mixing.heuristics import MixingAgent


class MostWanted(MixingAgent):
    """Shares in proportion to weight x loss."""

    name = "most-wanted"

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        wanted = self.outcome.instance.weight * self.outcome.losses
        return wanted / wanted.sum(1, keepdims=True)
