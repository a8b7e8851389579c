# SPDX-License-Identifier: Apache-2.0
"""What is compared: arms, the model that writes, and the prompts that it answers."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, field_validator

from qr_sampler.admission.overrides import KEY_PREFIX, LABEL_KEYS, SOURCE_KEY, SWITCH_KEYS
from qr_sampler_lab.experiments.protocol.part import Name, Part, Words

__all__ = ["Arm", "Intention", "ModelChoice", "Option", "Prompt"]

Intention: TypeAlias = Literal["HI", "LO", "baseline"]
"""What a participant intends: high numbers, low numbers, or nothing."""

Option: TypeAlias = str | int | float | bool
"""A value of a request option."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

_OF_THE_RUNNER: Final = (*LABEL_KEYS, *SWITCH_KEYS)
"""Keys of requests that belong to whoever runs the study."""

_OF_THE_ARM: Final = {
    SOURCE_KEY: "source",
    "qr_sample_count": "block_bytes",
    "qr_signal_amplifier_type": "amplifier",
}
"""Keys of requests that have a field of their own."""


class Arm(Part):
    """One condition: where its numbers come from, and what is intended meanwhile."""

    name: Name
    source: str = Field(min_length=1, description="Name of the entropy source.")
    block_bytes: int = Field(ge=1, description="Bytes that decide one token (qr_sample_count).")
    amplifier: str = Field("zscore_mean", description="Amplifier (qr_signal_amplifier_type).")
    intention: Intention = Field("baseline", description="What the participant intends.")
    sham: bool = Field(False, description="Whether it only looks like a device.")
    instructions: str = Field(
        "", max_length=4_000, description="What the participant is told, word for word."
    )
    per_block: int = Field(
        1, ge=0, le=1_000, description="How often it occurs in one block; 0 if only scheduled."
    )
    options: dict[str, Option] = Field(
        default_factory=dict, description="Further qr_* options of its requests."
    )

    @field_validator("options")
    @classmethod
    def _options_are_the_arms(cls, options: dict[str, Option]) -> dict[str, Option]:
        for key in options:
            if not key.startswith(KEY_PREFIX):
                raise ValueError(f"{key!r} is no option of a request; they begin with {KEY_PREFIX}")
            if key in _OF_THE_RUNNER:
                raise ValueError(f"{key} belongs to whoever runs the study; remove it")
            if key in _OF_THE_ARM:
                raise ValueError(f"{key} has a field of its own; set {_OF_THE_ARM[key]} instead")
        return options

    @property
    def request_options(self) -> dict[str, Option]:
        """The ``qr_*`` options of each of its requests, without labels."""
        return {
            SOURCE_KEY: self.source,
            "qr_sample_count": self.block_bytes,
            "qr_signal_amplifier_type": self.amplifier,
            **self.options,
        }


class ModelChoice(Part):
    """The model that all arms share."""

    path: str = Field(
        min_length=1, description="Directory of the model, absolute or below the study, or a name."
    )
    name: str = Field(
        "", description="Public name, for the records; if empty, the path's last part."
    )
    manifest_sha256: Digest | None = Field(
        None, description="Digest that the manifest of its files must have."
    )

    @property
    def public_name(self) -> str:
        """What records and reports call it."""
        return self.name or PurePosixPath(self.path).name


class Prompt(Part):
    """A text that is continued, in a file beside the protocol."""

    file: str = Field(min_length=1, max_length=255, description="Path below the study, UTF-8.")
    sha256: Digest | None = Field(None, description="Digest that the file must have.")
    about: Words | None = None

    @field_validator("file")
    @classmethod
    def _stays_below(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file or not path.parts:
            raise ValueError(f"{file!r} is not below the study; name a file such as prompts/a.txt")
        return str(path)
