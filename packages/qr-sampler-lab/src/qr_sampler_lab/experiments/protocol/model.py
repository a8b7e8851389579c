# SPDX-License-Identifier: Apache-2.0
"""The protocol: everything about a study that is decided before it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from qr_sampler_lab.experiments.protocol.arms import Arm, ModelChoice, Option, Prompt
from qr_sampler_lab.experiments.protocol.design import (
    Design,
    Exclusions,
    ScheduledRun,
    Stopping,
)
from qr_sampler_lab.experiments.protocol.endpoints import PrimaryEndpoint, SecondaryEndpoint
from qr_sampler_lab.experiments.protocol.part import Name, Part, Words

__all__ = ["MOST_REQUESTS", "PROTOCOL_VERSION", "Protocol"]

PROTOCOL_VERSION: Final = 1
"""Version of the format that this module describes."""

MOST_REQUESTS: Final = 1_000_000
"""Most requests of a study, which are held in memory as a list."""

_OF_THE_RUNNER: Final = ("QR_ENTROPY_SOURCE_TYPE", "QR_REQUEST_ENTROPY_SOURCES", "QR_LEDGER_")
"""Variables, and beginnings of such, that follow from the protocol."""

_SECRETS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")
"""How names of variables end whose values must not be in a protocol."""

Variable = Annotated[str, Field(pattern="^QR_[A-Z0-9_]{1,60}$")]


class Protocol(Part):
    """A study before it begins; ``PROTOCOL.yaml`` holds one."""

    protocol: Literal[1] = Field(description="Version of this format.")
    name: Name
    title: str = Field(min_length=1, max_length=200)
    kind: Literal["pilot", "formal"] = Field(
        description="A pilot may teach how to plan; only a formal study tests."
    )
    hypotheses: tuple[Words, ...] = Field(min_length=1, max_length=20)
    model: ModelChoice
    environment: dict[Variable, Option] = Field(
        default_factory=dict,
        description="QR_* settings of the engine and its sources, without secrets; all others have "
        "their defaults. Relative paths are below the study, and sealed.",
    )
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=64)
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=10_000)
    design: Design
    primary: PrimaryEndpoint
    secondary: tuple[SecondaryEndpoint, ...] = Field((), max_length=100)
    correction: Literal["holm", "bh"] = Field(
        "holm", description="Correction of the secondary endpoints: Holm, or Benjamini-Hochberg."
    )
    stopping: Stopping = Field(default_factory=Stopping)
    exclusions: Exclusions = Field(default_factory=Exclusions)
    schedule: tuple[ScheduledRun, ...] = Field((), max_length=100)

    @field_validator("environment")
    @classmethod
    def _environment_is_the_protocols(cls, environment: dict[str, Option]) -> dict[str, Option]:
        for name in environment:
            if name.startswith(_OF_THE_RUNNER):
                raise ValueError(f"{name} follows from the protocol; remove it")
            if name.endswith(_SECRETS):
                raise ValueError(f"{name} may be a secret; set it in the environment instead")
        return environment

    @model_validator(mode="after")
    def _names_are_unique(self) -> Protocol:
        _refuse_twice("arms", (arm.name for arm in self.arms))
        _refuse_twice("secondary", (endpoint.name for endpoint in self.secondary))
        _refuse_twice("prompts", (prompt.file for prompt in self.prompts))
        return self

    @model_validator(mode="after")
    def _arms_exist(self) -> Protocol:
        known = {arm.name: arm for arm in self.arms}
        for endpoint in (self.primary, *self.secondary):
            for name in endpoint.contrast:
                if name not in known:
                    raise ValueError(f"a contrast names arm {name!r}, which is not among the arms")
                if not known[name].per_block:
                    raise ValueError(
                        f"a contrast names arm {name!r}, which is never randomised; give it a "
                        "per_block of 1 or more"
                    )
        for run in self.schedule:
            if run.arm not in known:
                raise ValueError(f"the schedule names arm {run.arm!r}, which is not among the arms")
        return self

    @model_validator(mode="after")
    def _every_arm_is_used(self) -> Protocol:
        scheduled = {run.arm for run in self.schedule}
        for arm in self.arms:
            if not arm.per_block and arm.name not in scheduled:
                raise ValueError(
                    f"arm {arm.name!r} is neither in the blocks nor in the schedule; remove it, or "
                    "give it a per_block of 1 or more"
                )
        return self

    @model_validator(mode="after")
    def _e_values_fit_the_design(self) -> Protocol:
        if self.stopping.rule == "e_value":
            weights = sorted(self.primary.contrast.values())
            if len(weights) != 2 or weights != [-1.0, 1.0]:
                raise ValueError(
                    "rule: e_value compares tokens of two arms in pairs: the contrast of the "
                    "primary endpoint weighs one with 1 and the other with -1"
                )
            if self.primary.statistic != "mean_statistic":
                raise ValueError("rule: e_value is for the statistic mean_statistic")
            if not self.design.fixed_length:
                raise ValueError(
                    "rule: e_value needs fixed_length: true, since means of answers whose end u "
                    "decides are biased"
                )
        return self

    @model_validator(mode="after")
    def _something_is_left(self) -> Protocol:
        if self.exclusions.first_tokens >= self.design.tokens_per_request:
            raise ValueError(
                f"first_tokens={self.exclusions.first_tokens} leaves nothing of answers of "
                f"{self.design.tokens_per_request} tokens"
            )
        return self

    @model_validator(mode="after")
    def _can_be_listed(self) -> Protocol:
        if self.requests > MOST_REQUESTS:
            raise ValueError(
                f"the study has {self.requests:,} requests, and {MOST_REQUESTS:,} are the most; "
                "make fewer of more tokens"
            )
        return self

    @property
    def requests(self) -> int:
        """Number of all requests, those of the schedule included."""
        design = self.design
        of_blocks = design.blocks * self.block_size * design.requests_per_session
        return of_blocks + sum(
            run.requests * (design.blocks if run.at == "every_block" else 1)
            for run in self.schedule
        )

    @property
    def sessions(self) -> int:
        """Number of all sessions, those of the schedule included."""
        design = self.design
        of_block = 1 if design.unit == "request" else self.block_size
        return design.blocks * of_block + sum(
            design.blocks if run.at == "every_block" else 1 for run in self.schedule
        )

    @property
    def block_size(self) -> int:
        """Number of units in one block."""
        return sum(arm.per_block for arm in self.arms)

    @property
    def tokens_per_arm(self) -> dict[str, int]:
        """Tokens of every randomised arm that count, at most: N of the study."""
        design = self.design
        counted = design.tokens_per_request - self.exclusions.first_tokens
        of_one = design.blocks * design.requests_per_session * counted
        return {arm.name: of_one * arm.per_block for arm in self.arms if arm.per_block}

    def arm(self, name: str) -> Arm:
        """Returns the arm of a name.

        Raises:
            KeyError: When there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)


def _refuse_twice(field: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{field}: {twice[0]!r} is there twice; names are unique")
