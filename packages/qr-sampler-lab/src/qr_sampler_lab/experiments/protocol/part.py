# SPDX-License-Identifier: Apache-2.0
"""What all parts of a protocol have in common: they are fixed once made, and know every key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Name", "Part", "Words"]

Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A name that is also safe in a path: lower-case letters, digits, hyphens and underscores."""

Words = Annotated[str, Field(min_length=1, max_length=4_000)]
"""A text for people."""


class Part(BaseModel):
    """A part of a protocol. Unknown keys, NaN and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
