"""What raw topics still retain, by the schema that wrote it: one record of each is decoded as govern does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from c360.agents.govern import decoder_of
from c360.codecs.avro import MAGIC, MAGIC_GUID, VALUE_ID, Registry, SchemaRef, framed
from c360.codecs.debezium import DebeziumDecoder
from c360.declare import Source
from c360.engine.transport import TP, Batch, Cluster, Headers
from c360.errors import Misfit, RegistryAway, Shut
from c360.plan import Plan

NAMING = ("avro", "protobuf")  # formats whose values name schemas
Progress = Callable[[str, int, int | None], None]
"""What is done, how much of it, of how much."""


@dataclass
class Sample:
    """The first retained record of one schema, and how many records there are of it. `schema` None: the value names none."""

    schema: SchemaRef | None
    tp: TP
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    records: int = 1


@dataclass(frozen=True)
class Replayed:
    """What became of a sample. `reason`, `message`: of the misfit that it is; None: it is none."""

    topic: str
    sample: Sample
    reason: str | None = None
    message: str | None = None


def replay(
    plan: Plan, cluster: Cluster, registry: Registry, progress: Progress = lambda what, done, total: None
) -> tuple[list[Replayed], list[str]]:
    """All raw topics whose values name schemas, and notes on those that are not there. Raises BrokerAway; RegistryAway."""
    sources = [source for source in plan.sources if source.format in NAMING or source.kind == "rows"]
    existing = cluster.admin().topics()
    found: list[Replayed] = []
    notes = [f"{source.topic}: there is no such topic yet" for source in sources if source.topic not in existing]
    samples = {
        topic: _samples(cluster, topic, existing[topic], progress)
        for topic in dict.fromkeys(source.topic for source in sources if source.topic in existing)
    }
    for source in sources:
        for sample in samples.get(source.topic, {}).values():
            if source.format in NAMING or sample.schema is not None:  # rows are also JSON
                found.append(_decoded(source, sample, registry))
    return found, notes


def _samples(cluster: Cluster, topic: str, partitions: int, progress: Progress) -> dict[SchemaRef | None, Sample]:
    """By schema, in the order in which they are met."""
    reader = cluster.reader()
    found: dict[SchemaRef | None, Sample] = {}
    try:
        of = [TP(topic, partition) for partition in range(partitions)]
        starts, ends = reader.starts(of), reader.ends(of)
        total = sum(ends.values()) - sum(starts.values())
        at = dict(starts)
        for batches in reader.read(starts, ends):
            for batch in batches:
                _look(batch, found)
                at[batch.tp] = batch.offsets[-1] + 1
            progress(topic, sum(at.values()) - sum(starts.values()), total)
    finally:
        reader.close()
    return found


def _look(batch: Batch, found: dict[SchemaRef | None, Sample]) -> None:
    for i, value in enumerate(batch.values):
        if not value:
            continue
        headers = batch.headers(i)
        ref = _schema(value, headers)
        known = found.get(ref)
        if known is None:
            found[ref] = Sample(ref, batch.tp, batch.offsets[i], batch.keys[i], value, headers)
        else:
            known.records += 1


def _schema(value: bytes, headers: Headers) -> SchemaRef | None:
    if value[0] not in (MAGIC, MAGIC_GUID) and not any(name == VALUE_ID for name, _ in headers):
        return None
    try:
        return framed(value, headers, indexed=True)[0]
    except Misfit:
        return None


def _decoded(source: Source, sample: Sample, registry: Registry) -> Replayed:
    decoder = decoder_of(source, registry)
    made: object
    try:
        if isinstance(decoder, DebeziumDecoder):
            (made,) = decoder.decode([sample.value], [sample.key], lambda i: sample.headers)
        else:
            (made,) = decoder.decode([sample.value], lambda i: sample.headers)
    except Shut as shut:
        raise RegistryAway(str(shut)) from shut
    if isinstance(made, Misfit):
        return Replayed(source.topic, sample, made.reason, str(made))
    return Replayed(source.topic, sample)
