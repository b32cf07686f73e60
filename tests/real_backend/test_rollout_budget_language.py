"""A Hugging Face model behind the rollout budget: a tiny random one, made here, no download."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("reasoning_gym")

from allocgym.agents.core import catalogue  # noqa: E402
from allocgym.agents.core.agent import rollout  # noqa: E402
from allocgym.envs.core.builder import make_backend, make_problem  # noqa: E402
from allocgym.envs.core.errors import AllocgymError  # noqa: E402

SMALL = {"each": 4, "held": 2, "samples": 1, "answer": 4, "horizon": 2, "evaluate_every": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A two-layer model over bytes, saved as any Hugging Face model is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    path = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)} | {"<end>": 256, "<pad>": 257}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    shape = transformers.GPT2Config(
        vocab_size=258,
        n_positions=1024,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=256,
        eos_token_id=256,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    transformers.GPT2LMHeadModel(shape).save_pretrained(path)
    return str(path)


def build(folder, **changes):
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    arguments = {**SMALL, "rows": 8, "budget": 32, "model": folder, **changes}
    return problem, make_backend(problem, "real", scenario="reasoning", device="cpu", **arguments)


def test_a_pretrained_model_is_trained_and_restored(folder, tmp_path):
    problem, backend = build(folder)
    outcomes = rollout(catalogue.make("uniform", problem), backend, np.array([3]))
    assert outcomes[-1].all_rollouts[0] == 64 and outcomes[-1].all_tokens[0] >= 64
    assert 0 <= outcomes[-1].heldout[0] <= 1
    backend.checkpoint(tmp_path / "state.ckpt")
    _, other = build(folder)
    other.restore(tmp_path / "state.ckpt")
    for name, value in backend.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


def test_sampling_is_a_function_of_its_seed(folder):
    _, backend = build(folder)
    world = backend.world
    counts = torch.tensor([2, 0, 3])
    one, other = (
        world.model.sample(world.prompts[:3], counts, torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(one[0], other[0]) and one[0].shape == (5, 4)
    assert torch.equal((one[0] >= 0).sum(1), one[1])


def test_log_probabilities_do_not_see_the_padding(folder):
    """The same prompt and answer, padded more on the left, are as likely as before."""
    _, backend = build(folder)
    model = backend.world.model
    prompt = backend.world.prompts[:1]
    wider = torch.cat([torch.full((1, 5), model.pad), prompt], 1)
    answer = torch.tensor([[40, 50, model.end, -1]])
    with torch.no_grad():
        np.testing.assert_allclose(
            model.log_probs(prompt, answer), model.log_probs(wider, answer), rtol=1e-5
        )


def test_verifiers_are_those_of_the_tasks(folder):
    _, backend = build(folder)
    world = backend.world
    rows = []
    for item in world._items[0]:
        codes = world.tokenizer(item.entry["answer"])["input_ids"][:60]
        rows.append([*codes, world.model.end] + [-1] * (60 - len(codes)))
    rewards = world.verify(torch.tensor(rows), np.arange(len(rows)))
    assert rewards.mean() > 0.95
    assert not world.verify(torch.full((3, 4), 35), np.arange(3)).any()


def test_gain_rl_ranks_prompts_by_their_angles(folder):
    problem, backend = build(folder)
    agent = catalogue.make("gain-rl", problem)
    outcomes = rollout(agent, backend, np.array([0]))
    assert outcomes[-1].all_rollouts[0] == 64
    assert len(agent.rule._rank) == len(backend.world.cell)


def test_the_regime_needs_a_model(folder):
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    with pytest.raises(AllocgymError, match="model: the folder or hub name"):
        make_backend(problem, "real", scenario="reasoning", device="cpu")
    with pytest.raises(AllocgymError, match="cannot be loaded"):
        build(folder + "-not-there")
