# SPDX-License-Identifier: Apache-2.0
"""One set of settings for a front end and all processes of its engines.

One process accepts a request and others serve it, possibly from other directories and started at
another time. So the front end passes on the path of its ``.env`` file, and compares the settings it
has read with those that the others report. Engines on other hosts read their own files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from qr_sampler import ConfigError, Settings
from qr_sampler.settings.env_file import env_file, pin_env_file
from qr_sampler_vllm.status.run_directory import announced, inherited

__all__ = ["VARIABLE", "agreed_settings", "share_env_file"]

VARIABLE: Final = "QR_SAMPLER_ENV_FILE"
"""Environment variable that passes the path on to the processes of an engine, after the id of the
process that chose it and a colon."""


def share_env_file() -> None:
    """Makes this process read the ``.env`` file of its front end's working directory."""
    handed_on = inherited(VARIABLE)
    if handed_on is None:
        try:
            handed_on = str(env_file().absolute())
        except FileNotFoundError:
            # The working directory has been removed, so there is no file in it.
            return
        os.environ[VARIABLE] = f"{os.getpid()}:{handed_on}"
    pin_env_file(Path(handed_on))


def agreed_settings() -> Settings:
    """Returns the settings of this front end after checking that its engines have the same.

    Raises:
        ConfigError: When a value is malformed, or an engine has read a different one; names the
            variables but not the values, which a client must not see.
    """
    settings = Settings.load()
    ours = settings.model_dump(mode="json")
    for process, theirs in announced().items():
        different = sorted(name for name in theirs if theirs[name] != ours.get(name))
        if different and _runs(process):
            names = ", ".join(f"QR_{name.upper()}" for name in different)
            raise ConfigError(
                f"the front end and an engine have read different settings ({names}): the "
                "environment or the .env file has changed since the engine was started; start both "
                "again"
            )
    return settings


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        # It has ended, or its id belongs to another user's process by now.
        return False
    return True
