from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Call(_message.Message):
    __slots__ = ("id", "customer", "kind", "seconds", "leg")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        IN: _ClassVar[Call.Kind]
        OUT: _ClassVar[Call.Kind]
    IN: Call.Kind
    OUT: Call.Kind
    class Leg(_message.Message):
        __slots__ = ("to",)
        TO_FIELD_NUMBER: _ClassVar[int]
        to: str
        def __init__(self, to: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEG_FIELD_NUMBER: _ClassVar[int]
    id: str
    customer: str
    kind: Call.Kind
    seconds: int
    leg: _containers.RepeatedCompositeFieldContainer[Call.Leg]
    def __init__(self, id: _Optional[str] = ..., customer: _Optional[str] = ..., kind: _Optional[_Union[Call.Kind, str]] = ..., seconds: _Optional[int] = ..., leg: _Optional[_Iterable[_Union[Call.Leg, _Mapping]]] = ...) -> None: ...
