# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of ``PROTOCOL.yaml``, for editors and for other people's programs."""

from __future__ import annotations

import json

from qr_sampler_lab.experiments.protocol.model import PROTOCOL_VERSION, Protocol

__all__ = ["json_schema"]


def json_schema() -> str:
    """Returns the JSON Schema of a protocol, as a text that ends with a newline."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Protocol.model_json_schema(),
        "title": f"A protocol of a qr-sampler study, version {PROTOCOL_VERSION}",
    }
    return json.dumps(schema, indent=2) + "\n"
