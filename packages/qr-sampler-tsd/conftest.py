# SPDX-License-Identifier: Apache-2.0
"""Leaves the module that imports thrml to environments with the extra ``thrml``."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("thrml") else ["src/qr_sampler_tsd/tsu/_thrml_program.py"]
