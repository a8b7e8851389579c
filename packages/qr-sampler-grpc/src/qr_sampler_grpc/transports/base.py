# SPDX-License-Identifier: Apache-2.0
"""What all transports have in common: the contract, the time limit and the parts of an answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qr_sampler_grpc.connection.channel import Channel
from qr_sampler_grpc.protocol.wire import Answer
from qr_sampler_grpc.settings import GrpcOptions

__all__ = [
    "AnswerParts",
    "Attempt",
    "ChannelTransport",
    "DeadlineLapsedError",
    "PreparedRequest",
    "StrayAnswerError",
    "Transport",
    "UnfitAnswerError",
    "stray",
]

_NS_PER_S: Final = 1_000_000_000
_LAPSES_BEFORE_RENEWAL: Final = 2
"""One lapse may be a slow answer; on a dead path every draw lapses. A new connection that takes
longer than a draw may is still being made when the next draw comes."""


class DeadlineLapsedError(Exception):
    """The time of a draw is used up."""


class UnfitAnswerError(Exception):
    """An answer that arrived is not the one to its request, or not all of it; it was dropped."""


class StrayAnswerError(UnfitAnswerError):
    """An answer on a stream to a request that was not sent on it."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is ready to leave."""

    sequence_id: int
    """Its name, which cannot be predicted before the request has left."""
    bytes_needed: int
    """How many bytes it asks for."""
    message: bytes
    """The serialised message."""


@dataclass(slots=True)
class Attempt:
    """One attempt at a draw."""

    deadline_ns: int
    """Its deadline, in ``time.monotonic_ns()``."""
    received_bytes: int = 0
    """How many random bytes have arrived, used or not."""

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

    def answers(self, requests: Sequence[PreparedRequest], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answer to each of *requests*, in their order and of their length.

        Nothing is asked for before the first one is awaited. A caller that stops early drops the
        rest.

        Raises:
            grpc.RpcError: When a call ends with another status than OK.
            DeadlineLapsedError: When the time is used up.
            UnfitAnswerError: When an answer is not that to its request.
            UnreadableAnswerError: When an answer cannot be read.
            ChannelUnusableError: When no connection can be made from this process.
            ValueError: When another thread closed the channel as a call began.
        """
        ...

    def note_end(self, *, lapsed: bool) -> None:
        """Notes how an attempt ended; after lapses in a row, the next one has a new connection.

        A connection that silently swallows what it is given is never reported broken, so it would
        be kept for as long as the process lives.

        Args:
            lapsed: Whether its time was used up.
        """
        ...

    def close(self) -> None:
        """Ends calls under way and releases the connection. May be called more than once."""
        ...


class ChannelTransport:
    """What every transport over a gRPC channel needs; nothing is opened yet.

    Args:
        options: How to reach the server, and by which of gRPC's interfaces.
    """

    def __init__(self, options: GrpcOptions) -> None:
        contract, credentials = options.contract, options.credentials
        self._channel = Channel(
            options.address,
            options.tls,
            max_message_bytes=contract.max_answer_bytes,
            aio=options.stubs == "aio",
        )
        self._path = contract.method_path
        self._wire = contract.wire
        self._metadata = credentials.metadata if credentials else ()
        self._lapses_in_a_row = 0

    def note_end(self, *, lapsed: bool) -> None:
        """Notes how an attempt ended; see :class:`Transport`."""
        if not lapsed:
            self._lapses_in_a_row = 0
            return
        self._lapses_in_a_row += 1
        if self._lapses_in_a_row >= _LAPSES_BEFORE_RENEWAL:
            self._lapses_in_a_row = 0
            self.close()

    def close(self) -> None:
        """Closes the channel and cancels its calls."""
        self._channel.close()


class AnswerParts:
    """Puts the answer to one request together from the messages that it comes in.

    Args:
        request: What was asked.
        attempt: The attempt that it belongs to; learns how many bytes have arrived.
    """

    def __init__(self, request: PreparedRequest, attempt: Attempt) -> None:
        self._request = request
        self._attempt = attempt
        self._pieces: list[bytes] = []
        self._last = Answer(data=b"")
        self._received = 0

    def add(self, answer: Answer) -> bool:
        """Takes the next message and returns whether all has arrived.

        Raises:
            UnfitAnswerError: When it names another request, is empty or flawed, or holds too much.
        """
        request = self._request
        self._attempt.received_bytes += len(answer.data)
        if answer.sequence_id not in (None, 0, request.sequence_id):
            raise UnfitAnswerError(
                f"the answer names request {answer.sequence_id}, but {request.sequence_id} was sent"
            )
        if answer.flaw:
            raise UnfitAnswerError(answer.flaw)
        self._last = answer
        self._pieces.append(answer.data)
        self._received += len(answer.data)
        if self._received > request.bytes_needed or not len(answer.data):
            raise self.unfit()
        return self._received == request.bytes_needed

    def waste(self, answer: Answer) -> None:
        """Counts an answer to no request among what the attempt has received."""
        self._attempt.received_bytes += len(answer.data)

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
        if len(self._pieces) == 1:
            return self._last
        return dataclasses.replace(self._last, data=b"".join(self._pieces))

    def unfit(self) -> UnfitAnswerError:
        """Returns the error of an answer of the wrong length."""
        return UnfitAnswerError(
            f"asked for {self._request.bytes_needed} bytes, received {self._received}"
        )


def stray(sequence_id: int) -> StrayAnswerError:
    """Returns the error of an answer on a stream to a request that was not sent on it."""
    if not sequence_id:
        return StrayAnswerError(
            "the server does not repeat the sequence_id, without which a stream cannot be trusted; "
            "use the mode server_streaming or unary"
        )
    return StrayAnswerError(f"the answer names request {sequence_id}, which nobody waits for")
