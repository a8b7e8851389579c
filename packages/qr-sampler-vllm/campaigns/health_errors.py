# SPDX-License-Identifier: Apache-2.0
"""Ends an engine by each of six faults of its source, with ``QR_FALLBACK_MODE=error``.

Six engines are started, since each of them ends: the error names the test that the source has
failed, no token comes from its bytes after that, and the records account for all of them. The tests
of the package do so for one fault; this runs the same test for all.

    python campaigns/health_errors.py

It needs vLLM, and the model that the tests use.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "engine" / "test_vllm_health.py"
LONGEST_S = 1800.0


def main() -> int:
    """Runs the tests and returns their exit status."""
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-Wdefault", "-k", "each_fault", str(TESTS)],
        env={**os.environ, "HEALTH_ERRORS": "1"},
        timeout=LONGEST_S,
        check=False,
    )
    verdict = "failed" if result.returncode else "passed"
    print(f"{verdict}, {time.monotonic() - began:.0f} s")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
