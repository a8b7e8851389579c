# SPDX-License-Identifier: Apache-2.0
"""The sampler of one Transformers model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import transformers

from qr_sampler import EntropySource, Settings
from qr_sampler.admission.overrides import KEY_PREFIX
from qr_sampler_local.loop import LocalSampler
from qr_sampler_local.transformers.batch import Batch
from qr_sampler_local.transformers.call import allow_several_texts, take_stop_strings
from qr_sampler_local.transformers.decoding import Decoding
from qr_sampler_local.transformers.model_facts import host_facts, model_files, model_name
from qr_sampler_local.transformers.modes import refuse_arguments
from qr_sampler_local.transformers.processor import EntropyLogitsProcessor, Generations
from qr_sampler_local.transformers.row_options import RowOptions
from qr_sampler_local.transformers.warpers import refuse_parameters

__all__ = ["TransformersSampler"]

Options: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class TransformersSampler:
    """Has an entropy source choose the tokens of a Transformers model, and keeps their records.

    Use it in a ``with`` block, whose end writes all records, also when an exception ends it. May be
    used from several threads.

    Args:
        model: The model, with a ``generate`` method of its own.
        settings: What to sample with; the environment's if not given.
        sources: Sources of the caller's own, see :class:`~qr_sampler_local.LocalSampler`.

    Raises:
        ConfigError: When a setting cannot be served.
        PluginError: When a configured source or its fallback is unknown, contested or broken.

    Examples:
        >>> def answer(model, tokenizer, text):
        ...     inputs = tokenizer(text, return_tensors="pt")
        ...     with TransformersSampler(model) as sampler:
        ...         return sampler.generate(**inputs, max_new_tokens=32, qr_top_p=0.9)
    """

    def __init__(
        self,
        model: Any,
        settings: Settings | None = None,
        *,
        sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None = None,
    ) -> None:
        self.model = model
        """The model."""
        self.sampler = LocalSampler(
            model_name(model),
            settings,
            engine=f"transformers {transformers.__version__}",
            model_files=model_files(model),
            sources=sources,
            distributions=("transformers",),
            host=host_facts(model),
        )
        """What it samples with, which also knows the records."""
        self._generations = Generations()
        """Those in which a processor chooses."""

    def generate(
        self,
        inputs: Any = None,
        *,
        options: Options = None,
        max_tokens: Sequence[int] | None = None,
        streamer: Any = None,
        tokenizer: Any = None,
        after_step: Callable[[Batch], object] | None = None,
        **arguments: Any,
    ) -> Any:
        """Returns what ``model.generate`` returns.

        Args:
            inputs: As there: token ids of the prompts, padded on the left.
            options: Options of the requests: a mapping for all prompts, or one for each.
            max_tokens: Most tokens of each row, where ``max_new_tokens`` is too many for some.
            streamer: As there.
            tokenizer: As there, for stop strings.
            after_step: Called with the rows when they have begun, and after each step, when its
                tokens are in them.
            **arguments: As there, but for the options of all prompts, with their prefix ``qr_``.

        Raises:
            ConfigError: When an option or an argument is refused; it names the remedy.
        """
        own = {key: arguments.pop(key) for key in list(arguments) if key.startswith(KEY_PREFIX)}
        rows = self.row_options(options, own)
        refuse_arguments(arguments)
        theirs = rows.may_follow or rows.may_leave
        refuse_parameters(arguments, follow=theirs)
        take_stop_strings(self.model, tokenizer, arguments)
        if not theirs:
            allow_several_texts(self.model, arguments)
        decoding = Decoding(
            self.sampler, rows, max_tokens=max_tokens, streamer=streamer, after_step=after_step
        )
        return self.model.generate(inputs, custom_generate=decoding, **arguments)

    def custom_generate(
        self, options: Options = None, *, streamer: Any = None, **common: Any
    ) -> Decoding:
        """Returns a callable for the argument ``custom_generate`` of ``generate``.

        Args:
            options: Options of the requests: a mapping for all prompts, or one for each.
            streamer: The streamer. One that is passed to ``generate`` itself gets the prompt only.
            **common: Options of all requests, with or without the prefix ``qr_``.
        """
        return Decoding(self.sampler, self.row_options(options, common), streamer=streamer)

    def processor(self, options: Options = None, **common: Any) -> EntropyLogitsProcessor:
        """Returns a logits processor for ``generate`` and ``pipeline``.

        Args:
            options: Options of the requests: a mapping for all prompts, or one for each.
            **common: Options of all requests, with or without the prefix ``qr_``.
        """
        rows = self.row_options(options, common)
        return EntropyLogitsProcessor(self.sampler, rows, self._generations)

    def close(self) -> None:
        """Ends the records; whether the latest tokens of open sequences were emitted is unknown."""
        self._generations.close()
        self.sampler.close()

    def __enter__(self) -> TransformersSampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._generations.close()
        self.sampler.__exit__(kind, error, traceback)

    def row_options(self, options: Options, common: Mapping[str, Any] | None = None) -> RowOptions:
        """Returns the options of the requests of a batch.

        Args:
            options: A mapping for all prompts, or one for each.
            common: Further options of all of them.
        """
        follow = self.sampler.session.settings.follow_request
        return RowOptions(options, common or {}, follow=follow)
