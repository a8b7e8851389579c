# SPDX-License-Identifier: Apache-2.0
"""Tests an installed component from its first import to a verdict."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from qr_sampler.components.amplifiers import AMPLIFIERS
from qr_sampler.components.sources import source_names
from qr_sampler.components.strategies import TEMPERATURE_STRATEGIES
from qr_sampler.entropy import SourceLimits
from qr_sampler.errors import ConfigError, UnknownPluginError
from qr_sampler.foreign import plain_text
from qr_sampler_cli.component_test.plan import MINUTE_S, Plan, Stage, plan_of
from qr_sampler_cli.component_test.process import Telling, run_step
from qr_sampler_cli.component_test.subject import Kind, Subject
from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_cli.remedies import from_clone

__all__ = ["Trial", "kind_of", "try_component"]

STEP_S: Final = 60.0
"""Longest duration of a step that draws nothing or little, in seconds."""
CONTRACT_S: Final = 300.0
"""The same for the contract, without waits for quotas."""
MEASURE_S: Final = 300.0
"""The same for the health test and the timed draws: slow devices make 100 bytes a second."""

CONTRACT_ONLY: Final = Plan((Stage("contract", 0, 0),))


@dataclass(slots=True)
class Trial:
    """What the test of a component has found."""

    kind: Kind
    name: str
    about: dict[str, Any] = field(default_factory=dict)
    """What it says of itself."""
    plan: Plan = CONTRACT_ONLY
    """What was to be run."""
    clauses: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By clause of the contract, how it ended (``passed``, ``failed``, ``skipped``) and why."""
    health: dict[str, Any] = field(default_factory=dict)
    """What the health tests found."""
    latencies_ms: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By bytes of a draw, the median and the slowest."""
    faults: list[str] = field(default_factory=list)
    """What is wrong with the component."""
    unavailable: str = ""
    """Why it could not be tested; empty if it was."""

    @property
    def outcomes(self) -> Counter[str]:
        """How many clauses ended in which way."""
        return Counter(outcome for outcome, _ in self.clauses.values())

    @property
    def verdict(self) -> str:
        """``usable``, ``faulty`` or ``not tested``."""
        if self.faults:
            return "faulty"
        tested = not self.unavailable and self.plan.has("contract")
        return "usable" if tested else "not tested"

    def as_data(self) -> dict[str, Any]:
        """Returns all of it, ready for JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def kind_of(name: str) -> Kind:
    """Returns what *name* is.

    Raises:
        UnknownPluginError: When nothing that is installed has the name.
    """
    names = {
        "source": source_names(),
        "amplifier": AMPLIFIERS.names(),
        "strategy": TEMPERATURE_STRATEGIES.names(),
    }
    kinds: tuple[Kind, ...] = ("source", "amplifier", "strategy")
    for kind in kinds:
        if name in names[kind]:
            return kind
    known = tuple(sorted({each for group in names.values() for each in group}))
    raise UnknownPluginError("component", name, known)


def try_component(name: str, announce: Callable[[Trial], None]) -> Trial:
    """Tests the component called *name* in processes of its own.

    Args:
        name: Name of a source, an amplifier or a strategy.
        announce: Called once it is known what will be spent, before it is.

    Raises:
        UnknownPluginError: When nothing that is installed has the name.
        ConfigError: When one of its settings is malformed.
        MissingPackageError: When pytest is not installed.
    """
    trial = Trial(kind_of(name), name)
    subject = Subject(trial.kind, name)
    told = run_step("describe", subject, STEP_S)
    if refusal := told.said("refused"):
        raise ConfigError(f"{name}: {refusal}")
    if _broken(trial, told, "its import or construction"):
        return trial
    if reason := told.said("unavailable"):
        trial.unavailable = reason
        return trial
    trial.about = dict(told.lines[0])
    if not trial.about.pop("has_pytest"):
        remedy = from_clone("qr-sampler-core[testing]")
        raise MissingPackageError(f"--test needs pytest, which is not installed; {remedy}")
    if trial.kind == "source":
        if wrong := _no_quotas(trial.about["limits"]):
            trial.faults.append(f"limits: {', '.join(wrong)}; use a number above 0, or None")
            return trial
        trial.plan = plan_of(SourceLimits(**trial.about["limits"]))
    announce(trial)
    subject = _gently(subject, trial)
    if trial.kind == "source" and not _answers(trial, subject):
        return trial
    if trial.plan.has("contract"):
        _contract(trial, subject)
    if trial.kind == "source":
        _measurements(trial, subject)
    return trial


def _no_quotas(limits: dict[str, Any]) -> list[str]:
    """Returns those of the *limits* that limit nothing, in words."""
    return [
        f"{name}={plain_text(value)}"
        for name, value in limits.items()
        if value is not None and not (type(value) in (int, float) and value > 0)
    ]


def _gently(subject: Subject, trial: Trial) -> Subject:
    quota = trial.about.get("limits", {}).get("max_requests_per_minute")
    return dataclasses.replace(
        subject,
        stages=tuple(stage.name for stage in trial.plan.running),
        interval_s=2.0 * MINUTE_S / quota if quota else 0.0,
        skipped_clauses=trial.plan.skipped_clauses,
    )


def _answers(trial: Trial, subject: Subject) -> bool:
    """Notes whether the source delivers at all."""
    told = run_step("probe", subject, STEP_S)
    if reason := told.said("unavailable"):
        trial.unavailable = reason
        return False
    return not _broken(trial, told, "a first draw of 8 bytes")


def _contract(trial: Trial, subject: Subject) -> None:
    waits = sum(stage.wait_s for stage in trial.plan.running if stage.name == "contract")
    told = run_step("contract", subject, CONTRACT_S + 2.0 * waits)
    for line in told.lines:
        if "clause" in line:
            trial.clauses[line["clause"]] = line["outcome"], line["words"]
    failed = [name for name, (outcome, _) in trial.clauses.items() if outcome == "failed"]
    trial.faults += [f"{name}: {_first_line(trial.clauses[name][1])}" for name in failed]
    if not _broken(trial, told, f"{told.said('begins')}") and not trial.clauses:
        trial.faults.append("contract: pytest has run no clause of it")


def _measurements(trial: Trial, subject: Subject) -> None:
    waits = sum(stage.wait_s for stage in trial.plan.running if stage.name != "contract")
    told = run_step("measure", subject, MEASURE_S + 2.0 * waits)
    for line in told.lines:
        if "health" in line:
            trial.health = line
        if "latency" in line:
            trial.latencies_ms[line["latency"]] = line["median_ms"], line["slowest_ms"]
    if trial.health.get("alarm"):
        trial.faults.append(f"health: {trial.health['alarm']}")
    begun = f"{told.said('begins')}"
    if reason := told.said("unavailable"):
        trial.faults.append(f"{begun}: {reason}")
    _broken(trial, told, begun)


def _broken(trial: Trial, told: Telling, what: str) -> bool:
    """Notes, and returns, whether the component ended a step."""
    reason = told.said("raised") or told.said("refused") or told.ended
    if reason:
        trial.faults.append(f"{what}: {reason}")
    return bool(reason)


def _first_line(words: str) -> str:
    return words.partition("\n")[0]
