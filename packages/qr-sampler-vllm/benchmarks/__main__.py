# SPDX-License-Identifier: Apache-2.0
"""The command behind ``uv run nox -s bench``."""

from __future__ import annotations

import os
import sys

# Read by OpenMP and MKL when torch is imported, so they come before everything else.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
