# SPDX-License-Identifier: Apache-2.0
"""What the ledgers of a study say of the engines that wrote them: seal, code, settings, model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import lines_in
from qr_sampler.settings import EnvironmentSettings
from qr_sampler.settings.recorded import recorded_values
from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.witness_options import WitnessOptions
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.bundle.requests import same_value
from qr_sampler_lab.experiments.environment import engine_settings, files_in, installed_code
from qr_sampler_lab.experiments.protocol.arm_sources import (
    declarations_of,
    settings_of_component,
    settings_of_kind,
    stated_settings,
    with_kinds,
)
from qr_sampler_lab.experiments.study import Study

__all__ = ["check_ledgers"]

_NOT_SEALED: Final = ("ledger_", "log_level", "baseline_file")
"""Beginnings of names of settings that change no token, or whose file is sealed by its digest."""

_DIGEST: Final = re.compile("[0-9a-f]{64}")


def check_ledgers(checks: Checks, study: Study, *, has_sessions: bool) -> None:
    """Audits the ledgers of a study, and compares what they say of engines with the seal.

    Args:
        checks: Takes the findings.
        study: The payload of the bundle.
        has_sessions: Whether the journal tells of any.
    """
    paths = ledgers_in(study.ledgers)
    if not paths:
        told = checks.fail if has_sessions else checks.cannot_say
        told("ledgers", "there is none")
        return
    sealed = study.sealed
    for path in paths:
        genesis = next(_lines_of(path), {})
        checks.compare("ledgers", f"the seal of {path.name}", genesis.get("seal"), sealed.digest)
        for what, key, fixed in (
            ("the code", "files", sealed.seal.code),
            ("the version", "versions", sealed.seal.versions),
        ):
            _compare_code(checks, f"{path.name}: {what}", genesis.get(key), fixed)
        _check_age(checks, path.name, genesis, sealed.seal.clocks)
        _check_settings(checks, study, path.name, genesis)
        _check_sources(checks, study, path.name, genesis)
        _check_components(checks, study, path.name, genesis)
    _check_models(checks, study, paths)
    evidence = WitnessOptions(seal=study.seal_path).evidence()
    for run in audit_runs(ledgers_of(paths), evidence=evidence):
        for rung in run.rungs:
            for failure in rung.failures:
                checks.fail("ledgers", f"{rung.name}: {failure.where} {failure.what}")
            if rung.status == "cannot be said":
                reason = next(iter(rung.unsaid.values())).what
                checks.cannot_say("ledgers", f"{rung.name}: {reason}")


def _check_age(
    checks: Checks, name: str, genesis: Mapping[str, Any], sealed: Mapping[str, Any]
) -> None:
    """Checks that an engine began after the seal, by the clock that nobody can set."""
    same_boot = genesis.get("boot_id") == sealed.get("boot_id")
    if same_boot and genesis["monotonic_ns"] < sealed["monotonic_ns"]:
        checks.fail("ledgers", f"{name} is older than the seal")


def _compare_code(checks: Checks, what: str, told: Any, sealed: Mapping[str, str]) -> None:
    if not isinstance(told, Mapping) or not told:
        checks.cannot_say("ledgers", f"{what}, which the genesis does not hold")
        return
    for name, value in told.items():
        if name in sealed:
            checks.compare("ledgers", f"{what} of {name}", value, sealed[name])


def _check_settings(checks: Checks, study: Study, name: str, genesis: Mapping[str, Any]) -> None:
    """Compares all settings in a genesis with those that follow from the protocol."""
    told = genesis.get("settings")
    if not isinstance(told, Mapping) or not told:
        checks.cannot_say("ledgers", f"{name}: settings, which the genesis does not hold")
        return
    protocol, sealed = study.protocol, study.sealed.seal.code
    core = "qr-sampler-core"
    of_kinds = with_kinds(protocol, study.directory)
    same_code = installed_code(of_kinds).get(core) == sealed.get(core)
    stated = {variable.removeprefix("QR_").lower() for variable in protocol.environment}
    for field, value in recorded_values(engine_settings(protocol, study.directory)).items():
        if field.startswith(_NOT_SEALED) or (not same_code and field not in stated):
            continue
        checks.compare("ledgers", f"{name}: QR_{field.upper()}", told.get(field), value)
    if not same_code:
        checks.cannot_say("ledgers", f"defaults of settings: another {core} is installed here")
    checks.compare("ledgers", f"{name}: QR_LEDGER_REQUIRED", told.get("ledger_required"), True)


def _check_sources(checks: Checks, study: Study, name: str, genesis: Mapping[str, Any]) -> None:
    """Compares settings of sources with the protocol, and with defaults where it names none."""
    protocol = study.protocol
    declared = declarations_of(protocol, study.directory)
    for source in genesis.get("sources") or ():
        own = declared.get(source["name"])
        kind = own.kind if own else str(source["name"])
        checks.compare("ledgers", f"{name}: the kind of {source['name']}", _kind(source), kind)
        stated = stated_settings(protocol, own, kind)
        _check_own(checks, study, name, source, settings_of_kind(kind), stated)


def _check_components(checks: Checks, study: Study, name: str, genesis: Mapping[str, Any]) -> None:
    """Compares settings of amplifiers and strategies of other projects in the same way."""
    for component in genesis.get("components") or ():
        kind, called = component["component"], component["name"]
        model = settings_of_component(kind, called)
        told = component.get("settings")
        if told and model is None:
            checks.cannot_say("ledgers", f"{name}: settings of the {kind} {called}, not here")
        _check_own(checks, study, name, component, model, dict(study.protocol.environment))


def _check_own(
    checks: Checks,
    study: Study,
    name: str,
    component: Mapping[str, Any],
    model: type[EnvironmentSettings] | None,
    stated: Mapping[str, Any],
) -> None:
    """Compares settings that a component recorded with what is stated of them."""
    told, files = component.get("settings") or {}, files_in(study.protocol)
    for variable, (field, default) in _variables_of(model).items():
        if field not in told:
            continue
        found, what = told[field], f"{name}: {variable}"
        if variable in files:
            digest = study.sealed.seal.files.get(files[variable])
            if _DIGEST.fullmatch(str(found)):
                checks.compare("ledgers", f"{what}, the digest of its file,", found, digest)
        elif variable in stated:
            if not same_value(found, stated[variable]):
                checks.compare("ledgers", what, found, stated[variable])
        elif found not in (default, ""):
            checks.cannot_say("ledgers", f"why {what} was {found!r}: the protocol names none")


def _kind(source: Mapping[str, Any]) -> str:
    return str(source.get("kind") or source["name"])


def _variables_of(model: type[EnvironmentSettings] | None) -> dict[str, tuple[str, Any]]:
    """Returns field and default of every setting in a model, by variable."""
    if model is None:
        return {}
    prefix = model.model_config.get("env_prefix", "")
    return {
        f"{prefix}{field}".upper(): (field, info.default)
        for field, info in model.model_fields.items()
    }


def _check_models(checks: Checks, study: Study, paths: list[Path]) -> None:
    sealed = study.sealed.seal.model.manifest_sha256
    silent = []
    for path in paths:
        models = [values for values in _lines_of(path) if values["kind"] == "model"]
        if not models:
            silent.append(path.name)
        for values in models:
            told = values.get("manifest_sha256")
            checks.compare("ledgers", f"{path.name}: the model's manifest", told, sealed)
    if silent:
        checks.cannot_say("ledgers", f"which model's files the engine had ({', '.join(silent)})")


def _lines_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from (line.values for line in lines_in(file) if line.values is not None)
