# SPDX-License-Identifier: Apache-2.0
"""The contract of hosts, held against the engine of the process that calls :func:`findings`.

An engine takes long to start, so it is one that has served another test. Each clause gets a plugin
of its own in it: the same processor, made anew with other settings and sources.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from qr_sampler import EntropySource, EntropyUnavailableError, Settings
from qr_sampler.components.failure_policy import configured_sources
from qr_sampler.testing import HostContract, HostDriver, HostRequest
from qr_sampler_vllm import processor as processor_module
from qr_sampler_vllm.runners import engines
from qr_sampler_vllm.runners.v1 import RunnerV1

END_BIAS = -40.0


class Engine:
    """The running engine, and when its logits were complete."""

    def __init__(self, llm: Any) -> None:
        self.engine = llm.llm_engine
        self.times_ns: list[int] = []
        ((self.config, self._role),) = engines._runners.values()
        self._core = self.engine.engine_core.engine_core
        self._runner = self._core.model_executor.driver_worker.worker.model_runner
        self._processor = self._found()
        self._watch(llm.get_tokenizer().eos_token_id)

    def plug_in(self) -> None:
        """Makes the plugin anew, as at the start of an engine."""
        states = getattr(self._role, "_states", None)
        self.unplug()
        arguments = (None, False) if states is None else (states,)
        self._processor.__init__(self.config, *arguments)
        self._role = self._processor._role
        self.times_ns.clear()

    def unplug(self) -> None:
        """Ends the plugin's records, as at the end of an engine."""
        if engines._runners.pop(id(self.config), None) is not None:
            self._role.close()

    def finish(self) -> None:
        """Ends what is on its way; where steps overlap, the step after one that has failed, too."""
        in_flight = self._core.batch_queue
        while self.engine.has_unfinished_requests() or in_flight:
            with suppress(EntropyUnavailableError):
                self.engine.step()

    def _found(self) -> Any:
        """The processor that vLLM calls."""
        loaded = (
            self._runner.input_batch.logitsprocs.non_argmax_invariant
            if isinstance(self._role, RunnerV1)
            else self._runner.sampler.logits_processors
        )
        kind = processor_module.QRSamplerLogitsProcessor
        (found,) = [each for each in loaded if isinstance(each, kind)]
        return found

    def _watch(self, end_token: int) -> None:
        model = self._runner.model
        compute = model.compute_logits

        def compute_and_note(*arguments: Any, **options: Any) -> Any:
            logits = compute(*arguments, **options)
            if logits is not None:
                logits[..., end_token] += END_BIAS
                self.times_ns.append(time.monotonic_ns())
            return logits

        model.compute_logits = compute_and_note


class VLLMDriver(HostDriver):
    """Generates with the engine, by the steps that ``LLM.generate`` makes."""

    def __init__(
        self, settings: Settings, sources: Mapping[str, EntropySource], *, engine: Engine
    ) -> None:
        self._engine = engine
        self._count = 0
        self._patch = pytest.MonkeyPatch()
        self._set(settings)

        def guarded(settings: Settings, on_dropped: Any, make_monitor: Any, _: None) -> Any:
            return configured_sources(settings, on_dropped, make_monitor, sources)

        place = "qr_sampler.host.session.sampling_session.configured_sources"
        self._patch.setattr(place, guarded)
        # At admission sources are looked up by their names, which no registry has.
        self._patch.setattr("qr_sampler.components.pairing._integrates", lambda *_: False)
        processor_module._settings.cache_clear()
        engine.plug_in()

    @property
    def logits_times_ns(self) -> Sequence[int]:
        return self._engine.times_ns

    def generate(
        self, requests: Sequence[HostRequest], on_token: Callable[[int, int], object]
    ) -> list[list[int]]:
        engine = self._engine.engine
        names = [f"{id(self)}-{self._count + index}" for index in range(len(requests))]
        self._count += len(requests)
        texts: dict[str, list[int]] = {name: [] for name in names}
        try:
            for index, (name, request) in enumerate(zip(names, requests, strict=True)):
                prompt = {"prompt_token_ids": [300 + index] * request.prompt_tokens}
                engine.add_request(name, prompt, _parameters(request))
            while engine.has_unfinished_requests():
                self._hand_over(engine.step(), requests, texts, on_token)
        finally:
            engine.abort_request(names)
            self._engine.finish()
        return list(texts.values())

    def _hand_over(
        self,
        outputs: Sequence[Any],
        requests: Sequence[HostRequest],
        texts: dict[str, list[int]],
        on_token: Callable[[int, int], object],
    ) -> None:
        """Hands over what a step has returned.

        It has returned the tokens of all its rows: they are emitted, whatever becomes of a reader.
        """
        with ExitStack() as stack:
            for output in reversed(outputs):
                name = output.request_id
                index, text = list(texts).index(name), texts[name]
                new = output.outputs[0].token_ids[len(text) :]
                text += new
                for token_id in reversed(new):
                    stack.callback(on_token, index, token_id)
                if requests[index].abort_after == len(text):
                    self._engine.engine.abort_request([name])

    def close(self) -> None:
        self._engine.unplug()
        self._patch.undo()
        processor_module._settings.cache_clear()

    def _set(self, settings: Settings) -> None:
        usual = {name: field.default for name, field in Settings.model_fields.items()}
        for name, value in settings.model_dump(mode="json").items():
            self._patch.delenv(f"QR_{name.upper()}", raising=False)
            if value != usual[name]:
                self._patch.setenv(f"QR_{name.upper()}", str(value))
        # A process that writes would have to be started for every clause.
        self._patch.setenv("QR_LEDGER_PROCESS", "false")


def _parameters(request: HostRequest) -> SamplingParams:
    return SamplingParams(
        max_tokens=request.max_tokens,
        extra_args=dict(request.options),
        output_kind=RequestOutputKind.CUMULATIVE,
    )


class Hosts(HostContract):
    """What both runners have in common."""

    engine = "vllm"
    not_applicable: ClassVar[dict[str, str]] = {
        "test_what_is_thrown_away_has_a_discard": "tokens are taken back only where memory is "
        "short, as in test_records_are_the_emitted_tokens",
        "test_two_threads_keep_their_texts_apart": "an engine is stepped by one thread",
    }

    @pytest.fixture
    def start(self, running: Engine) -> Callable[..., VLLMDriver]:
        return partial(VLLMDriver, engine=running)


class TestV1(Hosts):
    not_applicable: ClassVar[dict[str, str]] = {
        **Hosts.not_applicable,
        "test_nothing_is_drawn_for_rows_that_emit_nothing": "the row of an unfinished prefill "
        "looks like any other, so that its token has a discard; checked with short prompts",
    }

    def test_nothing_is_drawn_for_rows_that_emit_nothing(self, run_host: Any) -> None:
        self.check_wasted_blocks(run_host, prompt_tokens=(3, 5, 4))


class TestV2(Hosts):
    """Nothing else is different."""


class Findings:
    """What pytest finds in a process of its caller's: by clause, the report of what failed.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.failed: dict[str, str] = {}
        self.passed: list[str] = []

    @pytest.fixture
    def running(self) -> Engine:
        return self._engine

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::")[2]
        if report.failed:
            self.failed[f"{name} ({report.when})"] = report.longreprtext
        elif report.passed and report.when == "call":
            self.passed.append(name)


def findings(llm: Any, *, late_steps: int) -> dict[str, Any]:
    """Returns which clauses the engine fulfils, and why it does not fulfil the others.

    Args:
        llm: The ``LLM``, whose ledger ends with this.
        late_steps: As in :class:`~qr_sampler.testing.HostContract`.
    """
    engine = Engine(llm)
    found = Findings(engine)
    kind = TestV1 if isinstance(engine._role, RunnerV1) else TestV2
    kind.model = Path(llm.llm_engine.model_config.model).name
    kind.late_steps = late_steps
    arguments = [
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--noconftest",
        "-c",
        "/dev/null",
    ]
    began_s = time.monotonic()
    pytest.main([*arguments, f"{__file__}::{kind.__name__}"], plugins=[found])
    return {
        "passed": found.passed,
        "failed": found.failed,
        "seconds": round(time.monotonic() - began_s, 1),
    }
