# SPDX-License-Identifier: Apache-2.0
"""One set of settings for a front end and all processes of its engines.

A request is accepted by one process and served by others, which may work in other directories and
start at another time. So the front end hands on where its ``.env`` file is, and compares what it
has read with what the others say that they have read. Engines on other hosts read their own files.
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
"""Environment variable that hands the file on to the processes of an engine, behind the number of
the process that has chosen it."""


def share_env_file() -> None:
    """Has this process read the file of its front end, which is the one where that was started."""
    handed_on = inherited(VARIABLE)
    if handed_on is None:
        try:
            handed_on = str(env_file().absolute())
        except FileNotFoundError:
            # The working directory is gone, and no file can be in it.
            return
        os.environ[VARIABLE] = f"{os.getpid()}:{handed_on}"
    pin_env_file(Path(handed_on))


def agreed_settings() -> Settings:
    """Returns the settings of this front end, which are those of its engines.

    Raises:
        ConfigError: When a value is malformed, or an engine has read another one; names the
            variables, and no values, since a client may see them.
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
        # It has ended, or the number is somebody else's by now.
        return False
    return True
