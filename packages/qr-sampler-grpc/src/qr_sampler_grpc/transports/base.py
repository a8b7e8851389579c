# SPDX-License-Identifier: Apache-2.0
"""What all transports have in common: the contract, the time limit and the parts of an answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qr_sampler_grpc.channel import Channel
from qr_sampler_grpc.settings import GrpcOptions
from qr_sampler_grpc.wire import Answer

__all__ = [
    "AnswerParts",
    "Attempt",
    "ChannelTransport",
    "DeadlineLapsedError",
    "Request",
    "Transport",
    "UnfitAnswerError",
    "stray",
    "unchanged",
]

_NS_PER_S: Final = 1_000_000_000


class DeadlineLapsedError(Exception):
    """The time of a draw is used up."""


class UnfitAnswerError(Exception):
    """An answer that arrived is not the one to its request, or not all of it; it was dropped."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is ready to leave."""

    sequence_id: int
    """Its name."""
    bytes_needed: int
    """How many bytes it asks for."""
    message: bytes
    """The serialised message."""


@dataclass(slots=True)
class Attempt:
    """One attempt at a draw."""

    deadline_ns: int
    """``time.monotonic_ns()`` of the moment until which it may take."""
    received_bytes: int = 0
    """How many random bytes have arrived, whatever became of them."""

    def remaining_s(self) -> float:
        """Returns how many seconds are left, more than none.

        Raises:
            DeadlineLapsedError: When none are.
        """
        remaining_ns = self.deadline_ns - time.monotonic_ns()
        if remaining_ns <= 0:
            raise DeadlineLapsedError
        return remaining_ns / _NS_PER_S


class Transport(Protocol):
    """Carries requests to the server and answers back.

    Threads may share an instance. An answer that arrives after its deadline is dropped, so it can
    never be taken for the answer to a later request. An instance belongs to one process.
    """

    def answers(self, requests: Sequence[Request], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answer to each of *requests*, in their order and of their length.

        Nothing is asked for before the first one is awaited. A caller that stops early drops the
        rest.

        Raises:
            grpc.RpcError: When a call ends with another status than OK.
            DeadlineLapsedError: When the time is used up.
            UnfitAnswerError: When an answer is not that to its request.
            UnreadableAnswerError: When an answer is none.
            ChannelUnusableError: When no connection can be made from this process.
            ValueError: When another thread closed the channel as a call began.
        """
        ...

    def close(self) -> None:
        """Ends calls under way and releases the connection. May be called more than once."""
        ...


class ChannelTransport:
    """What every transport over a gRPC channel needs; nothing is opened yet.

    Args:
        options: How to reach the server.
        aio: Whether the channel is one of gRPC's asyncio interface.
    """

    def __init__(self, options: GrpcOptions, *, aio: bool = False) -> None:
        contract, credentials = options.contract, options.credentials
        self._channel = Channel(options.address, options.tls, aio=aio)
        self._path = contract.method_path
        self._wire = contract.wire
        self._metadata = credentials.metadata if credentials else ()

    def close(self) -> None:
        """Closes the channel and cancels its calls."""
        self._channel.close()


class AnswerParts:
    """Puts the answer to one request together from the messages that it comes in.

    Args:
        request: What was asked.
        attempt: The attempt that it belongs to; learns how many bytes have arrived.
    """

    def __init__(self, request: Request, attempt: Attempt) -> None:
        self._request = request
        self._attempt = attempt
        self._parts: list[Answer] = []
        self._received = 0

    def add(self, answer: Answer) -> bool:
        """Takes the next message and returns whether all has arrived.

        Raises:
            UnfitAnswerError: When it names another request, is empty, or holds too much.
        """
        wanted = self._request
        self._attempt.received_bytes += len(answer.data)
        if answer.sequence_id not in (None, 0, wanted.sequence_id):
            raise UnfitAnswerError(
                f"the answer names request {answer.sequence_id}, but {wanted.sequence_id} was sent"
            )
        self._parts.append(answer)
        self._received += len(answer.data)
        if self._received > wanted.bytes_needed or not len(answer.data):
            raise self.unfit()
        return self._received == wanted.bytes_needed

    def add_all(self, answer: Answer) -> Answer:
        """Returns *answer*, which has to be all of it.

        Raises:
            UnfitAnswerError: When it is not.
        """
        if not self.add(answer):
            raise self.unfit()
        return answer

    @property
    def whole(self) -> Answer:
        """The answer. The last message speaks for all of them."""
        if len(self._parts) == 1:
            return self._parts[0]
        data = b"".join(part.data for part in self._parts)
        return dataclasses.replace(self._parts[-1], data=data)

    def unfit(self) -> UnfitAnswerError:
        """Returns the error of an answer of another length than was asked for."""
        return UnfitAnswerError(
            f"asked for {self._request.bytes_needed} bytes, received {self._received}"
        )


def stray(sequence_id: int) -> UnfitAnswerError:
    """Returns the error of an answer on a stream to a request that nobody has sent there."""
    if not sequence_id:
        return UnfitAnswerError(
            "the server does not repeat the sequence_id, without which a stream cannot be trusted; "
            "use the mode server_streaming or unary"
        )
    return UnfitAnswerError(f"the answer names request {sequence_id}, which nobody waits for")


def unchanged(message: bytes) -> bytes:
    """Returns *message*: requests are encoded and answers decoded elsewhere."""
    return message
