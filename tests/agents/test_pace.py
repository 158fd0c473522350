"""How often the loops of a worker commit, by what the app has."""

from __future__ import annotations

from c360 import App
from c360.assembly import MANY_HOPS_SHARE, Worker
from c360.engine.loop import LoopSettings
from c360.engine.memory import MemoryCluster
from c360.governance.keys import LocalMasterKeys
from c360.governance.sealing import KEY_BYTES
from c360.ops import topics
from c360.ops.keys import make_secret_once
from c360.tables.store import MemoryStores
from examples.shop.app import app as shop


def shares(app: App, settings: LoopSettings) -> set[float]:
    """The part of its time that each loop may spend in commits."""
    plan, cluster, master = app.plan(), MemoryCluster(), LocalMasterKeys([bytes(KEY_BYTES)])
    topics.apply(plan, cluster.admin())
    make_secret_once(plan, cluster, master, bytes)
    worker = Worker(plan, cluster, MemoryStores(), "one", settings=settings, master=master)
    worker.prepare()
    found = {loop.settings.commit_share for loop in worker.loops}
    for loop in worker.loops:
        loop.close()
    return found


def test_loops_between_which_a_merge_goes_to_and_fro_commit_more_often() -> None:
    usual = LoopSettings()
    assert shares(shop, usual) == {MANY_HOPS_SHARE}
    assert usual.commit_share < MANY_HOPS_SHARE
    assert shares(shop, LoopSettings(commit_share=0.0)) == {0.0}, "turned off stays turned off"
