# SPDX-License-Identifier: Apache-2.0
"""``ro-crate-metadata.json``: what the files of a bundle are, for people and for repositories.

The format is RO-Crate 1.1, https://w3id.org/ro/crate/1.1: JSON-LD with one entity for the
descriptor, one for the data set and one for each file.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, Final

from qr_sampler_lab.experiments.study import Study

__all__ = ["CRATE_NAME", "write_crate"]

CRATE_NAME: Final = "ro-crate-metadata.json"

_CONTEXT: Final = "https://w3id.org/ro/crate/1.1/context"

_TYPES: Final = {
    ".jsonl": "application/jsonl",
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".txt": "text/plain",
    ".html": "text/html",
    ".csv": "text/csv",
    ".svg": "image/svg+xml",
    ".tsr": "application/timestamp-reply",
}

_ABOUT: Final = {
    "PROTOCOL.yaml": "What was decided before the study began",
    "seal.json": "The seal of the protocol; its SHA-256 is in every record",
    "journal.jsonl": "What happened to the study, in a chain that begins with the seal",
    "register.jsonl": "All studies of the laboratory, in a chain",
}


def write_crate(study: Study, payload: Path, *, text: bool) -> None:
    """Writes the description of all files of a payload into it.

    Args:
        study: The study.
        payload: Directory that has all of its files already.
        text: Whether it holds what was asked and written.
    """
    names = sorted(
        path.relative_to(payload).as_posix() for path in payload.rglob("*") if path.is_file()
    )
    about = {"@id": "./"}
    graph: list[dict[str, Any]] = [
        {
            "@id": CRATE_NAME,
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": about,
        },
        {
            **about,
            "@type": "Dataset",
            "name": study.protocol.title,
            "description": " ".join(study.protocol.hypotheses)
            + ("" if text else " Texts and token ids are left out."),
            "identifier": study.sealed.digest,
            "datePublished": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "license": "Rights reserved by whoever publishes it unless stated otherwise",
            "hasPart": [{"@id": name} for name in names],
        },
        *(_entity(payload, name) for name in names),
    ]
    content = {"@context": _CONTEXT, "@graph": graph}
    (payload / CRATE_NAME).write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )


def _entity(payload: Path, name: str) -> dict[str, Any]:
    path = payload / name
    entity: dict[str, Any] = {
        "@id": name,
        "@type": "File",
        "name": path.name,
        "contentSize": str(path.stat().st_size),
        "encodingFormat": _TYPES.get(path.suffix, "application/octet-stream"),
    }
    if name in _ABOUT:
        entity["description"] = _ABOUT[name]
    return entity
