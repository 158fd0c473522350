"""The same with MariaDB, smaller: positions are those of its binlog."""

from __future__ import annotations

import pytest

from tests.cdc.machines import MariaDb
from tests.cdc.world import World

pytestmark = [pytest.mark.cdc, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def shop(world: World, mariadb: MariaDb) -> MariaDb:
    world.with_mariadb(mariadb)
    return mariadb


def test_a_snapshot_then_the_stream(world: World, shop: MariaDb) -> None:
    world.check()
    shop.sql("""
INSERT INTO customers VALUES (4, '伟 🛒', 1.00);
UPDATE customers SET balance = balance + 5 WHERE id IN (1, 2);
START TRANSACTION; INSERT INTO orders VALUES ('A-4', 4, 45.50), ('A-5', 4, 1.00);
  UPDATE customers SET balance = 0 WHERE id = 4; COMMIT;
START TRANSACTION; UPDATE customers SET name = 'never' WHERE id = 1; ROLLBACK;
UPDATE orders SET order_no = 'A-2R' WHERE order_no = 'A-2';
UPDATE orders SET customer_id = 1 WHERE order_no = 'A-3';
DELETE FROM customers WHERE id = 3;
""")
    world.check()
    assert world.profiles()["shop:1"]["name"] == "Ana"


def test_a_truncate_and_a_renamed_column(world: World, shop: MariaDb) -> None:
    shop.sql("""
TRUNCATE orders; INSERT INTO orders VALUES ('B-1', 1, 7.00), ('B-2', 2, 8.00);
ALTER TABLE customers CHANGE name full_name varchar(200); UPDATE customers SET full_name = 'Ana María' WHERE id = 1;
INSERT INTO customers VALUES (5, 'New', 3.00);
UPDATE customers SET full_name = concat(full_name, '.');
""")
    world.check()
    assert "t" in {event["op"] for event in world.events("my.shop.orders")}


def test_a_table_that_is_read_again_while_a_transaction_is_open_that_changed_it(world: World, shop: MariaDb) -> None:
    world.check()
    session = shop.session()
    session.do("START TRANSACTION")
    session.do("UPDATE customers SET full_name = 'slow', balance = 77 WHERE id = 2")
    shop.sql("UPDATE customers SET balance = 78 WHERE id = 1;")
    shop.sql("""INSERT INTO signals VALUES ('read-1', 'execute-snapshot',
'{"data-collections": ["shop.customers"], "type": "incremental"}');""")
    world.until(lambda: len(world.events("my.shop.customers", snapshot="incremental")) >= 4, "the reading")
    session.do("COMMIT")
    session.close()
    world.check()
    assert world.profiles()["shop:2"]["name"] == "slow"
