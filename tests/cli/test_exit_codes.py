"""What a command that cannot do its work exits with, and that it says what to do. No traceback, nothing on standard output."""

from __future__ import annotations

from pathlib import Path

import pytest

from c360.engine.memory import MemoryCluster
from c360.engine.transport import Admin
from c360.errors import BrokerAway
from c360.ops.demo import Demo
from c360.ops.demo import shop as shop_app
from c360.ops.slot import slot_in
from c360.tables.store import MemoryStores
from tests.cli.conftest import Shop
from tests.cli.tools import C360

SHOP = {"C360_APP": "examples.shop.app:app"}
NOWHERE = {**SHOP, "C360_BROKER": "127.0.0.1:1"}
BROKER = {**SHOP, "C360_BROKER": "127.0.0.1:9"}  # set, but the command ends before it is asked


@pytest.mark.parametrize(
    ("words", "settings", "code", "said"),
    [
        ("plan", {}, 2, "which app? Say `c360 -A module:app …` or set C360_APP"),
        ("-A nothing.here:app plan", {}, 2, "there is no module 'nothing.here' here"),
        ("-A examples.nothing plan", {}, 2, "there is no module 'examples.nothing' here"),
        ("-A examples.hello:nothing plan", {}, 2, "examples.hello has no c360.App named 'nothing'"),
        ("wroker", {}, 2, "there is no command 'wroker'; did you mean 'worker'?"),
        ("topics chek", {}, 2, "there is no command 'chek'; did you mean 'check'?"),
        ("dlq lsit", {}, 2, "there is no command 'lsit'; did you mean 'list'?"),
        ("dev kafak", {}, 2, "there is no command 'kafak'; did you mean 'kafka'?"),
        ("worker --onyl govern", {}, 2, "--only"),
        ("plan", {**SHOP, "C360_BROKR": "x:1"}, 2, "unknown setting C360_BROKR; did you mean C360_BROKER?"),
        ("topics check", SHOP, 2, "which broker? Set C360_BROKER=host:port, or start one here with `c360 dev kafka`"),
        ("topics check", {**BROKER, "C360_KAFKA_NO_SUCH": "1"}, 2, 'No such configuration property: "no.such"'),
        ("topics check", {**BROKER, "C360_KAFKA_GROUP_ID": "g"}, 2, "group.id: exactly-once processing rests on it"),
        ("worker --only nobody", BROKER, 2, "there is no agent 'nobody' in 'shop'; it has govern, identity@1, customer@1"),
        ("worker", {**BROKER, "C360_SLOT": "a b"}, 2, "a slot is letters"),
        ("worker", BROKER, 2, "so it needs its master key: set C360_KEYS to the file that has it"),
        ("worker", {**BROKER, "C360_KEYS": "no/such.keys"}, 2, "there is no master key file no/such.keys (C360_KEYS)"),
        ("worker", {**BROKER, "C360_KEYS": "vault+https://h/k"}, 2, "is no URL of a transit key"),
        ("worker", {**BROKER, "C360_KEYS": "vault+https://h/m/k"}, 2, "the key service wants a token"),
        ("profile email:ann@mail.org", BROKER, 2, "so it needs its master key"),
        ("identity show email:ann@mail.org", BROKER, 1, "Is C360_BROKER (or --broker) right"),
        ("keys init", SHOP, 2, "say where the master keys are, or are to be: set C360_KEYS"),
        ("keys init", {**SHOP, "C360_KEYS": "README.md"}, 2, "README.md exists already"),
        ("keys status", {**BROKER, "C360_KEYS": "README.md"}, 2, "the master key file README.md can be used by others"),
        ("keys rotate --new-only --wrap-only", BROKER, 2, "the two halves of it; for both, say neither"),
        ("worker --web-port 70000", BROKER, 2, "70000"),
        ("reset govern", BROKER, 2, "say where to: --to-earliest"),
        ("reset nobody --to-earliest", BROKER, 2, "there is no agent 'nobody' in 'shop'"),
        ("reset customer@1 --to-earliest --execute", BROKER, 2, "say why, for those who will ask: --reason TEXT"),
        ("reset nobody --to-earliest --execute --reason x", BROKER, 2, "there is no agent 'nobody' in 'shop'"),
        ("audit tial", BROKER, 2, "there is no command 'tial'; did you mean 'tail'?"),
        ("audit verify --heads no/such/file", BROKER, 2, "the file of heads no/such/file cannot be read"),
        ("verify nobody", BROKER, 2, "there is no agent 'nobody' in 'shop'"),
        ("profile 7", BROKER, 2, "'7' is not namespace:value; namespaces of 'shop' are crm, email, cookie"),
        ("profile crm:7 --projection nobody", BROKER, 2, "which projection? 'shop' has customer@1"),
        ("why crm:7 nothing", BROKER, 2, "customer@1 has no attribute 'nothing'; it has email, name, city"),
        ("identity shwo", SHOP, 2, "there is no command 'shwo'; did you mean 'show'?"),
        ("identity show crm:7 --rules risk", BROKER, 2, "there is no rule set 'risk' in 'shop'; it has default@1"),
        ("identity stats", {**BROKER, "C360_APP": "examples.hello:app"}, 2, "'hello' has no identity"),
        ("identity join crm:1 crm:2 --execute", BROKER, 2, "say why, for those who will ask: --reason TEXT"),
        ("identity diff --rules default --max-changed few", BROKER, 2, "'few' is no number of percent"),
        ("identity evaluate --records a.csv --truth b.csv", SHOP, 2, "say --source NAME"),
        ("identity evaluate --source web.clicks --records no/a.csv --truth README.md", SHOP, 2, "record_id and entity"),
        ("load", BROKER, 2, "FILES"),
        ("load no/such/file", BROKER, 2, "no/such/file"),
        ("load --rate 0 README.md", BROKER, 2, "--rate"),
        ("demo --json", {}, 2, "--once"),
        ("bench --events 1", {}, 2, "--events"),
        ("dev kafka --brokers 2", {}, 2, "--brokers"),
        ("topics check", NOWHERE, 1, "Is C360_BROKER (or --broker) right"),
    ],
)  # fmt: skip
def test_it_says_what_is_wrong(words: str, settings: dict[str, str], code: int, said: str, tmp_path: Path) -> None:
    ran = C360({**settings, "C360_STATE_DIR": str(tmp_path)})(*words.split())
    assert ran.code == code, ran.err
    assert said in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "is not JSON"),
        ("{}", 'a line is an object with "topic"'),
        ('{"topic": "t", "value_base64": "a"}', "is not base64"),
        ('{"topic": "t", "headers": [["alone"]]}', '"headers" is an object, or a list of [name, value]'),
        ('{"topic": "t", "headers": 5}', '"headers" is an object, or a list of [name, value]'),
    ],
)
def test_a_line_that_cannot_be_loaded_is_named(shop: Shop, line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "raw.jsonl"
    file.write_text(f"\n{line}\n")
    ran = shop.c360("load", str(file))
    assert (ran.code, ran.out) == (2, "")
    assert f"{file}:2" in ran.err
    assert said in ran.err


class Away(MemoryCluster):
    """A cluster whose brokers do not answer."""

    def admin(self) -> Admin:
        raise BrokerAway("asking for topics: nobody answers")


def test_a_demo_does_not_wait_for_a_broker_that_is_away() -> None:
    demo = Demo(shop_app().plan(), Away(), MemoryStores(), slot="demo")
    with pytest.raises(BrokerAway):
        demo.run_once(100, 7, 0, lambda glance: None)


def test_a_declaration_that_is_wrong_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from c360 import App\napp = App('not a name')\n")
    ran = C360(directory=tmp_path)("-A", "mine", "plan")
    assert (ran.code, ran.out) == (2, "")
    assert "not a name" in ran.err


def test_a_setting_in_the_project_s_file_is_read_and_a_misspelt_one_refused(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.c360]\napp = "examples.hello:app"\n')
    c360 = C360(directory=tmp_path)
    assert c360("plan", "--json").json["app"] == "hello"
    assert c360.having(C360_APP="examples.shop.app:app")("plan", "--json").json["app"] == "shop"
    file.write_text('[tool.c360]\nap = "examples.hello:app"\n')
    ran = c360("plan")
    assert (ran.code, ran.out) == (2, "")
    assert "pyproject.toml [tool.c360]: unknown setting 'ap'; did you mean app?" in ran.err


def test_a_state_directory_that_cannot_be_used_needs_an_operator(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = C360({**BROKER, "C360_STATE_DIR": str(tmp_path / "file")})("worker")
    assert ran.code == 4
    assert "the state directory" in ran.err


def test_a_state_directory_that_another_process_holds_is_left_to_it(state: Path) -> None:
    with slot_in(state, None):
        ran = C360({**BROKER, "C360_STATE_DIR": str(state)})("worker")
    assert ran.code == 3
    assert "in use by another worker: stop that one, or give this one its own C360_STATE_DIR" in ran.err


def test_what_is_not_there_is_false(shop: Shop) -> None:
    nobody = shop.c360("profile", "crm:none")
    assert (nobody.code, nobody.out) == (1, "no profile has crm:none\n")
    missing = shop.c360.having(C360_APP="examples.hello:app")("topics", "check")
    assert missing.code == 1
    assert "hello.dlq does not exist (3 partitions)" in missing.out
    letter = shop.c360("dlq", "show", "0/123456")
    assert (letter.code, letter.out) == (2, "")


def test_a_reset_without_execute_changes_nothing(shop: Shop) -> None:
    looks = ("reset customer@1 --to-earliest --json", "profile crm:1 --json")
    before = [shop.c360(*words.split()) for words in looks]
    dry = shop.c360("reset", "customer@1", "--to-earliest")
    assert dry.code == 0
    assert dry.out.endswith("nothing was changed; add --execute to do it\n")
    assert [shop.c360(*words.split()) for words in looks] == before
    planned = before[0].json
    assert not planned["executed"]
    assert planned["records"] > 0
    parts = "shop.customer.v1.parts"  # what tasks said to each other is not read again
    assert all(p["to"] == 0 for p in planned["positions"] if p["topic"] != parts)
    assert {p["topic"] for p in planned["positions"]} > {parts, "shop.assignments.v1"}


def test_a_reset_of_what_others_have_read_is_refused(shop: Shop) -> None:
    ran = shop.c360("reset", "govern", "--to-earliest", "--reason", "a test", "--execute")
    assert (ran.code, ran.out) == (4, "")
    assert "identity@1 has read what govern wrote and would see every record twice" in ran.err
