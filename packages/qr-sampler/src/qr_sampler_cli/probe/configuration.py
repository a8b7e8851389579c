# SPDX-License-Identifier: Apache-2.0
"""The lines to paste when a server has been found usable."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

__all__ = ["pasteable"]


def pasteable(variables: Mapping[str, str]) -> str:
    """Returns one line for each of *variables*, good for a shell and for a ``.env`` file.

    Examples:
        >>> print(pasteable({"QR_GRPC_MODE": "unary", "QR_GRPC_TLS_CA_CERT": "/my files/ca.pem"}))
        QR_GRPC_MODE=unary
        QR_GRPC_TLS_CA_CERT='/my files/ca.pem'
    """
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
