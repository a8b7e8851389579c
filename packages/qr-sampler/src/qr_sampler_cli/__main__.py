# SPDX-License-Identifier: Apache-2.0
"""``python -m qr_sampler_cli`` is the ``qr-sampler`` command."""

from __future__ import annotations

from qr_sampler_cli.main import app

if __name__ == "__main__":
    app(prog_name="qr-sampler")
