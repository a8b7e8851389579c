# SPDX-License-Identifier: Apache-2.0
"""The process that tests: ``python -m qr_sampler_cli.component_test.child STEP FILE < SUBJECT``.

It writes one JSON object per line to FILE, the last one when the step is done. Whoever started it
ends it when it takes too long, and reads what was there by then.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TextIO

from qr_sampler import EntropySource, create_source
from qr_sampler.components.failure_policy import health_options
from qr_sampler.errors import EntropyUnavailableError, QRSamplerError
from qr_sampler.foreign import MASK, plain_text, words_of
from qr_sampler.health import HealthMonitor
from qr_sampler.settings import Settings
from qr_sampler_cli.component_test.plan import (
    FEW_DRAWS,
    HEALTH_BYTES,
    LATENCY_SIZES,
    MANY_DRAWS,
    PROBE_BYTES,
    latency_stage,
)
from qr_sampler_cli.component_test.subject import DONE, Subject

__all__ = ["main"]

TIMING_S: Final = 10.0
"""Once draws of a size have taken as long, no more of them are timed."""


class Tell:
    """Writes what a step tells, a line each, without the secrets of the source."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._secrets: set[str] = set()

    def keep_secret(self, source: EntropySource) -> None:
        """Masks the secrets of *source* from now on."""
        declared: tuple[object, ...] = source.secrets
        self._secrets |= {secret for secret in declared if isinstance(secret, str) and secret}

    def __call__(self, told: dict[str, Any]) -> None:
        """Writes *told*, whose values are plain."""
        self._output.write(json.dumps({key: self._masked(told[key]) for key in told}) + "\n")
        self._output.flush()

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, MASK)
        return value


@contextlib.contextmanager
def opened(subject: Subject, tell: Tell) -> Iterator[EntropySource]:
    """Yields the source, whose secrets are told to nobody, and closes it."""
    with contextlib.closing(create_source(subject.name)) as source:
        tell.keep_secret(source)
        yield source


def describe(subject: Subject, tell: Tell) -> None:
    """Tells what is tested, without a draw."""
    about: dict[str, Any] = {"has_pytest": find_spec("pytest") is not None}
    if subject.kind == "source":
        with opened(subject, tell) as source:
            limits, status = source.limits, source.status()
            about |= {
                "distribution": f"{source.origin.distribution} {source.origin.version}".strip(),
                "jit_class": source.jit_class.value,
                "conditioning": plain_text(source.conditioning),
                "available": status.available,
                "reason": plain_text(status.reason),
                "limits": {
                    "max_bytes_per_request": limits.max_bytes_per_request,
                    "max_requests_per_minute": limits.max_requests_per_minute,
                    "max_bytes_per_day": limits.max_bytes_per_day,
                },
            }
    tell(about)


def probe(subject: Subject, tell: Tell) -> None:
    """Tells whether a first draw succeeds."""
    with opened(subject, tell) as source:
        source.draw(PROBE_BYTES)
    tell({"probed": True})


def contract(subject: Subject, tell: Tell) -> None:
    """Tells how every clause of the contract ended."""
    from qr_sampler_cli.component_test.contract_run import run_contract

    if subject.kind == "source":
        with opened(subject, tell):
            pass
    run_contract(subject, tell)


def measure(subject: Subject, tell: Tell) -> None:
    """Tells what the health tests find, and how long draws take."""
    with opened(subject, tell) as source:
        if "health" in subject.stages:
            tell({"begins": "health"})
            tell(_health(source, subject))
        draws = FEW_DRAWS if subject.interval_s or _limited(source) else MANY_DRAWS
        for size in LATENCY_SIZES:
            if latency_stage(size) in subject.stages:
                tell({"begins": latency_stage(size)})
                tell(_latency(source, size, draws, subject))


def _limited(source: EntropySource) -> bool:
    return source.limits != type(source.limits)()


def _health(source: EntropySource, subject: Subject) -> dict[str, Any]:
    assumed = health_options(Settings.load()).assumption(source)
    found = {"tested": assumed.tested, "alarm": "", "untested": assumed.reason}
    if assumed.policy is None:
        return {**found, "health": "untested"}
    _wait(source, HEALTH_BYTES, subject)
    monitor = HealthMonitor(assumed.policy)
    alarm = monitor.observe(source.draw(HEALTH_BYTES).data)
    return {**found, "health": monitor.state.value, "alarm": str(alarm or "")}


def _latency(source: EntropySource, size: int, draws: int, subject: Subject) -> dict[str, Any]:
    took_ms = []
    for _ in range(draws):
        _wait(source, size, subject)
        began_ns = time.monotonic_ns()
        source.draw(size)
        took_ms.append((time.monotonic_ns() - began_ns) / 1e6)
        if sum(took_ms) > TIMING_S * 1e3:
            break
    return {"latency": size, "median_ms": statistics.median(took_ms), "slowest_ms": max(took_ms)}


def _wait(source: EntropySource, size: int, subject: Subject) -> None:
    requests = -(-size // (source.limits.max_bytes_per_request or size))
    time.sleep(subject.interval_s * requests)


STEPS: Final[dict[str, Callable[[Subject, Tell], None]]] = {
    "describe": describe,
    "probe": probe,
    "contract": contract,
    "measure": measure,
}


def main(step: str, file: str, question: str) -> None:
    """Runs a step, and tells what ended it early."""
    asked = json.loads(question)
    lists = {name: tuple(asked[name]) for name in ("stages", "skipped_clauses")}
    subject = Subject(**{**asked, **lists})
    with Path(file).open("a", encoding="utf-8") as output:
        tell = Tell(output)
        try:
            STEPS[step](subject, tell)
        except EntropyUnavailableError as error:
            tell({"unavailable": plain_text(error.reason) or "it does not say why"})
        except QRSamplerError as error:
            tell({"refused": str(error)})
        # A third-party component can fail in any way; what it did is the result of the test.
        except Exception as error:
            tell({"raised": words_of(error)})
        tell({DONE: True})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin.read())
