from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class BytesRequest(_message.Message):
    __slots__ = ("bytes_needed",)
    BYTES_NEEDED_FIELD_NUMBER: _ClassVar[int]
    bytes_needed: int
    def __init__(self, bytes_needed: _Optional[int] = ...) -> None: ...

class BytesResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...
