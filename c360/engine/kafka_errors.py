"""Kafka's error codes and flags to remedies: the one table of the engine page, for every client.

Knows codes; knows neither topics nor agents. No text of an error carries a record's bytes.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from c360.errors import (
    BrokerAway,
    C360Error,
    EngineFatal,
    Evicted,
    NeedsOperator,
    OutcomeUnknown,
    OutOfLog,
    Replaced,
    TaskMigrated,
    TransactionAborted,
)

FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
NOT_A_MEMBER: Final = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID}
)
# How a consumer says that another has its static id: the code of what was fatal is only in the text.
INSTANCE_FENCED: Final = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
# The same records would fail again and again: aborting for ever is no remedy.
UNMENDABLE: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD}
)
FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
OUT_OF_LOG: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
# Mended by time: brokers and coordinators move, metadata spreads, a late poll is followed by `lost`.
AWAY: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError._WAIT_CACHE,
        KafkaError._NODE_UPDATE,
        KafkaError._DESTROY_BROKER,
        KafkaError._RETRY,
        KafkaError._INTR,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.FETCH_SESSION_ID_NOT_FOUND,
        KafkaError.INVALID_FETCH_SESSION_EPOCH,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
    }
)


def remedy(error: KafkaError, doing: str, *, deciding: bool = False) -> C360Error:
    """The error to raise for what a client reported while `doing` something.

    `deciding`: a commit or an abort was under way. If it may still happen, nobody knows how it ended (OutcomeUnknown).
    Without a flag and without a known code: EngineFatal, as nothing is known to mend it.
    """
    code = error.code()
    text = f"{doing}: {error.str()} ({error.name()})"
    if code in UNMENDABLE:
        return EngineFatal(text)
    if code in FORBIDDEN:
        return NeedsOperator(f"{text}. The broker has not given this user the right: see docs/operations/access.md")
    if error.txn_requires_abort():  # of a generation that is over: the group has moved on, perhaps with this member
        out = code in NOT_A_MEMBER and code != KafkaError.ILLEGAL_GENERATION
        return TaskMigrated(text) if out else TransactionAborted(text)
    if code == KafkaError._FATAL and INSTANCE_FENCED in error.str():
        return Replaced(text)
    if code in FENCED:
        return Evicted(text)
    if error.fatal():
        return EngineFatal(text)
    if code in NOT_A_MEMBER:
        return TaskMigrated(text)
    if code in OUT_OF_LOG:
        return OutOfLog(text)
    if error.retriable() or code in AWAY:
        return OutcomeUnknown(text) if deciding else BrokerAway(text)
    return EngineFatal(text)


def error_of(raised: KafkaException) -> KafkaError:
    """The error inside a client's exception."""
    error = raised.args[0]
    assert isinstance(error, KafkaError)
    return error


def remedy_of(raised: KafkaException, doing: str, *, deciding: bool = False) -> C360Error:
    """`remedy` of what a client raised."""
    return remedy(error_of(raised), doing, deciding=deciding)
