# SPDX-License-Identifier: Apache-2.0
"""The ``QR_*`` settings, their meaning, and whether the ledger can be written."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from qr_sampler.admission.component_checks import check_components
from qr_sampler.errors import ConfigError, PluginError
from qr_sampler.settings import END_REQUEST, RAISE_ERROR, Settings, public_name
from qr_sampler.settings.env_file import env_file
from qr_sampler.settings.recorded import recorded_values
from qr_sampler.settings.source_declarations import SourceDeclarations
from qr_sampler_cli.findings.finding import Finding, ReportSection, examined
from qr_sampler_cli.settings.plugged import own_settings

__all__ = ["SECTION", "examined_settings", "load_settings", "settings_findings"]

SECTION: Final = ReportSection("settings")

PREFIX: Final = "QR_"
SIMILARITY: Final = 0.9
"""How similar two names must be for one to be a typo of the other, on difflib's scale, 0 to 1."""


def examined_settings() -> tuple[Settings | None, list[Finding]]:
    """Returns the settings, ``None`` if they are invalid, and all findings about them."""
    loaded: list[Settings] = []

    def look() -> list[Finding]:
        settings, findings = load_settings()
        loaded.extend([settings] if settings is not None else [])
        return findings

    findings = examined(SECTION, "values", look)
    settings = loaded[0] if loaded else None
    if settings is not None:
        findings += examined(SECTION, "values", lambda: settings_findings(settings))
    return settings, findings


def load_settings() -> tuple[Settings | None, list[Finding]]:
    """Returns the settings of this process, ``None`` if they are invalid, and their findings.

    An engine reads them where it is started: from its environment and its working directory.
    """
    variables = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    origin = f"{len(variables)} {PREFIX}* variables"
    file = env_file()
    if file.is_file():
        origin += f" and {file.resolve()}, which an engine reads only if it is started here"
    findings = list(_typos([*variables, *_names_in(file)]))
    try:
        settings = Settings.load()
    except ConfigError as error:
        problem = SECTION.problem("values", str(error), "correct the variables that are named")
        return None, [problem, *findings]
    return settings, [SECTION.ok("values", f"read from {origin}"), *findings]


def settings_findings(settings: Settings) -> Iterator[Finding]:
    """Yields findings that explain the settings.

    Args:
        settings: The deployment's settings.
    """
    yield from _source_findings(settings)
    yield _component_finding(settings)
    yield from _own_settings_findings(settings)
    yield _ledger_finding(settings.ledger_dir)
    yield SECTION.ok("log", f"{settings.log_level} (QR_LOG_LEVEL)")


def _source_findings(settings: Settings) -> Iterator[Finding]:
    chosen, *others = settings.selectable_sources
    may = f"; a request may choose {', '.join(others)}" if others else ""
    yield SECTION.ok("source", f"{chosen}{may}")
    mode = settings.fallback_mode
    if mode == RAISE_ERROR:
        yield SECTION.warning(
            "fallback",
            "none: a source that fails stops the engine and every request in it",
            f"set QR_FALLBACK_MODE={END_REQUEST} to end the affected requests only",
        )
    elif mode == END_REQUEST:
        yield SECTION.ok("fallback", "none: the affected requests end early and are flagged")
    elif settings.selectable_sources == (mode,):
        yield SECTION.ok(
            "fallback", f"none: {mode} is the source itself; if it fails, its requests end early"
        )
    else:
        yield SECTION.ok("fallback", f"{mode}, flagged on every token")


def _component_finding(settings: Settings) -> Finding:
    try:
        check_components(settings, settings, prefix=PREFIX)
    except ConfigError as error:
        return SECTION.problem("components", str(error), "correct the variable that is named")
    return SECTION.ok(
        "components",
        f"amplifier {settings.signal_amplifier_type} on blocks of {settings.sample_count} bytes "
        f"(at most {settings.max_sample_count} by request), temperature "
        f"{settings.temperature_strategy}",
    )


def _own_settings_findings(settings: Settings) -> Iterator[Finding]:
    """Yields the settings in effect that the components in use have of their own."""
    chosen = {
        "QR_ENTROPY_SOURCE_TYPE": settings.entropy_source_type,
        "QR_SIGNAL_AMPLIFIER_TYPE": settings.signal_amplifier_type,
        "QR_TEMPERATURE_STRATEGY": settings.temperature_strategy,
    }
    for variable, name in chosen.items():
        try:
            model = own_settings(variable, name)
            if model is None:
                continue
            prefix = str(model.model_config.get("env_prefix", ""))
            values = recorded_values(model.load())
        except ConfigError as error:
            yield SECTION.problem(name, str(error), "correct the variable that is named")
        except PluginError:
            # Why it does not load, other findings say. A named instance is no plugin, either.
            continue
        except TypeError as error:
            yield SECTION.warning(name, str(error), "tell the author of the component")
        else:
            said = ", ".join(f"{public_name(key, prefix)}={values[key]}" for key in values)
            yield SECTION.ok(name, said or "it has no settings but secret ones")


def _ledger_finding(directory: Path | None) -> Finding:
    remedy = "set QR_LEDGER_DIR to a directory that the engine may write to"
    if directory is None:
        return SECTION.warning("ledger", "QR_LEDGER_DIR is unset: no records are kept", remedy)
    if not directory.exists():
        parent = next(path for path in directory.absolute().parents if path.exists())
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return SECTION.ok("ledger", f"{directory} will be created with the first record")
        return SECTION.problem("ledger", f"{directory} cannot be created in {parent}", remedy)
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".qr-sampler-doctor-"):
            pass
    except OSError as error:
        return SECTION.problem("ledger", f"{directory} cannot be written: {error}", remedy)
    return SECTION.ok("ledger", f"{directory} can be written")


def _typos(names: Iterable[str]) -> Iterator[Finding]:
    """Yields variables that look like typos; sources may have settings that are unknown here."""
    models = (Settings, SourceDeclarations)
    known = [public_name(field, PREFIX) for model in models for field in model.model_fields]
    for name in dict.fromkeys(name.upper() for name in names):
        if name in known:
            continue
        longer = [setting for setting in known if setting.startswith(f"{name}_")]
        meant = longer or difflib.get_close_matches(name, known, n=1, cutoff=SIMILARITY)
        if meant:
            yield SECTION.warning(
                "values", f"{name} is not a setting and has no effect", f"did you mean {meant[0]}?"
            )


def _names_in(file: Path) -> list[str]:
    if not file.is_file():
        return []
    text = file.read_text("utf-8", errors="replace")
    pattern = rf"^\s*(?:export\s+)?({PREFIX}\w+)\s*="
    return re.findall(pattern, text, flags=re.MULTILINE | re.IGNORECASE)
