"""Tenants never meet: cross-tenant fuzz. More of it: `python -m tests.governance.tenant_runs --runs 100`."""

from __future__ import annotations

import pytest

from tests.governance.tenant_town import NOW, differences, foreign, records, run, town


@pytest.mark.parametrize("seed", range(4))
def test_each_tenant_has_what_it_would_have_alone(seed: int) -> None:
    assert differences(seed, 250, accidents=seed % 2 == 1) == []


def test_there_is_something_to_compare() -> None:
    found = run(town(0), records(0, 250))
    assert all(len(found[what]) > 5 for what in ("service", "marketing", "mailer", "assignments", "links", "consent"))
    assert found["suppressed"]
    assert foreign(found | {"service": {"x": {"page": "<a> 1", "notes": ["<b> 2"]}}}) is not None
    assert NOW is not None
