# SPDX-License-Identifier: Apache-2.0
"""From an empty environment to shaded tokens of a served generator, by the README's commands.

Prints how long each of its blocks took::

    python packages/qr-sampler/campaigns/laptop.py [--python PYTHON]
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess  # nosec B404
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"<!-- run by: \S+ -->\n```bash\n(.*?)```", re.DOTALL)

PREAMBLE = """
set -euo pipefail
trap 'kill $(jobs -p)' EXIT
mark() { echo "TIME $1 $EPOCHREALTIME"; }
mark begin
"""

# Whoever types waits until the server listens.
WAIT = """
until (exec 3<>/dev/tcp/127.0.0.1/50061) 2>/dev/null; do sleep 0.1; done
"""


def blocks() -> list[str]:
    """Returns the commands of the README's part on laptops."""
    text = (ROOT / "README.md").read_text("utf-8")
    part = text.split("### On a laptop\n")[1].split("\n### ")[0]
    return BLOCK.findall(part)


def script(python: str) -> str:
    """Returns the commands in order, each block followed by a mark of the time."""
    install, serve, talk = blocks()
    install = install.replace("python3 -m venv", f"{python} -m venv")
    serve = serve.replace(" &\n", " &\n" + WAIT, 1)
    return f"{PREAMBLE}{install}mark install\n{serve}mark generate\n{talk}mark chat\n"


def environment() -> dict[str, str]:
    """Returns the variables of this process without its settings, and colours as in a terminal."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("QR_", "PYTHON", "VIRTUAL_ENV", "NO_COLOR"))
    }
    return {**kept, "FORCE_COLOR": "1", "COLORTERM": "truecolor"}


def times(output: str) -> dict[str, float]:
    """Returns how many seconds each block took."""
    marks = [(name, float(at)) for name, at in re.findall(r"TIME (\w+) ([\d.]+)", output)]
    return {name: at - before for (_, before), (name, at) in itertools.pairwise(marks)}


def main() -> int:
    """Runs the commands in a clone of the last commit; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="Interpreter of the environment.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="laptop-") as place:
        clone = ["git", "clone", "--quiet", str(ROOT), place]
        subprocess.run(clone, check=True)  # nosec B603
        begun = time.monotonic()
        done = subprocess.run(  # nosec B603 B607
            ["bash", "-c", script(options.python)],
            cwd=place,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        whole = time.monotonic() - begun
    print(re.sub(r"^TIME .*\n", "", done.stdout, flags=re.MULTILINE)[-4000:])
    for name, seconds in times(done.stdout).items():
        print(f"{name:10} {seconds:6.1f} s")
    print(f"{'together':10} {whole:6.1f} s")
    shaded = "\x1b[38;2;" in done.stdout.rpartition("TIME generate")[2]
    print("tokens are shaded" if shaded else "NO TOKEN IS SHADED")
    return done.returncode or (0 if shaded else 1)


if __name__ == "__main__":
    raise SystemExit(main())
