# SPDX-License-Identifier: Apache-2.0
"""What pydantic finds wrong, in the names and words that users know."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from qr_sampler.errors import shown

__all__ = ["describe_validation_error", "public_name"]


def public_name(field: str, prefix: str) -> str:
    """Returns *field* as users write it: ``QR_TOP_K`` for a variable, ``qr_top_k`` for a key."""
    return prefix + (field.upper() if prefix.isupper() else field)


def describe_validation_error(
    error: ValidationError,
    model: type[BaseModel],
    *,
    prefix: str,
    names: Mapping[str, str] | None = None,
) -> str:
    """Returns one sentence per offending field: its public name, its value, the rule, the meaning.

    Args:
        error: What pydantic found.
        model: The model whose field descriptions explain the rule.
        prefix: Put before field names, ``"QR_"`` for variables or ``"qr_"`` for request keys;
            names take the case of the prefix.
        names: The public names of those fields that users write in another way.
    """
    public_names = {
        field: (names or {}).get(field) or public_name(field, prefix)
        for field in model.model_fields
    }
    sentences = []
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if not field:
            message = problem["msg"].removeprefix("Value error, ")
            sentences.append(_with_public_names(message, public_names))
            continue
        public = public_names.get(field) or public_name(field, prefix)
        meaning = model.model_fields[field].description if field in model.model_fields else None
        suffix = f" ({meaning})" if meaning else ""
        sentences.append(f"{public}={shown(problem['input'])}: {problem['msg']}{suffix}")
    return "; ".join(sentences)


def _with_public_names(message: str, public_names: Mapping[str, str]) -> str:
    return re.sub(r"\w+", lambda match: public_names.get(match[0], match[0]), message)
