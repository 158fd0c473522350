"""Customers are forgotten, end to end: on the production engine, in memory."""

from __future__ import annotations

from c360.testing import TestDriver
from tests.governance.forget_shop import NOW, shop


def test_one_customer_without_others() -> None:
    with TestDriver(shop(joined=False), now=NOW) as driver:
        for number, customer in enumerate(["7", "8", "7"]):
            driver.send("orders", customer, {"id": f"o{number}", "customer": customer, "note": f"note {number}"})
        assert driver.profile("crm:7").orders == 2
        certificate = driver.erase("crm:7")
        assert certificate is not None
        assert len(certificate.subjects) == 1
        assert driver.record("crm:7") is None
        assert driver.profile("crm:8").orders == 1
        driver.send("orders", "7", {"id": "o9", "customer": "7", "note": "again"})
        assert driver.record("crm:7") is None
