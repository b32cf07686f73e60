import warnings

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")
sb3 = pytest.importorskip("stable_baselines3")

from allocgym.agents.core.sb3 import SB3VecEnv, SetActorCritic, train_ppo  # noqa: E402
from allocgym.envs.core.errors import AllocgymError  # noqa: E402


def environment(num_envs=4, **arguments):
    return gym.make_vec("allocgym:allocgym/DataMixing-v0", num_envs=num_envs, **arguments)


def learn(policy, env, **arguments):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model = sb3.PPO(
            policy, env, n_steps=10, batch_size=20, n_epochs=1, seed=0, device="cpu", **arguments
        )
        before = [p.detach().clone() for p in model.policy.parameters()]
        model.learn(80)
    assert model.num_timesteps == 80
    moved = [not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True)]
    assert any(moved)
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    assert len(model.ep_info_buffer) == 8
    return model


def test_ppo_learns_with_its_own_policy():
    learn("MlpPolicy", SB3VecEnv(environment(), flatten=True))


def test_ppo_learns_with_the_set_policy():
    model = learn(SetActorCritic, SB3VecEnv(environment()), policy_kwargs={"hidden": 8})
    observation, _ = environment(2).reset(seed=0)
    action, _ = model.predict(observation, deterministic=True)
    assert action.shape == (2, 8)
    assert not action[observation["present"] == 0].any()


def test_train_ppo_gives_a_policy_and_its_provenance():
    policy, record = train_ppo(environment(), 80, hidden=8)
    assert record["steps"] == 80 and not policy.training


@pytest.mark.parametrize("flatten", [True, False])
def test_the_last_observation_of_an_episode_is_kept(flatten):
    one, other = SB3VecEnv(environment(3), flatten), environment(3)
    one.seed(4)
    first = one.reset()
    other.reset(seed=4)
    rng = np.random.default_rng(0)
    returns = np.zeros(3)
    for _ in range(10):
        action = rng.uniform(-1, 1, (3, 8)).astype(np.float32)
        observation, reward, done, infos = one.step(action)
        _, expected, _, _, info = other.step(action)
        np.testing.assert_allclose(reward, expected, rtol=1e-6)
        returns += expected
    assert done.all()
    for i in range(3):
        last = infos[i]["terminal_observation"]
        final = {k: v[i] for k, v in info["final_obs"].items()}
        if flatten:
            parts = [np.ravel(final[k]) for k in sorted(final)]
            np.testing.assert_array_equal(last, np.concatenate(parts).astype(np.float32))
            assert observation.shape == first.shape == (3, 8 * 14 + 9 + 8)
        else:
            for key, value in final.items():
                np.testing.assert_array_equal(last[key], value)
        assert infos[i]["episode"]["l"] == 10
        assert infos[i]["episode"]["r"] == pytest.approx(returns[i])
        assert infos[i]["TimeLimit.truncated"] is False
    _, _, done, infos = one.step(action)
    assert not done.any() and infos == [{}, {}, {}]


def test_next_step_environments_are_refused():
    with pytest.raises(AllocgymError, match="same_step"):
        SB3VecEnv(environment(autoreset_mode="next_step"))


def test_padded_dimensions_count_for_nothing():
    env = environment(2)
    torch.manual_seed(0)
    policy = SetActorCritic(
        env.single_observation_space, env.single_action_space, lambda _: 1e-3, hidden=8
    )
    observation, _ = env.reset(seed=0)
    tensors = {k: torch.as_tensor(np.ascontiguousarray(v)) for k, v in observation.items()}
    action = torch.randn(2, 8)
    value, log_prob, entropy = policy.evaluate_actions(tensors, action)
    present = tensors["present"].bool()
    other = torch.where(present, action, action + 7.0)
    again = policy.evaluate_actions(tensors, other)
    torch.testing.assert_close(again[1], log_prob)
    moved = torch.where(present, action + 0.1, action)
    assert (policy.evaluate_actions(tensors, moved)[1] != log_prob).all()
    each = policy.log_std + 0.5 * np.log(2 * np.pi * np.e)
    torch.testing.assert_close(entropy, each * present.sum(1))
    wide = {
        "claimants": torch.nn.functional.pad(tensors["claimants"], (0, 0, 0, 4), value=2.0),
        "context": tensors["context"],
        "present": torch.nn.functional.pad(tensors["present"], (0, 4)),
    }
    padded = policy.evaluate_actions(wide, torch.nn.functional.pad(action, (0, 4), value=5.0))
    torch.testing.assert_close(padded, (value, log_prob, entropy))
    drawn, _, _ = policy.forward(tensors)
    assert not drawn[~present].any()
