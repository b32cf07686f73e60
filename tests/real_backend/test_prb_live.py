"""Live radio back ends: SCOPE files, the RIC socket, and the Linux data plane where allowed."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import allocgym  # noqa: F401
from allocgym.agents.core import catalogue
from allocgym.envs.core.builder import build
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.prb_slicing import linux, ric, scope

IMSIS = {"1010123456002": 0, "1010123456003": 1, "1010123456004": 2, "1010123456005": 2}
HEADER = (
    "Timestamp,num_ues,IMSI,RNTI,,slicing_enabled,slice_id,slice_prb,power_multiplier,"
    "scheduling_policy,,dl_mcs,dl_n_samples,dl_buffer [bytes],tx_brate downlink [Mbps],"
    "tx_pkts downlink,tx_errors downlink (%),dl_cqi,,ul_mcs,ul_n_samples,ul_buffer [bytes],"
    "rx_brate uplink [Mbps],rx_pkts uplink,rx_errors uplink (%),ul_rssi,ul_sinr,phr,,"
    "sum_requested_prbs,sum_granted_prbs,,dl_pmi,dl_ri,ul_n,ul_turbo_iters"
)


def csv_row(imsi, number, rate=1.0, buffer=0):
    return (
        f"{number},4,{imsi},70,,1,0,9,1.0,1,,18,200,{buffer},{rate},40,0,9.0,,10,10,0,0.1,5,0,0,"
        f"35,31,,900,800,,0,0,0,1"
    )


@pytest.fixture
def scope_folder(tmp_path):
    (tmp_path / "slicing").mkdir()
    (tmp_path / "metrics" / "csv").mkdir(parents=True)
    return tmp_path


def append(folder, imsi, *lines):
    with open(folder / "metrics" / "csv" / f"{imsi}_metrics.csv", "a") as file:
        file.write("".join(lines))


def test_scope_masks_are_disjoint_contiguous_lines(scope_folder):
    made = scope.ScopeFiles(scope_folder, IMSIS, 3, 3)
    made.apply([3, 5, 9], [0, 1, 2])
    made.apply([2, 6, 9], [0, 1, 2])
    masks = [
        (scope_folder / "slicing" / f"slice_allocation_mask_tenant_{i}.txt").read_text()
        for i in range(3)
    ]
    assert [m.count("1") for m in masks] == [2, 6, 9]
    assert all(m.endswith("\n") and len(m) == 26 and m.count("\n") == 1 for m in masks)
    assert sum(np.array([int(c) for c in m.strip()]) for m in masks).max() == 1
    policy = (scope_folder / "slicing" / "slice_scheduling_policy.txt").read_text()
    assert policy == "0::0\n1::1\n2::2\n"
    assert "1010123456004::2" in (scope_folder / "slicing" / "ue_imsi_slice.txt").read_text()


def test_scope_reads_new_whole_rows_only(scope_folder):
    imsi = next(iter(IMSIS))
    append(scope_folder, imsi, HEADER + "\n", csv_row(imsi, 1, rate=99) + "\n")
    made = scope.ScopeFiles(scope_folder, {imsi: 0}, 3, 3)
    assert not made.read().valid
    append(
        scope_folder, imsi, csv_row(imsi, 2, rate=2.0, buffer=1000) + "\n", csv_row(imsi, 3)[:20]
    )
    reading = made.read()
    assert reading.valid
    np.testing.assert_allclose(reading.served[0, 0], 2e6 / 8 * 0.25)
    assert reading.backlog[0, 0] == 1000 and reading.cqi[0, 0] == 9
    np.testing.assert_allclose(reading.arrived[0, 0], 62500 + 1000)
    assert (reading.granted[0, 0], reading.requested[0, 0]) == (800, 900)
    append(scope_folder, imsi, csv_row(imsi, 3)[20:] + "\n")
    assert made.read().valid


def test_scope_names_a_missing_folder(tmp_path):
    with pytest.raises(AllocgymError, match="no folder"):
        scope.ScopeFiles(tmp_path, IMSIS, 3, 3)


def test_an_agent_runs_on_scope_files(scope_folder):
    cell = build(
        "prb-slicing", "scope", folder=str(scope_folder), imsis=IMSIS, timed=False, horizon=3
    )
    agent = catalogue.make("demand-proportional", cell.problem)
    outcome = cell.reset(np.array([0]))
    agent.begin(cell.spec)
    agent.tell(outcome)
    for imsi in IMSIS:
        append(scope_folder, imsi, HEADER + "\n")
    for k in range(3):
        for imsi in IMSIS:
            append(scope_folder, imsi, csv_row(imsi, k, buffer=1000 * k) + "\n")
        outcome = cell.spend(agent.ask())
        agent.tell(outcome)
        assert outcome.valid.all() and outcome.served[0, :, 0].min() > 0
    assert outcome.done.all()
    np.testing.assert_array_equal(outcome.instance.users, [[1, 1, 2]])


class FakeConnector(threading.Thread):
    """The RIC's side: connects, reports rows in marked chunks, keeps what it is told."""

    def __init__(self, address, prefix):
        super().__init__(daemon=True)
        self.socket = socket.create_connection(address, timeout=10)
        self.prefix, self.orders, self.number = prefix, [], 0
        self.start()

    def run(self):
        try:
            while data := self.socket.recv(4096):
                self.orders.append(data.decode())
        except OSError:
            return

    def report(self, buffer=0):
        self.number += 1
        lines = []
        for imsi in IMSIS:
            values = dict.fromkeys(ric.KPIS, 1.0) | {
                "timestamp": self.number,
                "IMSI": imsi,
                "dl_buffer [bytes]": buffer,
                "tx_brate downlink [Mbps]": 2.0,
                "sum_granted_prbs": 700,
            }
            lines.append(",".join(str(values[k]) for k in ric.KPIS))
        text = ("\n".join(lines) + "\n").encode()
        for k in range(0, len(text), 290):
            self.socket.sendall((self.prefix if k else b"") + text[k : k + 290])
            time.sleep(0)


def test_the_control_message_is_the_protocols():
    assert ric.control_message([3, 5, 9], [0, 1, 2]) == b"0,1,2\n3,5,9\n\n\nEND"


def test_chunks_lose_their_marks():
    assert ric.without_prefixes(b"mJQCx1,2") == b"1,2"
    assert ric.without_prefixes(b"m1,2") == b"1,2"
    assert ric.without_prefixes(b"1,2") == b"1,2"


def test_the_xapp_hears_and_answers():
    made = ric.RicSocket(IMSIS, 3, 3, port=0)
    try:
        fake = FakeConnector(made.address, b"")
        made.apply([3, 5, 9], [1, 1, 1])
        fake.report(buffer=500)
        reading = made.read()
        assert reading.valid
        np.testing.assert_allclose(reading.served[:3, 0], 2e6 / 8 * 0.25)
        assert reading.backlog[2, 1] == 500 and reading.granted[0, 0] == 700
        made.apply([1, 7, 9], [1, 1, 1])
        for _ in range(200):
            if "".join(fake.orders).count("END") == 2:
                break
            fake.join(0.01)
        assert "".join(fake.orders) == "1,1,1\n3,5,9\n\n\nEND1,1,1\n1,7,9\n\n\nEND"
        made.period_ms = 1.0
        assert not made.read().valid
    finally:
        made.close()
        made.close()
        fake.join(5)
        fake.socket.close()


def test_a_port_in_use_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AllocgymError, match="cannot listen"):
            ric.RicSocket(IMSIS, 3, 3, port=taken.getsockname()[1])


def test_nobody_connecting_is_told():
    made = ric.RicSocket(IMSIS, 3, 3, port=0, patience=0.01)
    with pytest.raises(AllocgymError, match="nobody connected"):
        made.apply([3, 5, 9], [1, 1, 1])
    made.close()


def test_a_flood_is_refused():
    n = linux.MOST_PACKETS + 1
    schedule = {k: np.zeros(n, np.int64) for k in ("time", "user", "size", "last")}
    pytest.importorskip("pyroute2")
    with pytest.raises(AllocgymError, match="packets in any second"):
        linux.LinuxPlane([1], [10.0], schedule, 1e6)


@pytest.fixture(scope="module")
def plane():
    pytest.importorskip("pyroute2")
    found = linux.probe()
    if "missing" in found:
        pytest.skip(found["missing"])
    return found


@pytest.mark.live
def test_the_kernel_shapes_what_the_simulator_says(plane):
    served = {}
    for engine in ("linux", "simpy"):
        cell = build(
            "prb-slicing", engine, mix="111", channel="slice", period=100.0, horizon=12, load=2.0
        )
        outcomes = [cell.reset(np.array([5]))]
        for _ in range(12):
            outcomes.append(cell.spend(Shares(np.array([[1, 8, 8]]))))
        served[engine] = sum(
            o.served.sum() + o.backlog.sum() * (o is outcomes[-1]) for o in outcomes
        )
        if engine == "linux":
            assert sum(o.arrived.sum() for o in outcomes) > 0
            pids = [
                p
                for p, _ in json.loads((cell.adapter.plane.folder / "state.json").read_text())[
                    "helpers"
                ]
            ]
            folder = cell.adapter.plane.folder
        cell.close()
        cell.close()
    assert abs(served["linux"] / served["simpy"] - 1) < 0.1
    assert not folder.exists() and all(linux.started(p) is None for p in pids)


@pytest.mark.live
@pytest.mark.chaos
def test_after_a_kill_the_next_start_cleans_up_and_goes_on(plane, tmp_path):
    arguments = [
        sys.executable,
        "-m",
        "allocgym",
        "deploy",
        "prb-slicing",
        "--backend",
        "linux",
        "--agent",
        "demand-proportional",
        "--folder",
        "run",
        "--set",
        "period=100",
        "--set",
        "horizon=14",
        "--set",
        "mix=111",
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    running = subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    for line in running.stdout:
        if "period 5/" in line:
            break
    left = list(tmp_path.glob(f"{linux.STATE}*"))
    helpers = json.loads((left[0] / "state.json").read_text())["helpers"]
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    done = subprocess.run(
        [sys.executable, "-m", "allocgym", "resume", "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed after a gap" in done.stdout
    assert not list(tmp_path.glob(f"{linux.STATE}*"))
    assert all(linux.started(pid) != begun for pid, begun in helpers)
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert ledger["spent"] == [17 * 14]
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.live
def test_a_slice_may_be_served_by_tcp(plane):
    cell = build(
        "prb-slicing", "linux", tcp=["embb"], mix="114", period=100.0, horizon=15, load=2.0
    )
    outcomes = [cell.reset(np.array([2]))]
    for _ in range(15):
        outcomes.append(cell.spend(Shares(np.array([[2, 8, 7]]))))
    row = cell.spec.claimants.index("embb")
    streams = cell.adapter.plane.streams
    cell.close()
    assert [k for k, by_tcp in enumerate(streams) if by_tcp] == [row]
    arrived, served, dropped = (
        sum(getattr(o, name)[0, row].sum() for o in outcomes)
        for name in ("arrived", "served", "dropped")
    )
    assert arrived > 0 and served > 0
    # What came was delivered, waits, or was turned away; a read may fall between two packets.
    assert abs(served + dropped + outcomes[-1].backlog[0, row].sum() - arrived) < 0.1 * arrived


def test_tcp_is_for_slices_that_exist():
    with pytest.raises(AllocgymError, match=r"tcp.*embb"):
        build("prb-slicing", "linux", tcp=["video"])


def test_a_station_serves_the_users_it_names_and_the_slices_of_its_scenario(scope_folder):
    slices = ["embb", "urllc", "embb", "mmtc"]
    imsis = {"1": 3, "2": 0, "3": 3}
    cell = build(
        "prb-slicing", "scope", folder=scope_folder, imsis=imsis, slices=slices, timed=False
    )
    assert cell.problem.n_max == 4 and cell.scenario.mix == "1-0-0-2"
    np.testing.assert_array_equal(cell.reset(np.array([0])).instance.users, [[1, 0, 0, 2]])
    cell.close()


def test_a_live_scenario_is_the_simulators(scope_folder):
    live = build("prb-slicing", "scope", "3gpp", folder=scope_folder, imsis=IMSIS, horizon=7)
    told = build("prb-slicing", "twin", "3gpp", horizon=7)
    assert dataclasses.replace(live.scenario, mix=None) == told.scenario


def test_too_many_packets_to_schedule_are_refused(monkeypatch):
    from allocgym.real_backend.prb_slicing import kernel

    monkeypatch.setattr(kernel, "MOST_SCHEDULED", 10)
    cell = build("prb-slicing", "linux", mix="333", load=8.0)
    with pytest.raises(AllocgymError, match="horizon: at most 10 packets"):
        cell.reset(np.array([0]))
    cell.close()


def test_seconds_of_a_live_period_include_the_agents_own(scope_folder, monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 0.25))
    cell = build("prb-slicing", "scope", folder=scope_folder, imsis=IMSIS, timed=False, horizon=3)
    cell.reset(np.array([0]))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    cell._read = next(clock)
    next(clock)  # the agent thinks for a tick
    assert cell.spend(Shares(np.array([[3, 5, 9]]))).seconds[0] == 0.5


def test_a_checkpoint_goes_on_at_its_period(scope_folder, tmp_path):
    arguments = {"folder": scope_folder, "imsis": IMSIS, "timed": False, "horizon": 3}
    cell, other = (build("prb-slicing", "scope", **arguments) for _ in range(2))
    cell.reset(np.array([5]))
    cell.spend(Shares(np.array([[2, 6, 9]])))
    cell.checkpoint(tmp_path / "x.ckpt")
    other.restore(tmp_path / "x.ckpt")
    assert other.outcome == cell.outcome and other.ledger.to_json() == cell.ledger.to_json()
    outcome = other.spend(Shares(np.array([[3, 5, 9]])))
    assert outcome.period[0] == 2 and outcome.failure[0] == 1
    assert other.spend(Shares(np.array([[3, 5, 9]]))).failure[0] == 0
