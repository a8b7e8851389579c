# SPDX-License-Identifier: Apache-2.0
"""The snippets of docs/statistics.md run, and print what the page says around them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import qr_sampler_lab.analysis
from qr_sampler_lab.analysis import effect_of_byte_mean

PAGE = Path(__file__).resolve().parents[4] / "docs" / "statistics.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")


def outputs() -> list[str]:
    """Runs every snippet by itself and returns what each prints."""
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    printed = []
    for snippet in snippets:
        with contextlib.redirect_stdout(io.StringIO()) as caught:
            exec(compile(snippet, str(PAGE), "exec"), {})
        printed.append(caught.getvalue())
    return printed


def test_snippets_print_what_the_page_says() -> None:
    battery, arms, power, lattice, anytime, latency = outputs()
    p_values = [float(each) for each in re.findall(r"p = ([\d.]+)", battery)]
    assert len(p_values) == 9
    assert min(p_values) > 1e-3
    effect, low, high = (float(each) for each in re.findall(r"-?[\d.]+", arms))
    assert low < 0.1 < high
    assert low < effect < high
    assert power.startswith("0.137 standard deviations need 1,246 tokens per arm\n")
    assert f"{effect_of_byte_mean(127.6, 10_240):.3f}" == "0.137"
    exact, naive = re.findall(r"p = ([\d.]+); as if continuous: (\S+)", lattice)[0]
    assert float(exact) > 1e-3
    assert float(naive) < 1e-9
    assert re.search(r"e first reached 100 after \d+ pairs", anytime)
    one, always = (int(each) for each in re.findall(r": (\d+)\n", anytime))
    assert one == round(2.5758 * 1_000**0.5)
    assert always > one
    assert re.fullmatch(r"(4\d|5[0-4])% True; [7-9]\d%\n", latency)


def test_every_name_in_the_tables_exists() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert len(names) > 15
    assert names <= set(qr_sampler_lab.analysis.__all__)
