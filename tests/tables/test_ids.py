"""Repeats within a window of record times: the same answers from a replay, a restore, any batches; bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from c360.clock import DAY_MS
from c360.tables.ids import IdTable, id_key
from c360.tables.store import MemoryStore

WINDOW = 7 * DAY_MS
Arrival = tuple[str, int]


class Harness:
    """An id table with its store and its changelog."""

    def __init__(self, *, bound: bool = True) -> None:
        self.store = MemoryStore()
        self.log: list[tuple[bytes, bytes | None]] = []
        self.table = IdTable(b"iI", WINDOW)
        if bound:
            self.table.bind(self.store)
        self.notes: tuple[int | None, int] = (None, 0)

    def admit(self, arrivals: list[Arrival]) -> list[bool]:
        return self.table.admit([id_key(i) for i, _ in arrivals], [t for _, t in arrivals])

    def commit(self) -> None:
        changes = self.table.changes()
        self.log += changes
        self.store.write(self.table.store_entries(changes))
        self.table.committed()
        self.notes = (self.table.stream_time, self.table.sequence)

    def restored(self, *, batch: int) -> Harness:
        """Another one, made from the changelog alone; bound to its store when it has all, as a restore does."""
        other = Harness(bound=False)
        for i in range(0, len(self.log), batch):
            other.store.write(other.table.restored(list(dict(self.log[i : i + batch]).items()), other.store))
        other.table.bind(other.store)
        other.table.resume(*self.notes)
        other.notes = self.notes
        other.log = list(self.log)
        return other


def oracle(arrivals: list[Arrival]) -> list[bool]:
    """The definition, with nothing ever removed."""
    admitted: dict[str, int] = {}
    stream: int | None = None
    answers = []
    for name, time in arrivals:
        stream = time if stream is None else max(stream, min(time, stream + WINDOW))
        before = admitted.get(name)
        repeat = before is not None and abs(time - before) <= WINDOW and before >= stream - 2 * WINDOW
        if not repeat:
            admitted[name] = time
        answers.append(not repeat)
    return answers


def test_the_second_delivery_within_the_window_is_a_repeat() -> None:
    h = Harness()
    assert h.admit([("a", 0), ("b", 5), ("a", WINDOW)]) == [True, True, False]
    h.commit()
    assert h.admit([("a", WINDOW), ("b", WINDOW + 6)]) == [False, True]


def test_an_aborted_admission_did_not_happen() -> None:
    h = Harness()
    h.admit([("a", 0)])
    h.table.rolled_back()
    assert h.admit([("a", 1)]) == [True]


def test_one_wrong_clock_does_not_end_everybodys_memory() -> None:
    h = Harness()
    far = 100 * 365 * DAY_MS
    assert h.admit([("a", 0), ("from 2070", far), ("a", 1000)]) == [True, True, False]


def test_days_past_the_window_leave_table_and_changelog() -> None:
    h = Harness()
    for day in range(60):
        h.admit([(f"{day}-{i}", day * DAY_MS) for i in range(10)])
        h.commit()
    assert h.restored(batch=7).store.data == h.store.data
    live = {k for k, v in dict(h.log).items() if v is not None}
    assert len(live) <= 17
    assert len(h.store.data) <= 17 * 11


def test_an_id_admitted_again_survives_the_end_of_its_first_day() -> None:
    h = Harness()
    h.admit([("a", 0)])
    h.commit()
    for day in range(1, 40):
        h.admit([(f"x{day}", day * DAY_MS), *([("a", 10 * DAY_MS)] if day == 10 else [])])
        h.commit()
        if day < 17:
            continue
        if day <= 10 + 7:
            assert h.restored(batch=1).admit([("a", day * DAY_MS)]) == [False]
            assert h.restored(batch=1000).admit([("a", day * DAY_MS)]) == [False]


arrivals = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 40).map(lambda d: d * DAY_MS)), min_size=1, max_size=40
)


@given(arrivals, st.lists(st.integers(1, 5)), st.data())
def test_answers_do_not_depend_on_batches_commits_aborts_or_restores(
    said: list[Arrival], sizes: list[int], data: st.DataObject
) -> None:
    h = Harness()
    answers: list[bool] = []
    position = 0
    while position < len(said):
        size = sizes.pop() if sizes else 3
        piece = said[position : position + size]
        match data.draw(st.sampled_from(["commit", "go on", "abort first", "restore"])):
            case "abort first":
                h.commit()
                h.admit(piece)
                h.table.rolled_back()
            case "commit":
                h.commit()
            case "restore":
                h.commit()
                h = h.restored(batch=data.draw(st.integers(1, 5)))
        answers += h.admit(piece)
        position += size
    assert answers == oracle(said)
