# SPDX-License-Identifier: Apache-2.0
"""The probe's own connection, beside those of the sources that draw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import grpc

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.protocol.wire import Question, UnreadableAnswerError
from qr_sampler_grpc.settings import GrpcOptions

__all__ = ["is_reachable", "open_channel", "repeats_sequence_ids"]

_OPTIONS: Final = (
    # Enough for every case, and a server that would answer anything cannot fill the memory.
    ("grpc.max_receive_message_length", 4 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
)
_SEQUENCE_ID: Final = 7_000_000_007
_MS_PER_S: Final = 1000.0


@contextlib.contextmanager
def open_channel(options: GrpcOptions) -> Iterator[grpc.Channel]:
    """Yields a channel to the server; connects when it is used first.

    Raises:
        ConfigError: When a file of TLS has become unreadable.
    """
    target, tls = options.address.target, options.tls
    if tls is None:
        channel = grpc.insecure_channel(target, options=_OPTIONS)
    else:
        try:
            credentials = tls.credentials()
        except OSError as error:
            raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
        channel = grpc.secure_channel(target, credentials, options=_OPTIONS)
    with channel:
        yield channel


def is_reachable(channel: grpc.Channel, options: GrpcOptions) -> bool:
    """Returns whether anything answers, even with a refusal."""
    check: Callable[..., bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
    try:
        check(b"", timeout=options.timeout_ms / _MS_PER_S)
    except grpc.RpcError as error:
        return error.code() not in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )
    return True


def repeats_sequence_ids(channel: grpc.Channel, options: GrpcOptions) -> bool | None:
    """Returns whether an answer names its request; asks for one byte in its own call.

    Args:
        channel: Connection to the server.
        options: How it is asked; in the mode ``unary``.

    Returns:
        ``None`` where the contract has no place for it, or there was no answer.
    """
    contract = options.contract
    if not contract.names_requests:
        return None
    ask: Callable[..., bytes] = channel.unary_unary(contract.method_path)
    question = contract.wire.encode(Question(bytes_needed=1, sequence_id=_SEQUENCE_ID))
    metadata = options.credentials.metadata if options.credentials else ()
    try:
        message = ask(question, timeout=options.timeout_ms / _MS_PER_S, metadata=metadata)
        return contract.wire.decode(message).sequence_id == _SEQUENCE_ID
    except (grpc.RpcError, UnreadableAnswerError):
        # The modes report what is wrong; there is nothing to learn here.
        return None
