# SPDX-License-Identifier: Apache-2.0
"""Settings as the ledger has them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

__all__ = ["recorded_values"]


def recorded_values(settings: BaseModel) -> dict[str, Any]:
    """Returns the values of *settings* as JSON-ready values, without those marked as secret.

    Examples:
        >>> class Access(BaseModel):
        ...     server: str = "qrng"
        ...     key: SecretStr = SecretStr("hidden")
        >>> recorded_values(Access())
        {'server': 'qrng'}
    """
    secret = {
        name
        for name in type(settings).model_fields
        if isinstance(getattr(settings, name), (SecretStr, SecretBytes))
    }
    return settings.model_dump(mode="json", exclude=secret)
