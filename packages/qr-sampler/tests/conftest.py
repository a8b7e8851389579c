# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command share, and how those of `deployments/` read its files."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

# Whoever imports it loses POSIX, which the search for examples in docstrings must not.
collect_ignore = ["without_posix"]

ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENTS = ROOT / "deployments"
CONTAINER_PROFILES = ("_template", "firefly-1", "timing", "urandom")

VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*):-([^{}$]*)\}")
"""The one form of interpolation that the profiles use: a name and its default."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Returns *text* with its variables replaced as docker compose does.

    An empty variable counts as absent: the `:-` of the Compose specification.
    """
    return VARIABLE.sub(lambda match: variables.get(match[1]) or match[2], text)


def resolved(node: Any, substitute: Callable[[str], str]) -> Any:
    """Returns a document with every text in it replaced; like compose, after it was parsed."""
    if isinstance(node, str):
        return substitute(node)
    if isinstance(node, list):
        return [resolved(item, substitute) for item in node]
    if isinstance(node, dict):
        return {key: resolved(value, substitute) for key, value in node.items()}
    return node


def assignments(text: str) -> dict[str, str]:
    """Returns the variables that an environment file sets; there is no quoting in ours."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def explanations(text: str) -> dict[str, str]:
    """Returns the comment above each variable of an environment file, on one line.

    A variable that is commented out has one, too.
    """
    found = {}
    for paragraph in text.split("\n\n"):
        *comments, last = paragraph.strip().splitlines()
        name, assigned, _ = last.removeprefix("# ").partition("=")
        if assigned and re.fullmatch("[A-Z][A-Z0-9_]*", name):
            found[name] = " ".join(line.removeprefix("#").strip() for line in comments)
    return found


class Profile:
    """One folder of `deployments/` that is made of containers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = DEPLOYMENTS / name
        self.compose_file = self.folder / "docker-compose.yml"
        self.text = self.compose_file.read_text("utf-8")
        self.example = (self.folder / ".env.example").read_text("utf-8")
        self.uses = VARIABLE.findall(self.text)
        self.defaults = dict(self.uses)

    def compose(
        self,
        variables: Mapping[str, str] | None = None,
        substitute: Callable[[str], str] | None = None,
    ) -> Any:
        """Returns the document, interpolated with *variables* or by another hand."""
        import yaml

        document = yaml.safe_load(self.text)
        return resolved(document, substitute or (lambda text: interpolate(text, variables or {})))

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Returns the environment of the container with vLLM."""
        values: dict[str, str] = self.compose(variables)["services"]["vllm"]["environment"]
        return values


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> Iterator[None]:
    """Undoes what a shell does to background jobs: they ignore SIGINT, and so do their children."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the size of a window that is not there.

    pytest loads readline, which puts a size into the environment of its child processes; workers
    of pytest-xdist are such.
    """
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def deployments() -> Path:
    """The folder of all profiles."""
    if not DEPLOYMENTS.is_dir():
        pytest.skip("the deployments are not part of the source distribution")
    return DEPLOYMENTS


@pytest.fixture(params=CONTAINER_PROFILES)
def profile(request: pytest.FixtureRequest, deployments: Path) -> Profile:
    """Each profile that is made of containers."""
    pytest.importorskip("yaml", reason="PyYAML reads the compose files")
    return Profile(request.param)


@pytest.fixture
def environment_files(deployments: Path) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """What the example files of all profiles set, and how they explain it, by their path."""
    files = (*deployments.glob("*/.env.example"), *deployments.glob("*/*.env.example"))
    texts = {str(path.relative_to(deployments)): path.read_text("utf-8") for path in files}
    return {path: (assignments(text), explanations(text)) for path, text in texts.items()}
