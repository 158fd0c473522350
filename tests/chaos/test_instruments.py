"""The chaos run's own instruments: a check that finds what is wrong, a clock of silences, a network that can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.chaos.check import Pair, Verdict, compare_streams, compare_tables
from tests.chaos.faults import faults_for
from tests.chaos.proxy import HOST, Network, Proxy
from tests.chaos.run import Course, Disturbance, Outcome, main, table, to_json
from tests.chaos.watch import Arrivals

A1, A2, B1 = (b"a", b"1"), (b"a", b"2"), (b"b", b"1")


def streams(*found: Pair) -> Verdict:
    return compare_streams("t", {0: [A1, A2, B1]}, {0: list(found)}, lambda pair: pair[0])


def test_one_lost_doubled_invented_or_displaced_record_is_found() -> None:
    assert streams(A1, B1, A2).fine  # other keys may come between
    assert (streams(A1, B1).lost, streams(A1, B1).fine) == (1, False)
    assert (streams(A1, A2, A2, B1).doubled, streams(A1, A2, A2, B1).fine) == (1, False)
    assert streams(A1, A2, B1, (b"a", b"3")).invented == 1
    assert (streams(A2, A1, B1).disordered, streams(A2, A1, B1).fine) == (1, False)
    assert compare_streams("t", {0: [A1]}, {1: [A1]}, lambda pair: None).lost == 1


def test_one_altered_lost_or_invented_profile_is_found() -> None:
    right = {0: [A1, A2], 1: [B1]}
    assert compare_tables("t", right, {0: [A2], 1: [B1, B1]}).fine
    assert compare_tables("t", right, {0: [A2, A1], 1: [B1]}).wrong == 1
    assert compare_tables("t", right, {0: [A2]}).lost == 1
    came_and_went = (b"c", b"")  # written between two commits of one run, taken back in the next
    assert compare_tables("t", right, {0: [A2, came_and_went], 1: [B1]}).fine
    assert compare_tables("t", right, {0: [A2, B1], 1: [B1]}).invented == 1


def test_a_silence_is_counted_from_the_fault_on_and_for_the_task_that_waits_longest() -> None:
    arrivals = Arrivals([("a", 0), ("b", 0)])
    for at in (1.0, 2.0, 9.0, 9.5, 30.0):
        arrivals.add(("a", 0), at)
    for at in (1.0, 4.0, 9.4):
        arrivals.add(("b", 0), at)
    assert arrivals.longest_silence(3.0, 10.0) == (20.5, 9.5, ("a", 0))  # began before 10
    assert arrivals.longest_silence(3.0, 9.2) == (6.0, 3.0, ("a", 0))
    assert arrivals.silent(9.4) == [("b", 0)]
    assert arrivals.flowing(9.3)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def proxy(network: Network) -> Iterator[Proxy]:
    """In front of a server that answers every byte."""
    with socket.create_server((HOST, 0)) as server:

        def answer(link: socket.socket) -> None:
            with closing(link), suppress(OSError):
                while data := link.recv(10):
                    link.sendall(data)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        proxy = network.proxy()
        proxy.target = server.getsockname()
        yield proxy
        server.shutdown(socket.SHUT_RDWR)


def test_what_is_sent_into_a_cut_arrives_late_or_its_connection_ends(network: Network, proxy: Proxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as link:
        link.sendall(b"1")
        assert link.recv(10) == b"1"
        network.do(proxy.cut())
        link.sendall(b"2")
        link.settimeout(0.1)
        with pytest.raises(TimeoutError):
            link.recv(10)
        link.settimeout(5)
        network.do(proxy.mend())
        assert link.recv(10) == b"2"
        network.do(proxy.cut())
        network.do(proxy.reset())
        with suppress(ConnectionError):
            assert link.recv(10) == b""
        network.do(proxy.mend())
    with socket.create_connection((HOST, proxy.port), timeout=5) as link:
        link.sendall(b"3")
        assert link.recv(10) == b"3"


def outcome(**said: object) -> Outcome:
    found = Outcome(Course(10, 1))
    for name, value in said.items():
        setattr(found, name, value)
    return found


def test_a_run_is_right_only_if_nothing_is_wrong_nor_stuck_and_no_worker_ended_for_good() -> None:
    assert outcome().fine
    wrong = [outcome(stuck="for ever"), outcome(differences=1), outcome(verdict=Verdict(doubled=1))]
    wrong[0].exits[1] += 1
    ended = outcome()
    ended.exits[3] += 1
    stopped = outcome()
    stopped.stops[1] += 1
    assert not any(one.fine for one in (*wrong, ended, stopped))
    assert to_json(wrong)["doubled"] == 1
    assert to_json(wrong)["fine"] is False


def test_the_table_has_median_and_most_of_each_fault() -> None:
    found = outcome(disturbances=[Disturbance("kill_two", 0, 1, s) for s in (3.0, 1.0, 8.0)])
    assert table([found]).splitlines()[2:] == ["| kill two | classic | 3 | 3.0 | 8.0 |"]


def test_every_fault_says_what_it_is_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(fault.__doc__ for fault in faults_for(3))
    with pytest.raises(SystemExit, match="2"):
        main(["--faults", "flood"])
    assert "kill_two" in capsys.readouterr().err


def test_the_page_lists_every_fault_and_has_measured_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "chaos.md").read_text(encoding="utf-8")
    for fault in faults_for(3):
        name = fault.__name__.replace("_", " ")
        assert f"| {name} | {fault.__doc__} |" in page
        assert f"| {name} | classic | " in page
        assert f"| {name} | consumer | " in page
