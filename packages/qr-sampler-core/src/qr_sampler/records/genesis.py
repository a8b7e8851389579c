# SPDX-License-Identifier: Apache-2.0
"""What the first line of a ledger says: what the lines after it were made with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qr_sampler.entropy.draw import JitClass
from qr_sampler.entropy.fallback import FallbackEntropySource
from qr_sampler.entropy.guard import GuardedSource
from qr_sampler.entropy.source import EntropySource
from qr_sampler.records import GenesisRecord
from qr_sampler.records.clocks import boot_id
from qr_sampler.records.code_digest import code_commits, code_digests

__all__ = ["genesis_of", "installed_versions"]


def genesis_of(
    *,
    run_id: str,
    engine: str,
    model: str,
    settings: Mapping[str, Any],
    sources: Iterable[EntropySource],
    distributions: Sequence[str],
    host: Mapping[str, Any],
    seal: str = "",
    components: Sequence[Mapping[str, Any]] = (),
) -> GenesisRecord:
    """Returns the genesis record of a run that begins now.

    Args:
        run_id: Unique name of the run.
        engine: Host engine and its version.
        model: Model that the engine serves.
        settings: The deployment's settings, without those of sources, as JSON-ready values.
        sources: The sources in use, whose distributions take part.
        distributions: What else takes part, as far as it is installed.
        host: Further facts about the engine, as JSON-ready values.
        seal: Digest of the sealed plan that the run belongs to; empty if there is none.
        components: Amplifiers and strategies of other projects; the distributions of those whose
            settings are known take part, too.
    """
    in_use = list(_each(sources))
    taking_part = list(
        dict.fromkeys(
            (
                *distributions,
                *(source.origin.distribution for source in in_use),
                *(each["distribution"] for each in components if each["settings"] is not None),
            )
        )
    )
    return GenesisRecord(
        run_id=run_id,
        engine=_unicode(engine),
        model=_unicode(model),
        versions=installed_versions(taking_part),
        settings=_unicode(dict(settings)),
        pid=os.getpid(),
        monotonic_ns=time.monotonic_ns(),
        wall_time_ns=time.time_ns(),
        sources=[_described(source) for source in in_use],
        host=_unicode(dict(host)),
        files=code_digests(taking_part),
        commits=code_commits(taking_part),
        boot_id=boot_id(),
        seal=seal or None,
        components=[_unicode(dict(component)) for component in components],
    )


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those *distributions* that are installed, in the same order."""
    versions = {}
    for name in filter(None, distributions):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _each(sources: Iterable[EntropySource]) -> Iterator[EntropySource]:
    """Yields every source once, with what it falls back to as one of its own."""
    known: set[str] = set()
    waiting = list(sources)
    while waiting:
        source = waiting.pop(0)
        if isinstance(source, FallbackEntropySource):
            waiting = [source.primary, *waiting, source.fallback]
        elif source.name not in known:
            known.add(source.name)
            yield source


def _described(source: EntropySource) -> dict[str, Any]:
    """Returns what the ledger says of a source."""
    # A guard makes plain values of settings, whatever they are.
    guard = source if isinstance(source, GuardedSource) else GuardedSource(source, timeout_ms=1000)
    return {
        "name": source.name,
        "kind": source.origin.kind or source.name,
        "distribution": source.origin.distribution,
        "version": source.origin.version,
        "jit_class": _value_of(source.jit_class),
        "conditioning": source.conditioning,
        "tested": guard.health.tested,
        "limits": asdict(source.limits),
        "settings": dict(guard.recorded_settings),
    }


def _value_of(jit_class: object) -> str:
    """Returns the letter of a class; that of an unknown one for what is none."""
    return (jit_class if isinstance(jit_class, JitClass) else JitClass.UNKNOWN).value


def _unicode(value: Any) -> Any:
    """Returns *value* with escapes for what UTF-8 cannot encode: paths may contain any bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_unicode(name): _unicode(own) for name, own in value.items()}
    return [_unicode(own) for own in value] if isinstance(value, list) else value
