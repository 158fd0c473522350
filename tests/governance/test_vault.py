"""Master keys in Vault's transit engine: against a server of ours, and against the real one where C360_TEST_VAULT names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from c360.errors import BrokerAway, UsageError
from c360.governance.keys import generation, make_keys, make_secret, open_secret, unwrap_keys
from c360.ops.vault import BATCH, ServiceAway, VaultMasterKeys
from tests import openbao as openbao_server
from tests.governance.vault import TOKEN, FakeVault, fake_vault

SECRETS = [bytes([n]) * 64 for n in range(3)]


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with fake_vault() as running:
        running.add("shop")
        yield running


@pytest.fixture(scope="module")
def openbao() -> Iterator[openbao_server.OpenBao]:
    if openbao_server.find_openbao() is None:
        pytest.skip(openbao_server.MISSING)
    with openbao_server.start() as running:
        running.make_key("shop")
        yield running


@pytest.fixture(params=["fake", "real"])
def keys(request: pytest.FixtureRequest, vault: FakeVault) -> VaultMasterKeys:
    """Of a transit key that exists. The real one: an OpenBao of ours, or C360_TEST_VAULT="URL TOKEN", such as
    "vault+http://…/transit/shop root"."""
    if request.param == "fake":
        return VaultMasterKeys(vault.url, lambda: TOKEN)
    if (real := os.environ.get("C360_TEST_VAULT")) is not None:
        url, token = real.split()
        return VaultMasterKeys(url, lambda: token)
    running: openbao_server.OpenBao = request.getfixturevalue("openbao")
    return VaultMasterKeys(running.url("shop"), lambda: openbao_server.ROOT)


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


# ----------------------------------------------------------------------------------------- what only the real one shows
def allowed(key: str) -> dict[str, list[str]]:
    """What docs/sealing.md says that a token needs."""
    needed = {f"transit/keys/{key}": ["read"], f"transit/keys/{key}/rotate": ["update"]}
    return needed | {f"transit/{what}/{key}": ["update"] for what in ("encrypt", "decrypt", "rewrap")}


def test_a_token_needs_no_more_than_the_page_says(openbao: openbao_server.OpenBao) -> None:
    openbao.make_key("least")
    token = openbao.token(allowed("least"))
    keys = VaultMasterKeys(openbao.url("least"), lambda: token)
    wrapped = keys.wrap(SECRETS)
    assert keys.rotate() == "vault:v2"
    assert {generation(text or "") for text in keys.rewrap(wrapped)} == {"vault:v2"}
    assert keys.unwrap(wrapped) == SECRETS


@pytest.mark.parametrize("missing", sorted(allowed("less")))
def test_each_permission_that_a_token_lacks_is_named(openbao: openbao_server.OpenBao, missing: str) -> None:
    openbao.make_key("less")
    token = openbao.token({path: what for path, what in allowed("less").items() if path != missing})

    def use() -> None:
        keys = VaultMasterKeys(openbao.url("less"), lambda: token)
        keys.unwrap(keys.wrap(SECRETS))
        keys.rewrap(keys.wrap(SECRETS))
        keys.rotate()

    with pytest.raises(UsageError, match=f"token may not (GET|POST) {missing} ") as refused:
        use()
    assert token not in str(refused.value)


def test_a_real_key_that_is_not_there_is_refused_and_not_made(openbao: openbao_server.OpenBao) -> None:
    for url in (openbao.url("shpo"), openbao.url("shop", "tarnsit")):
        with pytest.raises(UsageError, match="has no transit key"):
            VaultMasterKeys(url, lambda: openbao_server.ROOT)
    assert "shpo" not in openbao.ask("LIST", "transit/keys")["data"]["keys"]


@pytest.mark.parametrize("how", [{"type": "ed25519"}, {"type": "hmac", "key_size": 32}, {"derived": True}], ids=str)
def test_a_real_key_that_cannot_wrap_is_refused(openbao: openbao_server.OpenBao, how: dict[str, Any]) -> None:
    name = f"odd-{'-'.join(map(str, how.values())).lower()}"
    openbao.make_key(name, **how)
    keys = VaultMasterKeys(openbao.url(name), lambda: openbao_server.ROOT)
    with pytest.raises(UsageError, match=r"cannot encrypt|did not wrap"):
        keys.wrap(SECRETS)


def test_a_real_token_that_is_revoked_is_named(openbao: openbao_server.OpenBao) -> None:
    token = openbao.token(allowed("shop"))
    keys = VaultMasterKeys(openbao.url("shop"), lambda: token)
    openbao.ask("POST", "auth/token/revoke", {"token": token})
    with pytest.raises(UsageError, match="has expired: renew it") as refused:
        keys.wrap(SECRETS)
    assert token not in str(refused.value)


def test_versions_that_are_retired_at_the_service_open_no_more_and_do_no_harm_to_others(
    openbao: openbao_server.OpenBao,
) -> None:
    openbao.make_key("old")
    keys = VaultMasterKeys(openbao.url("old"), lambda: openbao_server.ROOT)
    first = keys.wrap(SECRETS)
    keys.rotate()
    second = keys.wrap(SECRETS)
    openbao.ask("POST", "transit/keys/old/config", {"min_decryption_version": 2})
    assert keys.unwrap([*first, *second]) == [None, None, None, *SECRETS]
    assert keys.rewrap(first) == [None, None, None]


def test_a_real_service_that_is_sealed_is_waited_for(openbao: openbao_server.OpenBao) -> None:
    keys = VaultMasterKeys(openbao.url("shop"), lambda: openbao_server.ROOT)
    wrapped = keys.wrap(SECRETS)
    openbao.seal()
    try:
        with pytest.raises(ServiceAway, match="status 503"):
            keys.unwrap(wrapped)
        with pytest.raises(ServiceAway, match="status 503"):
            VaultMasterKeys(openbao.url("shop"), lambda: openbao_server.ROOT)
    finally:
        openbao.unseal()
    assert keys.unwrap(wrapped) == SECRETS


def test_the_fake_refuses_as_many_at_once_as_the_real_one(openbao: openbao_server.OpenBao, vault: FakeVault) -> None:
    real, fake = (
        VaultMasterKeys(openbao.url("shop"), lambda: openbao_server.ROOT),
        VaultMasterKeys(vault.url, lambda: TOKEN),
    )
    for keys in (real, fake):
        for count, said in ((499, 200), (500, 400)):
            items = [{"plaintext": "AAAA"}] * count
            assert keys._ask("POST", "encrypt/shop", {"batch_input": items})[0] == said, (keys, count)


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
