# SPDX-License-Identifier: Apache-2.0
"""The sampler of one ``Llama``."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from qr_sampler import ConfigError, EngineFields, EntropySource, Settings
from qr_sampler.admission.overrides import BYPASS_KEY, FOLLOW_KEY
from qr_sampler.errors import shown
from qr_sampler_local.llama_cpp.own_sampling import (
    LAST_CHOICE,
    check_own_sampling,
    engine_fields,
    switched_on,
)
from qr_sampler_local.llama_cpp.processor import SequenceProcessor
from qr_sampler_local.llama_cpp.request import Limits, Processor, SamplingRequest
from qr_sampler_local.llama_cpp.supported import REPLACED, check_llama
from qr_sampler_local.llama_cpp.turn import Turn
from qr_sampler_local.llama_cpp.vocabulary import Vocabulary, library_version
from qr_sampler_local.loop import LocalSampler, LocalSequence

__all__ = ["LlamaCppSampler"]

DISTRIBUTION: Final = "llama-cpp-python"


class LlamaCppSampler:
    """Chooses the tokens of whatever a ``llama_cpp.Llama`` generates.

    In its ``with`` block it stands in the place of ``Llama.generate`` and ``create_completion``,
    through which all completions, conversations and streams of that object go. It adds its logits
    processor as the last one and has llama.cpp take the largest logit, so that the chosen token is
    taken whatever the completion says.

    One thread uses it, as it does the ``Llama``; one sequence at a time, and several in turn.

    Args:
        llama: A ``llama_cpp.Llama``.
        settings: What to sample with; the environment's if not given.
        sources: Sources of the caller's own, by name or one after the other.

    Raises:
        ConfigError: When *llama* keeps all logits, has a draft model or has a sampler already, or
            a setting cannot be served.
        PluginError: When a configured source or its fallback is unknown, contested or broken.
    """

    def __init__(
        self,
        llama: Any,
        settings: Settings | None = None,
        *,
        sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None = None,
    ) -> None:
        check_llama(llama)
        self._llama = llama
        self._signature = inspect.signature(llama.generate)
        self._vocabulary = Vocabulary(llama)
        self._end_tokens = self._vocabulary.end_tokens()
        self._turn: Turn | None = None
        self.local = LocalSampler(
            Path(llama.model_path).name,
            settings,
            engine=f"{DISTRIBUTION} {library_version()}",
            model_files=llama.model_path,
            sources=sources,
            vocab_size=self._vocabulary.size,
            distributions=(DISTRIBUTION,),
        )
        """What chooses the tokens and keeps their records."""
        self._generate = llama.generate
        self._create_completion = llama.create_completion

    def __enter__(self) -> LlamaCppSampler:
        check_llama(self._llama)
        self._llama.generate = self.generate
        self._llama.create_completion = self.create_completion
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the ``Llama`` its own sampling back and ends the records.

        A second call does nothing.
        """
        for name in REPLACED:
            if vars(self._llama).get(name) == getattr(self, name):
                delattr(self._llama, name)
        self._end_turn()
        self.local.close()

    def request(self, *processors: Processor, **options: Any) -> SamplingRequest:
        """Returns what to pass as ``logits_processor`` to say how a completion is sampled.

        Args:
            *processors: Logits processors that act before the token is chosen.
            **options: Its ``qr_*`` keys, with or without that prefix.
        """
        keys = {key if key.startswith("qr_") else f"qr_{key}": options[key] for key in options}
        end = self._end_tokens[0] if self._end_tokens else 0
        return SamplingRequest(processors, keys, end)

    def generate(
        self, tokens: Sequence[int], *arguments: Any, **named: Any
    ) -> Generator[int, Any, None]:
        """Yields the tokens that continue a prompt, until one ends the text.

        Takes the place of ``Llama.generate``, and takes its arguments. A token counts as emitted
        when it has been yielded.

        Args:
            tokens: The prompt.
            *arguments: Further ones of ``Llama.generate``.
            **named: The same; ``logits_processor`` may be a :meth:`request`.

        Raises:
            ConfigError: When an option of llama.cpp's own sampling would act on nothing, or one of
                ours is refused.
            EntropyUnavailableError: When the source fails and QR_FALLBACK_MODE is ``error``.
        """
        own = self._arguments(tokens, arguments, named)
        turn = self._begin(own)
        if turn is None:
            processors = SamplingRequest.of(own["logits_processor"]).processors
            yield from self._generate(**{**own, "logits_processor": processors or None})
            return
        try:
            yield from turn.tokens()
        finally:
            turn.close()

    def create_completion(self, *arguments: Any, **named: Any) -> Any:
        """Returns a completion, and notes what ends it.

        Takes the place of ``Llama.create_completion``, and takes its arguments.
        """
        signature = inspect.signature(self._create_completion)
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        own = bound.arguments
        stop = own["stop"] or ()
        limits = Limits(own["max_tokens"] or 0, (stop,) if isinstance(stop, str) else tuple(stop))
        given = own["logits_processor"]
        # Its end token ends a stream that is read after the block, too.
        request = given if isinstance(given, SamplingRequest) else self.request(*(given or ()))
        own["logits_processor"] = request.limited(limits)
        return self._create_completion(*bound.args, **bound.kwargs)

    def turn(
        self,
        prompt: Sequence[int],
        options: Mapping[str, Any],
        *,
        max_tokens: int,
        processors: Iterable[Processor] = (),
    ) -> Turn:
        """Returns a sequence of its own, for a loop that settles it itself.

        Args:
            prompt: Its tokens.
            options: Its ``qr_*`` keys.
            max_tokens: Number of tokens after which it ends, unless the context ends before.
            processors: Logits processors that act before the token is chosen.

        Raises:
            ConfigError: When an option is refused, or leaves the tokens to llama.cpp.
        """
        self.check(options)
        named = {"logits_processor": self.request(*processors, **options)}
        own = self._arguments(prompt, (), named)
        room = self._vocabulary.context - len(prompt)
        return self._new_turn(own, self._sequence(own, max_tokens=min(max_tokens, room)))

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuses options with which :meth:`turn` cannot serve, before anything is drawn.

        Raises:
            ConfigError: Naming the key, its value and the remedy.
        """
        self.local.session.check_request(options)
        if switched_on(options, BYPASS_KEY):
            raise ConfigError(
                f"{BYPASS_KEY}={shown(options[BYPASS_KEY])}: such a text has no records, and no "
                "entropy chooses it; leave the option out"
            )

    def _arguments(
        self, tokens: Sequence[int], arguments: Sequence[Any], named: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the arguments of ``Llama.generate`` by name, its defaults included."""
        bound = self._signature.bind(tokens, *arguments, **named)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _begin(self, own: Mapping[str, Any]) -> Turn | None:
        """Returns a new turn, or ``None`` for a completion that is left to llama.cpp."""
        options = SamplingRequest.of(own["logits_processor"]).options
        default = self.local.session.settings.follow_request
        followed = switched_on(options, FOLLOW_KEY, default=default)
        sequence = self._sequence(own, fields=engine_fields(own) if followed else None)
        if sequence.left_to_caller:
            self.local.close(sequence)
            return None
        try:
            check_own_sampling(own, followed=followed)
        except ConfigError:
            self.local.close(sequence)
            raise
        return self._new_turn(own, sequence)

    def _sequence(
        self,
        own: Mapping[str, Any],
        *,
        fields: EngineFields | None = None,
        max_tokens: int | None = None,
    ) -> LocalSequence:
        """Returns a new sequence, in the place of the one that the ``Llama`` has had."""
        self._end_turn()
        request = SamplingRequest.of(own["logits_processor"])
        count = len(request.processors)
        return self.local.sequence(
            own["tokens"],
            end_tokens=self._end_tokens,
            max_tokens=max_tokens,
            fields=fields,
            logits_fields={"logits_processors": count} if count else None,
            **request.options,
        )

    def _new_turn(self, own: Mapping[str, Any], sequence: LocalSequence) -> Turn:
        request = SamplingRequest.of(own["logits_processor"])
        processor = SequenceProcessor(self.local, sequence, request.processors)
        tokens = self._generate(**{**own, **LAST_CHOICE, "logits_processor": [processor]})
        self._turn = Turn(self.local, sequence, processor, tokens)
        self._turn.is_whole = partial(self._is_whole, request.limits, own["tokens"])
        return self._turn

    def _is_whole(
        self, limits: Limits | None, prompt: Sequence[int], tokens: Sequence[int]
    ) -> bool:
        """Whether a completion has ended by one of *limits*, as llama-cpp-python sees them."""
        # The library's functions crash the process once the model has been freed.
        if limits is None or self._llama.model is None:
            return False
        room = self._llama.n_ctx() - len(prompt)
        if len(tokens) >= (min(limits.max_tokens, room) if limits.max_tokens > 0 else room):
            return True
        text = self._llama.detokenize(list(tokens), prev_tokens=list(prompt))
        return any(each.encode() in text for each in limits.stop)

    def _end_turn(self) -> None:
        """Ends the sequence whose place in the ``Llama`` another one is about to take."""
        if self._turn is not None:
            self._turn.close()
            self._turn = None
