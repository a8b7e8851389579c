# SPDX-License-Identifier: Apache-2.0
"""What the project's README says, compared with the repository: links, commands, numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import NormalDist

import pytest

from qr_sampler.settings import BYTE_MEAN, BYTE_STD

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(
    not README.exists() or not (ROOT / "deployments").is_dir(),
    reason="the project's README is in the repository, not in this archive",
)

RUNNERS = {"tests/engine/test_vllm_readme.py", ".ci/run", "containers"}
"""Who runs a command: a test with vLLM, the CI script, or nobody without a container engine."""

ON_GITHUB = "../../actions/"
"""Badges lead to pages of the repository, not to files in it."""


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def blocks(language: str) -> list[tuple[str, str]]:
    """Returns the fenced blocks of a language, each with the comment that says who runs it."""
    pattern = rf"(?:<!-- run by: ([^>]*) -->\n)?```{language}\n(.*?)```"
    return re.findall(pattern, text_of(README), flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Returns the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text_of(path), flags=re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(README))
    assert len(targets) > 40
    for target in targets:
        if target.startswith(ON_GITHUB):
            continue
        name, _, anchor = target.partition("#")
        path = README.parent / name if name else README
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_every_command_says_who_runs_it() -> None:
    runners = [runner for runner, _ in blocks("bash")]
    assert set(runners) == RUNNERS


def test_commands_of_containers_name_folders_that_have_what_they_need() -> None:
    commands = [code for runner, code in blocks("bash") if runner == "containers"]
    assert commands
    for line in "".join(commands).splitlines():
        found = re.fullmatch(r"cd (deployments/\S+) && docker compose [a-z -]+", line)
        assert found is not None, line
        assert (ROOT / found[1] / "docker-compose.yml").exists(), line


def test_table_of_settings_is_a_part_of_the_reference() -> None:
    shown = text_of(README).split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]
    reference = text_of(ROOT / "docs" / "configuration.md").splitlines()
    lines = shown.splitlines()
    assert len(lines) > 8
    assert [line for line in lines if line not in reference] == []


def test_variables_are_those_of_the_reference() -> None:
    known = set(re.findall(r"`(QR_\w+)`", text_of(ROOT / "docs" / "configuration.md")))
    named = set(re.findall(r"\bQR_[A-Z0-9_]*[A-Z0-9]\b(?!_?\*)", text_of(README)))
    assert named - known == set()


def test_guide_has_the_parts_of_its_contents() -> None:
    guide = text_of(README).split("## Setting Up Your Own Entropy Source\n")[1].split("\n## ")[0]
    assert re.findall(r"^### ([A-Z])\. ", guide, flags=re.MULTILINE) == list("ABCDEFG")


def test_packages_are_all_named() -> None:
    packages = {path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")}
    named = set(re.findall(r"\]\(packages/([\w-]+)\)", text_of(README)))
    assert named <= packages
    # Not usable yet: it is announced when it is.
    assert packages - named <= {"qr-sampler-tsd"}


def rounded(value: float) -> float:
    """Returns *value* with the two digits that the page gives."""
    digits = 1 - math.floor(math.log10(value))
    return round(value, digits)


def test_effects_of_a_bias_are_what_they_are_said_to_be() -> None:
    """With z ~ N(s, 1), s the shift of the mean in standard errors, E[Phi(z)] = Phi(s / sqrt 2)."""
    rows = re.findall(r"^\| (12\d\.\d+) \| (0\.\d+) \| ([\d,]+) \|$", text_of(README), re.MULTILINE)
    assert len(rows) == 3
    for mean, mean_of_u, tokens in rows:
        shift = (float(mean) - BYTE_MEAN) * math.sqrt(10_240) / BYTE_STD
        expected = NormalDist().cdf(shift / math.sqrt(2))
        assert f"{expected:.4f}" == mean_of_u
        needed = (5 * math.sqrt(1 / 12) / (expected - 0.5)) ** 2
        assert rounded(needed) == int(tokens.replace(",", ""))
