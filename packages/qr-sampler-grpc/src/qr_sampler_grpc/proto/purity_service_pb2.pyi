from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class DrawRequest(_message.Message):
    __slots__ = ("sequence_id", "source_id", "block_bytes")
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    sequence_id: int
    source_id: str
    block_bytes: int
    def __init__(self, sequence_id: _Optional[int] = ..., source_id: _Optional[str] = ..., block_bytes: _Optional[int] = ...) -> None: ...

class DrawResponse(_message.Message):
    __slots__ = ("u", "z", "sequence_id", "generation_timestamp_ns", "source_id", "coherence_z", "coherence_valid", "purity_label", "integrated_bytes", "integrator", "coherence_r")
    U_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    COHERENCE_Z_FIELD_NUMBER: _ClassVar[int]
    COHERENCE_VALID_FIELD_NUMBER: _ClassVar[int]
    PURITY_LABEL_FIELD_NUMBER: _ClassVar[int]
    INTEGRATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    INTEGRATOR_FIELD_NUMBER: _ClassVar[int]
    COHERENCE_R_FIELD_NUMBER: _ClassVar[int]
    u: float
    z: float
    sequence_id: int
    generation_timestamp_ns: int
    source_id: str
    coherence_z: float
    coherence_valid: bool
    purity_label: str
    integrated_bytes: int
    integrator: str
    coherence_r: float
    def __init__(self, u: _Optional[float] = ..., z: _Optional[float] = ..., sequence_id: _Optional[int] = ..., generation_timestamp_ns: _Optional[int] = ..., source_id: _Optional[str] = ..., coherence_z: _Optional[float] = ..., coherence_valid: bool = ..., purity_label: _Optional[str] = ..., integrated_bytes: _Optional[int] = ..., integrator: _Optional[str] = ..., coherence_r: _Optional[float] = ...) -> None: ...
