"""A scenario of one's own: three steep new domains beside one old one, and a hidden horizon."""

import gymnasium as gym

from allocgym.simulators.data_mixing.scenario import MixingScenario

MINE = MixingScenario(
    "many-targets", "continual", domains=(4, 4), objective="mean", hidden=True, steps=(300.0, 800.0)
)

if __name__ == "__main__":
    env = gym.make("allocgym:allocgym/DataMixing-v0", scenario=MINE)
    print(env.reset(seed=0)[0]["context"])
