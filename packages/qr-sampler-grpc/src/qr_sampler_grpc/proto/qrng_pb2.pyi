from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RandomRequest(_message.Message):
    __slots__ = ("num_bytes",)
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    num_bytes: int
    def __init__(self, num_bytes: _Optional[int] = ...) -> None: ...

class RandomResponse(_message.Message):
    __slots__ = ("data", "timestamp", "device_id")
    DATA_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    timestamp: int
    device_id: str
    def __init__(self, data: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., device_id: _Optional[str] = ...) -> None: ...
