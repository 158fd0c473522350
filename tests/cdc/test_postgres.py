"""SQL into PostgreSQL, through Debezium, into a worker: profiles are what SQL says of the tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from c360.codecs.debezium import UNCHANGED
from tests.cdc.world import World
from tests.stories.tools import c360

pytestmark = [pytest.mark.cdc, pytest.mark.timeout(300)]
MARK = UNCHANGED.decode()


def test_a_snapshot_then_the_stream(world: World) -> None:
    world.check()
    world.postgres.sql("""
INSERT INTO customers(id, email, value, born) VALUES
  (101, 'new@example.com', 5, '0001-01-01'), (102, NULL, 99999999999.99, NULL);
INSERT INTO orders(customer_id, total) VALUES (101, 10.00), (101, 250.00), (1, 0.01);
UPDATE customers SET status = 'active', value = value + 19.99 WHERE id <= 10;
UPDATE orders SET total = total * 2 WHERE customer_id = 3;
DELETE FROM orders WHERE customer_id = 4;
DELETE FROM customers WHERE id IN (5, 102);
UPDATE consents SET granted = NOT granted WHERE customer_id BETWEEN 6 AND 20;
""")
    world.check()


def test_transactions_count_whole_and_rolled_back_ones_not_at_all(world: World) -> None:
    world.postgres.sql("""
BEGIN; INSERT INTO orders(customer_id, total) VALUES (11, 45.50);
  UPDATE customers SET value = value + 45.50 WHERE id = 11; COMMIT;
BEGIN; UPDATE customers SET email = 'never@example.com' WHERE id = 12; DELETE FROM orders WHERE customer_id = 12; ROLLBACK;
BEGIN; UPDATE customers SET status = 'a' WHERE id = 13; SAVEPOINT s; UPDATE customers SET status = 'b' WHERE id = 13;
  ROLLBACK TO s; UPDATE customers SET email = 'kept@example.com' WHERE id = 13; COMMIT;
BEGIN; DELETE FROM customers WHERE id = 14; INSERT INTO customers(id, email) VALUES (14, 'again@example.com'); COMMIT;
SELECT pg_logical_emit_message(true, 'c360.audit', '{"actor": "test"}');
UPDATE customers SET value = 1 WHERE id = 15; UPDATE customers SET value = 2 WHERE id = 15;
UPDATE customers SET value = 3 WHERE id = 15;
""")
    world.check()
    assert world.profiles()["crm:12"]["email"] == "c12@example.com"


def test_a_merge_in_the_crm_moves_rows_to_another_customer(world: World) -> None:
    world.postgres.sql("""
BEGIN; UPDATE orders SET customer_id = 21 WHERE customer_id = 22; UPDATE aliases SET customer_id = 21 WHERE customer_id = 22;
UPDATE contacts SET customer_id = 21 WHERE customer_id = 22; DELETE FROM lines WHERE customer_id = 22;
DELETE FROM consents WHERE customer_id = 22; DELETE FROM customers WHERE id = 22; COMMIT;
""")
    world.check()
    assert "crm:22" not in world.profiles()
    assert len(world.profiles()["crm:21"]["aliases"]) == 2


def test_changed_primary_keys(world: World) -> None:
    world.postgres.sql("""
UPDATE aliases SET alias = 'moved' || customer_id || '@example.com' WHERE customer_id BETWEEN 30 AND 45;
UPDATE lines SET line_no = line_no + 100 WHERE customer_id BETWEEN 30 AND 45;
UPDATE lines SET customer_id = 1000 + customer_id WHERE customer_id BETWEEN 40 AND 45;
UPDATE customers SET id = 2000 + id WHERE id BETWEEN 46 AND 48;
""")
    world.check()
    partitions = {p for p, key, _ in world.raw("pg.public.aliases") if key["alias"].startswith("moved")}
    assert partitions == {0, 1}, "old and new keys lie on different partitions"


def test_columns_that_are_not_sent_stay_as_they_were(world: World) -> None:
    world.postgres.sql("""
UPDATE customers SET notes = repeat(md5('n'), 400), tags = (SELECT array_agg(md5(i::text)) FROM generate_series(1, 300) i),
  scores = (SELECT array_agg(i * 1000003) FROM generate_series(1, 2000) i),
  extra = jsonb_build_object('long', repeat(md5('x'), 300))
  WHERE id = 25;
UPDATE customers SET status = 'active' WHERE id = 25;
UPDATE customers SET opt_in = NOT opt_in WHERE id = 25;
UPDATE customers SET notes = NULL WHERE id = 30;
""")
    world.check()
    last = [v for _, key, v in world.raw("pg.public.customers") if v and key == {"id": 25}][-1]["after"]
    assert (last["notes"], last["extra"]) == (MARK, MARK)
    assert (last["tags"], last["scores"]) == ([MARK], list(UNCHANGED)), "as the connector writes them"


def test_a_truncate_comes_on_one_partition_and_empties_all(world: World) -> None:
    world.check()
    world.postgres.sql("""
BEGIN; INSERT INTO lines VALUES (1, 900, 1); TRUNCATE lines;
  INSERT INTO lines SELECT n, 901, n FROM generate_series(1, 5) n; COMMIT;
INSERT INTO lines SELECT n, 902, 1 FROM generate_series(1, 60) n;
""")
    world.check()
    truncates = [(p, key) for p, key, v in world.raw("pg.public.lines") if v and v["op"] == "t"]
    assert [key for _, key in truncates] == [None]
    assert {p for p, key, v in world.raw("pg.public.lines") if key} == {0, 1}


def test_columns_that_are_added_dropped_and_renamed(world: World) -> None:
    world.postgres.sql("""
ALTER TABLE contacts ADD COLUMN locale varchar(10) DEFAULT 'en-GB';
UPDATE contacts SET locale = 'es-ES' WHERE id <= 5;
ALTER TABLE contacts DROP COLUMN fax;
ALTER TABLE contacts RENAME COLUMN phone TO phone_no;
INSERT INTO contacts(id, customer_id, phone_no) VALUES (900, 9, '+15005550006');
ALTER TABLE orders ALTER COLUMN total TYPE numeric(16,4);
UPDATE orders SET total = 45.50 WHERE customer_id = 50;
UPDATE contacts SET phone_no = phone_no;
""")
    world.check()


def test_heartbeats_have_a_topic_that_a_prefix_covers(world: World) -> None:
    world.until(lambda: "pg.heartbeat.pg" in world.topics(), "a heartbeat")
    assert not [topic for topic in world.topics() if topic.startswith("__debezium-heartbeat.pg")]


def test_a_table_that_is_read_again_while_a_transaction_is_open_that_changed_it(world: World) -> None:
    """The reading does not see what it wrote, and its changes are before the reading in the database's log."""
    world.check()
    session = world.postgres.session()
    session.do("BEGIN")
    session.do("UPDATE customers SET status = 'slow', value = value + 1000 WHERE id BETWEEN 50 AND 60")
    world.postgres.sql("UPDATE customers SET status = 'quick' WHERE id = 49;")
    before = len(world.events("pg.public.customers", snapshot="incremental"))
    world.snapshot("public.customers")
    rows = int(world.postgres.sql("SELECT count(*) FROM customers;")[0][0] or 0)
    world.until(
        lambda: len(world.events("pg.public.customers", snapshot="incremental")) >= before + rows, "the reading"
    )
    session.do("COMMIT")
    session.close()
    world.check()
    assert world.profiles()["crm:55"]["status"] == "slow"


def test_a_connector_that_is_killed_sends_again_what_it_had_sent(world: World) -> None:
    world.check()
    for attempt in range(4):  # it may have written down how far it is just before
        before = len(world.events("pg.public.customers"))
        for n in range(20):
            world.postgres.sql(f"UPDATE customers SET value = value + {n}, status = 's{n}' WHERE id BETWEEN 51 AND 58;")
        world.until(lambda: len(world.events("pg.public.customers")) >= before + 160, "the changes")  # noqa: B023 - now
        world.connect.kill()
        world.postgres.sql(f"""
UPDATE customers SET status = 'while it was away' WHERE id = 51; DELETE FROM customers WHERE id = {59 + attempt};
DELETE FROM orders WHERE customer_id = {57 - attempt}; TRUNCATE lines; INSERT INTO lines VALUES (1, 1, 1);
""")
        world.connect.again()
        world.connect.until_running("pg")
        world.check()
        if world.repeated("pg.public.customers"):
            return
    raise AssertionError("nothing came twice")


def test_worker_and_connector_are_killed_in_the_middle_of_it(world: World) -> None:
    world.check()
    change = """
UPDATE customers SET value = value + 1, notes = CASE WHEN id % 7 = 0 THEN repeat(md5(random()::text), 300) ELSE notes END;
INSERT INTO orders(customer_id, total) SELECT id, 7.00 FROM customers WHERE id % 5 = 0;
UPDATE orders SET total = total + 1 WHERE customer_id % 9 = 0; DELETE FROM orders WHERE customer_id % 11 = 0;
"""
    for n in range(6):
        world.postgres.sql(change)
        if n in (1, 4):
            world.kill_worker()
            world.work()
        if n == 2:
            world.connect.kill()
        if n == 3:
            world.connect.again()
    world.check()


def test_all_tables_are_read_again_by_a_connector_that_has_forgotten_where_it_was(world: World) -> None:
    """With a transaction open that began before the reading, and changes meanwhile; the slot was kept."""
    world.check()
    world.connect.forget_offsets("pg")
    session = world.postgres.session()
    session.do("BEGIN")
    session.do("UPDATE customers SET status = 'slower', value = value + 1 WHERE id BETWEEN 51 AND 57")
    world.postgres.sql(
        "UPDATE customers SET status = 'meanwhile' WHERE id = 2; INSERT INTO customers(id) VALUES (777);"
    )
    before = len(world.events("pg.public.customers", snapshot="last_in_data_collection"))
    world.connect.ask("PUT", "/connectors/pg/resume")
    world.until(
        lambda: len(world.events("pg.public.customers", snapshot="last_in_data_collection")) > before, "the snapshot"
    )
    session.do("COMMIT")
    session.close()
    world.check()
    assert world.profiles()["crm:55"]["status"] == "slower"


def test_what_went_while_a_connector_had_lost_its_place_goes_as_the_page_says(world: World, tmp_path: Path) -> None:
    """Offsets and slot are gone. The new snapshot says nothing of rows that are not there; a truncate in front of it does."""
    world.check()
    before = len(world.events("pg.public.customers", snapshot="last_in_data_collection"))
    world.connect.forget_offsets("pg")
    world.postgres.sql("SELECT pg_drop_replication_slot('c360_pg');")
    world.postgres.sql("""
DELETE FROM customers WHERE id BETWEEN 31 AND 35; DELETE FROM orders WHERE customer_id < 10; TRUNCATE lines;
UPDATE customers SET status = 'meanwhile' WHERE id = 36; UPDATE aliases SET alias = 'meanwhile' WHERE customer_id = 37;
""")
    world.connect.ask("PUT", "/connectors/pg/resume")
    world.until(
        lambda: len(world.events("pg.public.customers", snapshot="last_in_data_collection")) > before, "the snapshot"
    )
    world.check_some("crm:36")
    assert world.profiles()["crm:31"]["email"] == "c31@example.com", "it is not there any more, and nobody said so"
    (read_at,) = {
        e["source"]["lsn"] for e in world.events("pg.public.customers", snapshot="last_in_data_collection")[before:]
    }
    lines = [
        {"topic": s.topic, "value": {"op": "t", "source": {"connector": "postgresql", "ts_ms": 0, "lsn": read_at - 1}}}
        for s in world.plan.sources
        if s.topic.startswith("pg.")
    ]
    file = tmp_path / "truncates.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    loaded = c360(world.kafka, world.where, "load", str(file))
    assert loaded.returncode == 0, loaded.stderr
    world.check()


def test_in_the_end_nothing_was_put_aside_and_a_slow_recomputation_agrees(world: World) -> None:
    world.check_all()
