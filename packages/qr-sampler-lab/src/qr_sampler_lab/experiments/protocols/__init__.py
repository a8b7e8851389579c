# SPDX-License-Identifier: Apache-2.0
"""Protocols to begin with, each of them the plan of a study that can be run as it is.

* ``null-control``: the operating system against ``sham``; must find nothing.
* ``known-effect``: bytes of mean 127.6 against the operating system; must find it.
* ``tripolar``: intentions HI, LO and baseline, in sessions whose order nobody knows.
* ``block-length``: 64, 1,024 and 10,240 bytes per token; whether z grows with their square root.
"""

from __future__ import annotations

__all__: list[str] = []
