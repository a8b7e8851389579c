# SPDX-License-Identifier: Apache-2.0
"""What the author of a host provides so that its contract can be checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qr_sampler.entropy.source import EntropySource
from qr_sampler.settings import Settings

__all__ = ["HostDriver", "HostRequest", "OnToken", "StartHost"]

OnToken = Callable[[int, int], object]
"""Called with the index of a request and a token that is handed to whoever reads its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRequest:
    """One text that a host is asked for."""

    max_tokens: int
    """Number of tokens after which it ends, unless an end token comes first."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Its ``qr_*`` keys, ``qr_request_key`` among them."""
    prompt_tokens: int = 3
    """Number of tokens of its prompt; which ones is the driver's choice."""
    abort_after: int | None = None
    """Number of emitted tokens after which the host drops it, before it has ended; ``None`` to let
    it end."""
    throw_away_after: int | None = None
    """Number of emitted tokens after which the host samples one for it that it throws away, as of
    an unfinished prefill or a rejected draft, and goes on; ``None`` for never."""


class HostDriver(ABC):
    """One run of a host: an engine with a session of its own, from its genesis to its end.

    Two methods must be overridden: :meth:`generate` and :meth:`close`; :attr:`logits_times_ns`
    where the host can tell when its logits are complete.
    """

    @abstractmethod
    def generate(
        self, requests: Sequence[HostRequest], on_token: OnToken
    ) -> Sequence[Sequence[int]]:
        """Generates the texts of *requests* and returns their tokens, as the engine has them.

        They are one batch where the engine has batches. May be called again, and from two threads
        at once unless that is not applicable.

        Args:
            requests: What is asked for.
            on_token: Called for every token when it is handed to whoever reads the text, the token
                that ends it included. What it raises ends the generation as an error in a streamer
                does, and this method raises it.

        Raises:
            EntropyUnavailableError: If the source fails and the settings say ``error``.
            ConfigError: If the options of a request cannot be served; before anything is drawn.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the run and its ledger, as the end of a ``with`` block or of a process does."""

    @property
    def logits_times_ns(self) -> Sequence[int]:
        """When the logits of each step were complete, in order, by ``time.monotonic_ns()``.

        To be learnt from the engine, before the host's adapter sees them: a hook on the model.
        Steps whose logits decide no token may be left out. After the last draw of a text they have
        to be, but for as many as its ``late_steps``.
        """
        return ()


StartHost = Callable[[Settings, Mapping[str, EntropySource]], HostDriver]
"""Starts a host with the settings of its deployment and the sources that these name, by name; both
go to :class:`~qr_sampler.host.SamplingSession` as they are, the sources as ``own_sources``. The
engine itself may be the same every time."""
