"""The rules of the mapping game: placer, batched board and validator agree on random programs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.placer import Placer
from allocgym.envs.memory_mapping.plan import Plan, Residence, price, saved, validate
from allocgym.envs.memory_mapping.program import (
    Device,
    Op,
    Program,
    Tensor,
    build,
    from_trace,
    to_trace,
)

DEVICE = Device(compute=1e12, slow=1e11, fast=1e12, capacity=64_000)


@st.composite
def programs(draw):
    ops = draw(st.integers(2, 9))
    tensors, reads, writes = [], [[] for _ in range(ops)], [[] for _ in range(ops)]
    for i in range(draw(st.integers(1, 8))):
        born = draw(st.integers(-1, ops - 2))
        uses = sorted(draw(st.sets(st.integers(born + 1, ops - 1), min_size=1, max_size=3)))
        size = draw(st.integers(1, 40_000))
        tensors.append(Tensor(f"x{i}", size, born, tuple(uses), draw(st.booleans())))
        for u in uses:
            reads[u].append(i)
        if born >= 0:
            writes[born].append(i)
    flops = draw(st.lists(st.floats(0, 6e5), min_size=ops, max_size=ops))
    made = tuple(Op(f"op{t}", flops[t], tuple(reads[t]), tuple(writes[t])) for t in range(ops))
    return Program("random", made, tuple(tensors))


@given(programs(), st.randoms(use_true_random=False))
def test_placer_board_and_validator_agree_on_any_actions(program, random):
    placer = Placer(program, DEVICE)
    s = len(program.segments)
    inst = boards.pack([program], [DEVICE], (len(program.ops) + 2, len(program.tensors) + 1, s + 1))
    board = boards.start(inst)
    on = np.array([True])
    for i in range(s):
        found = boards.options(inst, board, np.array([i]))
        for action in range(3):
            o = placer.option(i, action)
            assert (o is not None) == found.legal[0, action]
            if o is not None:
                assert o.gain == pytest.approx(found.gain[0, action], abs=1e-15)
        action = random.randrange(3)
        legal = placer.play(i, action)
        boards.apply(inst, board, np.array([i]), np.array([action]), on)
        assert board.legal[0] == legal
        t = len(program.ops)
        assert board.slow[0, :t].tolist() == placer.slow
        assert board.fast[0, :t].tolist() == placer.fast
        assert board.copied[0, :t].tolist() == placer.copy
        assert [int(v) for v in board.taken[0, :t]] == placer.taken
    validate(program, DEVICE, placer.plan)
    assert price(program, DEVICE, placer.plan) == pytest.approx(placer.seconds, rel=1e-9)
    assert board.seconds[0] == pytest.approx(placer.seconds, rel=1e-9)
    assert placer.seconds >= program.all_fast(DEVICE) * (1 - 1e-9)
    moved = board.acted > 0
    born = np.zeros_like(inst.output)
    for r in placer.plan.residences:
        born[0, r.tensor] |= r.traffic is None
    seconds = boards.price_many(inst, moved, born, board.copied)
    assert seconds[0] == pytest.approx(placer.seconds, rel=1e-9)


@given(programs(), st.randoms(use_true_random=False))
def test_orders_are_placed_alike_and_never_lose_time(program, random):
    order = [i for i, mine in enumerate(program.of_tensor) if mine]
    random.shuffle(order)
    placer = Placer(program, DEVICE)
    got = placer.order(order)
    validate(program, DEVICE, placer.plan)
    assert got == pytest.approx(saved(program, DEVICE, placer.plan), abs=1e-9)
    shape = (len(program.ops), len(program.tensors), len(program.segments))
    inst = boards.pack([program] * 2, [DEVICE] * 2, shape)
    board = boards.start(inst)
    for x in order:
        boards.place(inst, board, np.array([x, x]), np.array([True, False]))
    assert 1 - board.seconds[0] / inst.all_slow[0] == pytest.approx(got, abs=1e-9)
    assert board.seconds[1] == inst.all_slow[1] and (board.acted[1] == -1).all()


@given(programs(), st.randoms(use_true_random=False))
def test_plans_survive_json(program, random):
    placer = Placer(program, DEVICE)
    placer.order(range(len(program.tensors)))
    again = Plan.from_json(placer.plan.to_json())
    assert again.to_json() == placer.plan.to_json()
    assert price(program, DEVICE, again) == price(program, DEVICE, placer.plan)
    other = from_trace(to_trace(program), "random")
    assert sorted(other.traffic) == sorted(program.traffic)


def test_a_copy_of_a_once_read_weight_saves_nothing_where_memory_is_the_limit():
    ops = [("a", 0, ["x", "w0"], ["y"]), ("b", 0, ["y", "w1"], ["z"]), ("c", 0, ["z", "w2"], ["o"])]
    program = build(
        "bound", ops, dict.fromkeys(["x", "y", "z", "o", "w0", "w1", "w2"], 8000), ["o"]
    )
    placer = Placer(program, DEVICE)
    for i, s in enumerate(program.segments):
        if program.tensors[s.tensor].born < 0:
            o = placer.option(i, 2)
            assert o is None or o.gain <= 0
    assert placer.order(range(len(program.tensors))) > 0.2, "intermediates kept on chip do pay"


def test_aliases_are_one_buffer_with_one_decision():
    ops = [("a", 1, ["x"], ["y"]), ("view", 0, ["y"], ["v"]), ("b", 1, ["v", "y"], ["z"])]
    program = build("alias", ops, {"x": 10, "y": 20, "z": 5, "v": 20}, ["z"], {"v": "y"})
    assert [x.name for x in program.tensors] == ["x", "y", "z"]
    assert program.tensors[1].uses == (1, 2)
    with pytest.raises(AllocgymError, match="own alias"):
        build("loop", ops, {"x": 1, "y": 1, "z": 1, "v": 1}, alias={"v": "y", "y": "v"})


def broken():
    r = Residence
    yield "shares granules", Plan([r(0, 0, 2, 0, [2], None), r(2, 1, 2, 3, [2], {1: 6000})])
    yield "outside the 64", Plan([r(0, 0, 2, 60, [2], None)])
    yield "without a copy", Plan([r(2, 0, 2, 0, [2], None)])
    yield "of 6000 bytes", Plan([r(2, 1, 2, 0, [2], {1: 5999})])
    yield "outside the time", Plan([r(2, 1, 2, 0, [2], {2: 6000})])
    yield "end with a use", Plan([r(2, 1, 1, 0, [2], {1: 6000})])
    yield "never written back", Plan([r(1, 1, 2, 0, [2], None)])
    yield "two residences", Plan([r(2, 1, 2, 0, [2], {1: 6000}), r(2, 1, 2, 10, [2], {1: 6000})])
    yield "evicted, never", Plan([], {0: {1: 5000}})


@pytest.mark.parametrize(("message", "plan"), list(broken()), ids=lambda v: str(v)[:20])
def test_the_validator_catches(message, plan):
    ops = [("a", 1, [], ["y"]), ("b", 1, [], ["o"]), ("c", 1, ["y", "o", "w"], ["z"])]
    program = build("p", ops, {"y": 5000, "o": 5000, "w": 6000, "z": 10}, ["o"])
    order = ["y", "o", "w", "z"]
    assert [x.name for x in program.tensors] == order
    with pytest.raises(AllocgymError, match=message):
        validate(program, DEVICE, plan)


def test_bad_programs_are_told_in_a_sentence():
    with pytest.raises(AllocgymError, match="no size"):
        build("p", [("a", 1, ["x"], [])], {})
    with pytest.raises(AllocgymError, match="used before"):
        Program("p", (Op("a", 1, (), (0,)),), (Tensor("x", 1, 0, (0,)),))
    with pytest.raises(AllocgymError, match="capacity"):
        Device(capacity=0)
    with pytest.raises(AllocgymError, match="trace"):
        from_trace({"ops": []}, "x")
