# SPDX-License-Identifier: Apache-2.0
"""Settings of thermodynamic speculative decoding."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from qr_sampler.settings.environment import EnvironmentSettings

__all__ = ["TSDSettings"]


class TSDSettings(EnvironmentSettings):
    """Settings of one deployment, from ``QR_TSD_*`` environment variables and the ``.env`` file.

    Raises:
        ConfigError: From :meth:`load`, naming each offending variable, its value and its meaning.
    """

    model_config = SettingsConfigDict(env_prefix="QR_TSD_")

    mode: Literal["exact_match", "canonical"] = Field(
        "exact_match",
        description=(
            "How drafts are verified: 'exact_match' lets one draw after the logits decide every "
            "token, 'canonical' accepts and corrects draws from the proposal."
        ),
    )
    proposer: str | None = Field(
        None,
        description=(
            "What makes the proposals: the file of a saved proposer, the name of an installed one, "
            "or several joined by '+', as in 'ngram+bigram.npz'."
        ),
    )
    unit: str = Field(
        "simulated",
        description=(
            "What draws the drafts of the canonical mode: 'simulated', 'pbit_tree', 'gibbs', "
            "'thrml', 'thrml_tree', each with options after a colon (gibbs:sweeps=40), or a unit "
            "of another package. It passes its gate first."
        ),
    )
    verifier: Literal["token", "block"] = Field(
        "block",
        description="Rule of the canonical mode: tokens one by one, or whole blocks.",
    )
