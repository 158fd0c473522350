"""Data keys are made once, found again, wrapped anew and destroyed; a wrong master key is noticed before anything is sealed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import Misfit, NeedsOperator
from c360.governance.keys import (
    APP,
    SECRET,
    KeyRecord,
    LocalMasterKeys,
    Opener,
    Recent,
    Sealer,
    generation,
    generations_used,
    make_keys,
    make_secret,
    open_secret,
    own_key,
    read_record_key,
    record_key,
    rewrapped,
    tombstone,
    unwrap_keys,
)
from c360.governance.sealing import KEY_BYTES, DataKey, Destroyed, Sealed, UnknownKey

FIELD = "Customer.name"
ONE, TWO = (Random(n).randbytes(KEY_BYTES) for n in (1, 2))
MASTER = LocalMasterKeys([ONE])
WRAPPED = (
    "c360:7fbltiox33t2:Jpi/bJsVKa+hyR89VLIGhXWtqK97/VhQb8oF8xG+zSuzM"
    "5t5iHpkty7Am0qE/Ii8GdRhYxhsaTiyK5AV2ANNNkxR6k3oH4EwKY2K2RSUJPk="
)


@dataclass
class KeysTopic:
    """A compacted topic of keys, and a copy of it that lags behind until it catches up."""

    written: dict[bytes, bytes] = field(default_factory=dict)
    copied: dict[bytes, bytes] = field(default_factory=dict)
    asked: int = 0

    def write(self, records: Collection[KeyRecord]) -> None:
        for record in records:
            if record.value is None:
                self.written.pop(record.key, None)
            else:
                self.written[record.key] = record.value

    def catch_up(self) -> None:
        self.copied = dict(self.written)

    def of_subjects(self, subjects: Collection[str]) -> Mapping[str, Mapping[str, bytes]]:
        self.asked += 1
        found: dict[str, dict[str, bytes]] = {}
        for key, value in self.copied.items():
            subject, name = read_record_key(key)
            if subject in subjects:
                found.setdefault(subject, {})[name] = value
        return found

    def of_pairs(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], bytes]:
        self.asked += 1
        return {pair: self.copied[key] for pair in pairs if (key := record_key(*pair)) in self.copied}

    def sealer(self, task: str = "web.clicks/3", seed: int = 0, kept: int = 100) -> Sealer:
        return Sealer("shop", task, MASTER, self.of_subjects, Random(seed).randbytes, kept)

    def opener(self, app: str = "shop") -> Opener:
        return Opener(app, MASTER, self.of_pairs, 100)


def shape(key: DataKey, value: bytes = b'"Ann"') -> dict[str, str]:
    key_id, said, ciphertext = key.seal(FIELD, value).split(":")
    return Sealed(key_id, said, key.subject, ciphertext).shape()


def opened(opener: Opener, value: object, subject: str = "crm:7", complete: bool = True) -> bytes:
    return opener.open(value, subjects={subject}, fields={FIELD}, complete=complete)


# -------------------------------------------------------------------------------------------------- making, finding
def test_a_subject_s_first_record_makes_its_key_and_later_ones_find_it() -> None:
    topic = KeysTopic()
    sealer = topic.sealer()
    first, new = sealer.keys(["crm:7", "crm:8", "crm:7"])
    assert [read_record_key(r.key)[0] for r in new] == [r.partition_by for r in new] == ["crm:7", "crm:8"]
    asked = topic.asked
    again, more = sealer.keys(["crm:8", "crm:7"])
    assert (again, more, topic.asked) == (first, [], asked)


def test_a_task_that_starts_again_goes_on_with_its_own_keys_and_the_same_bytes() -> None:
    topic = KeysTopic()
    first, new = topic.sealer().keys(["crm:7"])
    topic.write(new)
    topic.catch_up()
    again, more = topic.sealer(seed=1).keys(["crm:7"])
    assert more == []
    assert shape(again["crm:7"]) == shape(first["crm:7"])


def test_two_tasks_that_meet_a_subject_at_once_make_two_keys_and_both_open() -> None:
    topic = KeysTopic()
    made = []
    for task in ("web.clicks/3", "crm.customers/0"):
        keys, new = topic.sealer(task).keys(["crm:7"])  # of the same random bytes, at worst
        topic.write(new)
        made.append(keys["crm:7"])
    topic.catch_up()
    assert made[0].id != made[1].id
    assert {opened(topic.opener(), shape(key)) for key in made} == {b'"Ann"'}
    records = topic.of_subjects(["crm:7"])["crm:7"]
    assert [own_key(records, key.task) for key in made] == [key.id for key in made]
    assert own_key(records, "web.clicks/4") is None


def test_what_was_made_in_a_transaction_that_was_aborted_is_made_anew() -> None:
    topic = KeysTopic()
    sealer = topic.sealer()
    lost, _ = sealer.keys(["crm:7"])
    sealer.forget()
    kept, new = sealer.keys(["crm:7"])
    assert kept["crm:7"].id != lost["crm:7"].id
    assert len(new) == 1


def test_a_batch_of_more_subjects_than_are_kept_has_all_its_keys() -> None:
    topic = KeysTopic()
    sealer = topic.sealer(kept=3)
    subjects = [f"crm:{n}" for n in range(10)]
    keys, new = sealer.keys(subjects)
    assert list(keys) == subjects
    topic.write(new)
    topic.catch_up()
    again, more = sealer.keys(subjects)
    assert ({s: k.id for s, k in again.items()}, more) == ({s: k.id for s, k in keys.items()}, [])


def test_a_batch_is_wrapped_in_one_call_and_nothing_is_not_asked_for() -> None:
    calls: list[int] = []

    class Counting(LocalMasterKeys):
        def wrap(self, secrets: object) -> list[str]:
            calls.append(len(secrets))  # type: ignore[arg-type]
            return super().wrap(secrets)  # type: ignore[arg-type]

    keys, records = make_keys("shop", "t", ["a:1", "a:2", "a:3"], Counting([ONE]), Random(0).randbytes)
    assert (calls, len(keys), len(records)) == ([3], 3, 3)
    assert make_keys("shop", "t", [], Counting([ONE]), Random(0).randbytes) == ({}, [])
    assert calls == [3]


# ---------------------------------------------------------------------------------------------- opening, destroying
def test_an_unknown_key_is_unknown_until_the_keys_are_read_to_their_end() -> None:
    topic = KeysTopic()
    keys, new = topic.sealer().keys(["crm:7"])
    topic.write(new)
    opener, value = topic.opener(), shape(keys["crm:7"])
    with pytest.raises(UnknownKey, match="read the keys to their end"):
        opened(opener, value, complete=False)
    topic.catch_up()
    assert opened(opener, value) == b'"Ann"'


def test_a_key_that_was_destroyed_opens_nothing_even_where_it_was_in_use() -> None:
    topic = KeysTopic()
    keys, new = topic.sealer().keys(["crm:7"])
    topic.write(new)
    topic.catch_up()
    opener, value = topic.opener(), shape(keys["crm:7"])
    opened(opener, value)
    topic.write([tombstone("crm:7", keys["crm:7"].id)])
    topic.catch_up()
    opener.forget("crm:7", keys["crm:7"].id)
    with pytest.raises(Destroyed):
        opened(opener, value)


def test_a_value_that_was_moved_is_told_from_one_that_was_altered() -> None:
    topic = KeysTopic()
    keys, new = topic.sealer().keys(["crm:7", "crm:8"])
    topic.write(new)
    topic.catch_up()
    value = shape(keys["crm:7"])
    with pytest.raises(Misfit) as moved:
        opened(topic.opener(), value, subject="crm:8")
    with pytest.raises(Misfit) as altered:
        opened(topic.opener(), {**value, "~sealed": value["~sealed"][:-4] + "AAAA"}, subject="crm:8")
    assert (moved.value.reason, altered.value.reason) == ("sealed-elsewhere", "sealed-altered")
    with pytest.raises(Destroyed):  # made to say that it is where it stands: there is no such key
        opened(topic.opener(), {**value, "subject": "crm:8"}, subject="crm:8")


def test_the_keys_of_another_app_or_subject_are_not_taken_for_ours() -> None:
    topic = KeysTopic()
    keys, (record,) = topic.sealer().keys(["crm:7"])
    assert record.value is not None
    key_id = keys["crm:7"].id
    for app, subject, name in (("outlet", "crm:7", key_id), ("shop", "crm:8", key_id), ("shop", "crm:7", "else")):
        with pytest.raises(NeedsOperator, match=name):
            unwrap_keys(app, [(subject, name, record.value)], MASTER)


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"\xff", b'{"cipher": 1, "wrapped": ""}'])
def test_a_key_record_that_is_none_is_named_and_stops(value: bytes) -> None:
    with pytest.raises(NeedsOperator, match="key k1 in the keys topic is not one"):
        unwrap_keys("shop", [("crm:7", "k1", value)], MASTER)


def test_a_key_of_a_cipher_of_tomorrow_asks_for_an_upgrade() -> None:
    with pytest.raises(NeedsOperator, match="upgrade"):
        unwrap_keys("shop", [("crm:7", "k1", b'{"cipher": "ROT13", "wrapped": "c360:x:y"}')], MASTER)


# ----------------------------------------------------------------------------------------------------- master keys
@given(st.lists(st.binary(min_size=1, max_size=80), max_size=4))
def test_what_is_wrapped_unwraps_and_says_its_generation(secrets: list[bytes]) -> None:
    wrapped = MASTER.wrap(secrets)
    assert MASTER.unwrap(wrapped) == secrets
    assert {generation(text) for text in wrapped} <= {MASTER.current}


def test_any_character_of_a_wrapped_key_that_is_changed_is_noticed() -> None:
    (text,) = MASTER.wrap([bytes(64)])
    turned = [text[:i] + chr(ord(text[i]) ^ 1) + text[i + 1 :] for i in range(len(text))]
    assert MASTER.unwrap(turned) == [None] * len(turned)
    assert MASTER.unwrap(["", ":", text[:-8], text + ":"]) == [None] * 4


def test_a_rotation_wraps_anew_what_older_keys_wrapped_and_touches_no_data() -> None:
    topic = KeysTopic()
    keys, new = topic.sealer().keys(["crm:7", "crm:8"])
    topic.write([*new, make_secret("shop", MASTER, Random(5).randbytes)])
    values = {s: shape(key) for s, key in keys.items()}
    both, after = LocalMasterKeys([ONE, TWO]), LocalMasterKeys([TWO])
    renewed = rewrapped(topic.written.items(), both)
    assert {r.key for r in renewed} == topic.written.keys()
    assert {r.partition_by for r in renewed} == {"crm:7", "crm:8", APP}
    secret = open_secret("shop", topic.written[record_key(APP, SECRET)], MASTER)
    topic.write(renewed)
    topic.catch_up()
    assert rewrapped(topic.written.items(), both) == []
    assert generations_used(topic.written.items()) == {after.current}
    opener = Opener("shop", after, topic.of_pairs)
    assert {opened(opener, value, s) for s, value in values.items()} == {b'"Ann"'}
    assert open_secret("shop", topic.written[record_key(APP, SECRET)], after) == secret


def test_a_rotation_without_an_old_key_stops_before_anything_is_written() -> None:
    _, new = KeysTopic().sealer().keys(["crm:7"])
    with pytest.raises(NeedsOperator, match=f"lacks its generation {MASTER.current}"):
        rewrapped([(r.key, r.value or b"") for r in new], LocalMasterKeys([TWO]))


# ------------------------------------------------------------------------------------------------------ app secret
def test_a_wrong_master_key_is_noticed_when_the_app_s_secret_is_opened() -> None:
    record = make_secret("shop", MASTER, Random(5).randbytes)
    assert open_secret("shop", record.value, MASTER).app == "shop"
    with pytest.raises(NeedsOperator, match=r"is not the master key of shop.*Nothing was sealed"):
        open_secret("shop", record.value, LocalMasterKeys([TWO]))


def test_an_app_without_a_secret_and_one_with_another_s_are_told_what_to_do() -> None:
    record = make_secret("shop", MASTER, Random(5).randbytes)
    with pytest.raises(NeedsOperator, match="keys init"):
        open_secret("shop", None, MASTER)
    with pytest.raises(NeedsOperator, match="copied from another app"):
        open_secret("outlet", record.value, MASTER)


def test_nothing_secret_is_in_what_is_printed() -> None:
    secret = open_secret("shop", make_secret("shop", MASTER, Random(5).randbytes).value, MASTER)
    printed = repr(secret) + str(secret) + repr(MASTER) + f"{secret}"
    assert repr(secret.secret)[2:10] not in printed
    assert repr(ONE)[2:10] not in printed


# -------------------------------------------------------------------------------------------------------- formats
def test_the_bytes_of_key_records_stay_what_they_are() -> None:
    """Golden: docs/formats/keys.md."""
    _, (record,) = make_keys("shop", "web.clicks/3", ["crm:7"], LocalMasterKeys([bytes(64)]), lambda n: bytes(range(n)))
    assert record.key == b"crm:7\0pvearpcjf3y7n54ibtkcajbx"
    assert record.value is not None
    assert json.loads(record.value) == {"cipher": "AES-SIV-512", "wrapped": WRAPPED, "task": "web.clicks/3"}


# ----------------------------------------------------------------------------------------------------------- cache
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=60), st.integers(1, 5))
def test_the_last_things_used_are_kept_and_no_more(steps: list[tuple[int, bool]], most: int) -> None:
    recent: Recent[int, str] = Recent(most)
    order: list[int] = []
    for key, put in steps:
        if put:
            recent.put(key, str(key))
        else:
            assert recent.get(key) == (str(key) if key in order else None)
        if put or key in order:
            order = ([k for k in order if k != key] + [key])[-most:]
    assert len(recent) == len(order)
    assert [recent.get(key) for key in order] == [str(key) for key in order]
