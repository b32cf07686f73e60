"""The rules of the mapping game: compiled rules, a plain reference and the validator agree."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import (
    COPY,
    DROP,
    STAY,
    Plan,
    Residence,
    price,
    saved,
    validate,
)
from allocgym.envs.memory_mapping.program import (
    PAGES,
    Device,
    Op,
    Program,
    Tensor,
    build,
    from_trace,
    to_trace,
)
from allocgym.envs.memory_mapping.rule import _total

DEVICE = Device(compute=1e12, slow=1e11, fast=1e12, capacity=64_000)
FULL = (1 << PAGES) - 1


def runs(free: int, size: int) -> int:
    have = 1
    while have < size and free:
        step = min(have, size - have)
        free &= free >> step
        have += step
    return free


class Option:
    __slots__ = ("action", "born", "evict", "fetch", "gain", "offset", "start")

    def __init__(self, action):
        self.action = action
        self.offset = self.start = -1
        self.born = False
        self.fetch = None
        self.evict = None
        self.gain = 0.0


class Reference:
    """The rules once more, one program in plain Python: what the compiled ones are held against."""

    def __init__(self, program, device):
        self.program, self.device = program, device
        self.comp = program.compute(device).tolist()
        self.pages = [device.pages(x.size) for x in program.tensors]
        self.base = program.traffic.tolist()
        self.tolerance = 1e-12 * program.all_slow(device)
        self.restart()

    def restart(self):
        n = len(self.program.ops)
        self.slow = list(self.base)
        self.fast = [0] * n
        self.copy = [0] * n
        self.taken = [0] * n
        self.stay = {}
        self.owed = set()
        self.plan = Plan()
        self.seconds = sum(
            max(c, b / self.device.slow) for c, b in zip(self.comp, self.base, strict=True)
        )

    def _time(self, t, slow, fast):
        d = self.device
        return max(self.comp[t], slow / d.slow + fast / d.fast)

    def _idle(self, t):
        d = self.device
        room = math.floor((self.comp[t] - self.fast[t] / d.fast) * d.slow)
        return max(room - self.slow[t] - self.copy[t], 0)

    def _spread(self, first, last, size):
        parts = {}
        left = size
        for t in range(last, first - 1, -1):
            take = min(self._idle(t), left)
            if take:
                parts[t] = take
                left -= take
                if not left:
                    break
        if left:
            parts[last] = parts.get(last, 0) + left
        return parts

    def _fit(self, first, use, last, size):
        if size > PAGES:
            return -1
        used = 0
        for t in range(first, use + 1):
            used |= self.taken[t]
        starts = runs(~used & FULL, size)
        if starts and last > use:
            for t in range(use + 1, last + 1):
                used |= self.taken[t]
            starts = runs(~used & FULL, size) or starts
        return (starts & -starts).bit_length() - 1

    def option(self, segment, action):
        s = self.program.segments[segment]
        x = self.program.tensors[s.tensor]
        here = self.stay.get(s.tensor)
        if here is not None and here.end != s.since:
            here = None
        found = Option(action)
        out = None
        if s.tensor in self.owed and action != STAY:
            out = self._spread(x.born + 1, s.since, x.size)
        if action == STAY:
            if s.first and s.since >= 0:
                found.offset, found.start = (
                    self._fit(s.since, s.use, x.uses[-1], self.pages[s.tensor]),
                    s.since,
                )
                if found.offset < 0:
                    return None
                found.born = True
                if x.output:
                    out = self._spread(s.since + 1, s.use, x.size)
            elif here is not None:
                mask = ((1 << self.pages[s.tensor]) - 1) << here.offset
                if any(self.taken[t] & mask for t in range(s.since + 1, s.use + 1)):
                    return None
                found.offset, found.start = here.offset, s.since + 1
            else:
                return None
        elif action == COPY:
            if s.use - s.since < 2:
                return None
            found.fetch = self._spread(s.since + 1, s.use - 1, x.size)
            found.start = min(found.fetch)
            found.offset = self._fit(found.start, s.use, x.uses[-1], self.pages[s.tensor])
            if found.offset < 0:
                return None
        found.evict = out
        found.gain = self._gain(
            s.use if action else -1, s.since if found.born else -1, x.size, found
        )
        return found

    def _gain(self, use, born, size, o):
        moved = {t: 0 for t in (use, born) if t >= 0}
        extra = {}
        for parts in (o.fetch, o.evict):
            for t, b in (parts or {}).items():
                extra[t] = extra.get(t, 0) + b
        gain = 0.0
        for t in moved.keys() | extra.keys():
            shift = size if t in moved else 0
            bus = self.slow[t] + self.copy[t]
            before = self._time(t, bus, self.fast[t])
            after = self._time(t, bus - shift + extra.get(t, 0), self.fast[t] + shift)
            gain += before - after
        return gain

    def apply(self, segment, o):
        s = self.program.segments[segment]
        x = self.program.tensors[s.tensor]
        for parts in (o.fetch, o.evict):
            for t, b in (parts or {}).items():
                self.copy[t] += b
        if o.evict is not None:
            self.plan.evictions[s.tensor] = o.evict
            self.owed.discard(s.tensor)
        for t in ([s.use] if o.action else []) + ([s.since] if o.born else []):
            self.slow[t] -= x.size
            self.fast[t] += x.size
        self.seconds -= o.gain
        if o.action == DROP:
            self.stay.pop(s.tensor, None)
            return
        mask = ((1 << self.pages[s.tensor]) - 1) << o.offset
        for t in range(o.start, s.use + 1):
            self.taken[t] |= mask
        if o.action == STAY and not o.born:
            here = self.stay[s.tensor]
            here.end = s.use
            here.uses.append(s.use)
            return
        here = Residence(
            s.tensor, o.start, s.use, o.offset, [s.use], None if o.born else dict(o.fetch or {})
        )
        self.stay[s.tensor] = here
        self.plan.residences.append(here)
        if o.born and not x.output:
            self.owed.add(s.tensor)

    def play(self, segment, action):
        o = self.option(segment, action)
        legal = o is not None
        self.apply(segment, o or self.option(segment, DROP) or Option(DROP))
        return legal

    def potential(self, segment):
        s = self.program.segments[segment]
        z = self.program.tensors[s.tensor].size
        bus = self.slow[s.use] + self.copy[s.use]
        return self._time(s.use, bus, self.fast[s.use]) - self._time(
            s.use, bus - z, self.fast[s.use] + z
        )

    def best(self, segment, following):
        drop = self.option(segment, DROP) or Option(DROP)
        chosen, score = drop, drop.gain + self.tolerance
        ahead = self.potential(following) if following is not None else 0.0
        for action in (STAY, COPY):
            o = self.option(segment, action)
            if o is not None and o.gain + ahead > score:
                chosen, score = o, o.gain + ahead
        return chosen

    def place(self, tensor):
        mine = self.program.of_tensor[tensor]
        for n, segment in enumerate(mine):
            following = mine[n + 1] if n + 1 < len(mine) else None
            self.apply(segment, self.best(segment, following))

    def order(self, tensors):
        self.restart()
        for x in tensors:
            self.place(int(x))
        return self.saved

    @property
    def saved(self):
        return 1 - self.seconds / self.program.all_slow(self.device)


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
def test_rules_reference_and_validator_agree_on_any_actions(program, random):
    placer, game = Reference(program, DEVICE), Game(program, DEVICE)
    s = len(program.segments)
    inst = boards.pack([program], [DEVICE], (len(program.ops) + 2, len(program.tensors) + 1, s + 1))
    board = boards.start(inst)
    on = np.array([True])
    for i in range(s):
        found, gain = boards.look(inst, board, np.array([i]))
        for action in range(3):
            o = placer.option(i, action)
            assert (o is not None) == found[0, action]
            if o is not None:
                assert o.gain == pytest.approx(gain[0, action], abs=1e-15)
        action = random.randrange(3)
        legal = placer.play(i, action)
        boards.play(inst, board, np.array([i]), np.array([action]), on)
        assert board.legal[0] == legal == game.play(i, action)
        t = len(program.ops)
        assert board.slow[0, :t].tolist() == placer.slow
        assert board.fast[0, :t].tolist() == placer.fast
        assert board.copied[0, :t].tolist() == placer.copy
        assert [int(v) for v in board.taken[0, :t]] == placer.taken
    validate(program, DEVICE, game.plan)
    assert game.plan.to_json() == placer.plan.to_json()
    assert price(program, DEVICE, game.plan) == pytest.approx(game.seconds, rel=1e-9)
    assert game.seconds == pytest.approx(placer.seconds, rel=1e-9)
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
    game, reference = Game(program, DEVICE), Reference(program, DEVICE)
    got = game.order(order)
    validate(program, DEVICE, game.plan)
    assert got == pytest.approx(saved(program, DEVICE, game.plan), abs=1e-9)
    assert got == pytest.approx(reference.order(order), abs=1e-9)
    assert game.plan.to_json() == reference.plan.to_json()
    shape = (len(program.ops), len(program.tensors), len(program.segments))
    inst = boards.pack([program] * 2, [DEVICE] * 2, shape)
    board = boards.start(inst)
    for x in order:
        boards.place(inst, board, np.array([x, x]), np.array([True, False]))
    assert 1 - board.seconds[0] / inst.all_slow[0] == got, "a game is a board of one row"
    assert board.seconds[1] == inst.all_slow[1] and (board.acted[1] == -1).all()


@given(programs(), st.randoms(use_true_random=False))
def test_plans_survive_json(program, random):
    game = Game(program, DEVICE)
    game.order(range(len(program.tensors)))
    again = Plan.from_json(game.plan.to_json())
    assert again.to_json() == game.plan.to_json()
    assert price(program, DEVICE, again) == price(program, DEVICE, game.plan)
    other = from_trace(to_trace(program), "random")
    assert sorted(other.traffic) == sorted(program.traffic)


def test_a_copy_of_a_once_read_weight_saves_nothing_where_memory_is_the_limit():
    ops = [("a", 0, ["x", "w0"], ["y"]), ("b", 0, ["y", "w1"], ["z"]), ("c", 0, ["z", "w2"], ["o"])]
    program = build(
        "bound", ops, dict.fromkeys(["x", "y", "z", "o", "w0", "w1", "w2"], 8000), ["o"]
    )
    game = Game(program, DEVICE)
    for i, s in enumerate(program.segments):
        if program.tensors[s.tensor].born < 0:
            legal, gain = boards.look(game.instance, game.board, np.array([i]))
            assert not legal[0, COPY] or gain[0, COPY] <= 0
    assert game.order(range(len(program.tensors))) > 0.2, "intermediates kept on chip do pay"


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


@pytest.mark.parametrize("count", [1, 7, 8, 127, 128, 129, 300, 1000])
def test_gains_are_summed_to_numpys_bits(count):
    values = np.random.default_rng(count).normal(size=(3, count))
    assert [_total(row) for row in values] == values.sum(1).tolist()
