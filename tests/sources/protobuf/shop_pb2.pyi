import datetime

from confluent_kafka.schema_registry.confluent.type import decimal_pb2 as _decimal_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.type import date_pb2 as _date_pb2
from google.type import decimal_pb2 as _decimal_pb2_1
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    NEW: _ClassVar[State]
    PAID: _ClassVar[State]
STATE_UNSPECIFIED: State
NEW: State
PAID: State

class Order(_message.Message):
    __slots__ = ("id", "customer", "amount", "placed", "day", "state", "where", "lines")
    class Line(_message.Message):
        __slots__ = ("sku", "cents")
        SKU_FIELD_NUMBER: _ClassVar[int]
        CENTS_FIELD_NUMBER: _ClassVar[int]
        sku: str
        cents: int
        def __init__(self, sku: _Optional[str] = ..., cents: _Optional[int] = ...) -> None: ...
    class Place(_message.Message):
        __slots__ = ("city",)
        CITY_FIELD_NUMBER: _ClassVar[int]
        city: str
        def __init__(self, city: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    id: str
    customer: int
    amount: _decimal_pb2_1.Decimal
    placed: _timestamp_pb2.Timestamp
    day: _date_pb2.Date
    state: State
    where: Order.Place
    lines: _containers.RepeatedCompositeFieldContainer[Order.Line]
    def __init__(self, id: _Optional[str] = ..., customer: _Optional[int] = ..., amount: _Optional[_Union[_decimal_pb2_1.Decimal, _Mapping]] = ..., placed: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., day: _Optional[_Union[_date_pb2.Date, _Mapping]] = ..., state: _Optional[_Union[State, str]] = ..., where: _Optional[_Union[Order.Place, _Mapping]] = ..., lines: _Optional[_Iterable[_Union[Order.Line, _Mapping]]] = ...) -> None: ...

class Refund(_message.Message):
    __slots__ = ("id", "customer", "amount", "placed")
    ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    id: str
    customer: int
    amount: _decimal_pb2.Decimal
    placed: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., customer: _Optional[int] = ..., amount: _Optional[_Union[_decimal_pb2.Decimal, _Mapping]] = ..., placed: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Everything(_message.Message):
    __slots__ = ("counted", "customer", "rate", "part", "ok", "blob", "large", "signed", "fixed", "maybe", "states", "named", "lines", "answers", "card", "cash", "took", "note", "count", "agreed", "extra", "any", "exact", "tree", "list", "ratio", "raw", "placed_ms", "times")
    class CountedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class Tree(_message.Message):
        __slots__ = ("name", "children")
        NAME_FIELD_NUMBER: _ClassVar[int]
        CHILDREN_FIELD_NUMBER: _ClassVar[int]
        name: str
        children: _containers.RepeatedCompositeFieldContainer[Everything.Tree]
        def __init__(self, name: _Optional[str] = ..., children: _Optional[_Iterable[_Union[Everything.Tree, _Mapping]]] = ...) -> None: ...
    class NamedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    class LinesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Order.Line
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Order.Line, _Mapping]] = ...) -> None: ...
    class AnswersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: bool
        value: str
        def __init__(self, key: _Optional[bool] = ..., value: _Optional[str] = ...) -> None: ...
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    LARGE_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    MAYBE_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    CASH_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    AGREED_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    PLACED_MS_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    counted: _containers.ScalarMap[str, int]
    customer: int
    rate: float
    part: float
    ok: bool
    blob: bytes
    large: int
    signed: int
    fixed: int
    maybe: int
    states: _containers.RepeatedScalarFieldContainer[State]
    named: _containers.ScalarMap[int, str]
    lines: _containers.MessageMap[str, Order.Line]
    answers: _containers.ScalarMap[bool, str]
    card: str
    cash: _decimal_pb2_1.Decimal
    took: _duration_pb2.Duration
    note: _wrappers_pb2.StringValue
    count: _wrappers_pb2.Int64Value
    agreed: _wrappers_pb2.BoolValue
    extra: _struct_pb2.Struct
    any: _struct_pb2.Value
    exact: _decimal_pb2.Decimal
    tree: Everything.Tree
    list: _struct_pb2.ListValue
    ratio: _wrappers_pb2.DoubleValue
    raw: _wrappers_pb2.BytesValue
    placed_ms: int
    times: _containers.RepeatedCompositeFieldContainer[_timestamp_pb2.Timestamp]
    def __init__(self, counted: _Optional[_Mapping[str, int]] = ..., customer: _Optional[int] = ..., rate: _Optional[float] = ..., part: _Optional[float] = ..., ok: _Optional[bool] = ..., blob: _Optional[bytes] = ..., large: _Optional[int] = ..., signed: _Optional[int] = ..., fixed: _Optional[int] = ..., maybe: _Optional[int] = ..., states: _Optional[_Iterable[_Union[State, str]]] = ..., named: _Optional[_Mapping[int, str]] = ..., lines: _Optional[_Mapping[str, Order.Line]] = ..., answers: _Optional[_Mapping[bool, str]] = ..., card: _Optional[str] = ..., cash: _Optional[_Union[_decimal_pb2_1.Decimal, _Mapping]] = ..., took: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., note: _Optional[_Union[_wrappers_pb2.StringValue, _Mapping]] = ..., count: _Optional[_Union[_wrappers_pb2.Int64Value, _Mapping]] = ..., agreed: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ..., extra: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., any: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., exact: _Optional[_Union[_decimal_pb2.Decimal, _Mapping]] = ..., tree: _Optional[_Union[Everything.Tree, _Mapping]] = ..., list: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., ratio: _Optional[_Union[_wrappers_pb2.DoubleValue, _Mapping]] = ..., raw: _Optional[_Union[_wrappers_pb2.BytesValue, _Mapping]] = ..., placed_ms: _Optional[int] = ..., times: _Optional[_Iterable[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]]] = ..., **kwargs) -> None: ...
