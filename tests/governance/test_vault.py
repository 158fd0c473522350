"""Master keys in Vault's transit engine: against a server of ours, and against the real one where C360_TEST_VAULT names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import pytest

from c360.errors import BrokerAway, UsageError
from c360.governance.keys import generation, make_keys, make_secret, open_secret, unwrap_keys
from c360.ops.vault import BATCH, ServiceAway, VaultMasterKeys
from tests.governance.vault import TOKEN, FakeVault, fake_vault

SECRETS = [bytes([n]) * 64 for n in range(3)]


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with fake_vault() as running:
        running.add("shop")
        yield running


@pytest.fixture(params=["fake", "real"])
def keys(request: pytest.FixtureRequest, vault: FakeVault) -> VaultMasterKeys:
    """Of a transit key that exists. The real one: C360_TEST_VAULT="URL TOKEN", such as "vault+http://…/transit/shop root"."""
    if request.param == "fake":
        return VaultMasterKeys(vault.url, lambda: TOKEN)
    if (real := os.environ.get("C360_TEST_VAULT")) is None:
        pytest.skip("C360_TEST_VAULT names no Vault or OpenBao")
    url, token = real.split()
    return VaultMasterKeys(url, lambda: token)


# ------------------------------------------------------------------------------------------- what the real one does
def test_what_is_wrapped_unwraps_and_names_its_version(keys: VaultMasterKeys) -> None:
    wrapped = keys.wrap(SECRETS)
    assert keys.unwrap(wrapped) == SECRETS
    assert {generation(text) for text in wrapped} == {keys.current}
    assert (keys.wrap([]), keys.unwrap([]), keys.rewrap([])) == ([], [], [])


def test_one_bad_text_does_not_spoil_the_others(keys: VaultMasterKeys) -> None:
    (good,) = keys.wrap(SECRETS[:1])
    bad = [good[:-8] + "AAAAAAA=", "vault:v999:AAAA", "c360:x:AAAA", ""]
    assert keys.unwrap([*bad, good]) == [None, None, None, None, SECRETS[0]]
    assert keys.rewrap([*bad, good])[:4] == [None] * 4


def test_a_rotation_makes_a_version_that_wraps_and_rewraps(keys: VaultMasterKeys) -> None:
    old = keys.wrap(SECRETS)
    before = keys.current
    after = keys.rotate()
    assert (keys.current, after != before) == (after, True)
    renewed = [text for text in keys.rewrap(old) if text is not None]
    assert {generation(text) for text in renewed} == {after}
    assert keys.unwrap([*old, *renewed]) == [*SECRETS, *SECRETS]


def test_data_keys_and_the_app_s_secret_are_wrapped_by_it(keys: VaultMasterKeys) -> None:
    made, (record,) = make_keys("shop", "t", ["crm:7"], keys, Random(1).randbytes)
    assert record.value is not None
    (found,) = unwrap_keys("shop", [("crm:7", made["crm:7"].id, record.value)], keys)
    assert found.seal("A.b", b"1") == made["crm:7"].seal("A.b", b"1")
    secret = make_secret("shop", keys, Random(2).randbytes)
    assert open_secret("shop", secret.value, keys).secret == Random(2).randbytes(32)


def test_many_keys_go_in_few_requests(keys: VaultMasterKeys) -> None:
    many = [n.to_bytes(64, "big") for n in range(BATCH + 1)]
    assert keys.unwrap(keys.wrap(many)) == many


# ------------------------------------------------------------------------------------------------- what goes wrong
def test_requests_are_cut_at_a_bound(vault: FakeVault) -> None:
    VaultMasterKeys(vault.url, lambda: TOKEN).wrap([bytes(64)] * (BATCH + 1))
    assert vault.asked == [("encrypt", BATCH), ("encrypt", 1)]


def test_a_key_that_is_not_there_is_refused_at_start_and_not_made(vault: FakeVault) -> None:
    with pytest.raises(UsageError, match="has no transit key shpo"):
        VaultMasterKeys(vault.url.replace("/shop", "/shpo"), lambda: TOKEN)
    assert list(vault.keys) == ["shop"]


def test_a_token_that_expires_is_named_and_a_renewed_one_is_taken(vault: FakeVault) -> None:
    tokens = ["s.bad"]
    with pytest.raises(UsageError, match="token may not GET transit/keys/shop") as refused:
        VaultMasterKeys(vault.url, lambda: tokens[-1])
    assert "s.bad" not in str(refused.value)
    tokens.append(TOKEN)
    keys = VaultMasterKeys(vault.url, lambda: tokens[-1])
    vault.token = "s.next"
    with pytest.raises(UsageError, match="renew it"):
        keys.wrap(SECRETS)
    tokens.append("s.next")
    assert len(keys.wrap(SECRETS)) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 429, 473])
def test_a_service_that_cannot_answer_now_is_waited_for(vault: FakeVault, status: int) -> None:
    keys = VaultMasterKeys(vault.url, lambda: TOKEN)
    vault.status = status
    with pytest.raises(ServiceAway, match=f"status {status}"):
        keys.wrap(SECRETS)
    vault.status = 0
    assert len(keys.wrap(SECRETS)) == 3


def test_a_service_that_is_not_there_is_waited_for() -> None:
    with fake_vault() as gone:
        url = gone.url
    with pytest.raises(BrokerAway, match="does not answer"):
        VaultMasterKeys(url, lambda: TOKEN)


def test_a_token_does_not_follow_a_redirect(vault: FakeVault) -> None:
    vault.status = 307
    with pytest.raises(UsageError, match="status 307"):
        VaultMasterKeys(vault.url, lambda: TOKEN)


@pytest.mark.parametrize(
    "url", ["https://h/transit/shop", "vault+https://h", "vault+https://h/shop", "vault+https:///transit/shop",
            "vault+https://t:s.good@h/transit/shop", "/etc/keys"],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_with_an_example_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="write for example vault") as refused:
        VaultMasterKeys(url, lambda: TOKEN)
    assert "s.good" not in str(refused.value)
