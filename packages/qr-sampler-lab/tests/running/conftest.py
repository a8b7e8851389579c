# SPDX-License-Identifier: Apache-2.0
"""Small studies on the toy host."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qr_sampler_lab.experiments.bundle.making import make_bundle
from qr_sampler_lab.experiments.results.report import write_report
from qr_sampler_lab.experiments.results.revealed import unblind
from qr_sampler_lab.experiments.running.conduct import Conduct, conduct
from qr_sampler_lab.experiments.sealing import seal_study
from qr_sampler_lab.experiments.study import Study

PLAN: dict[str, Any] = {
    "protocol": 1,
    "name": "small",
    "title": "A small study",
    "kind": "pilot",
    "hypotheses": ["The arms differ in nothing."],
    "model": {"path": "model"},
    "environment": {"QR_MOCK_UNIFORM_MEAN": 127.6, "QR_MAX_KS_DISTANCE": 0.02},
    "arms": [
        {"name": "biased", "source": "mock_uniform", "block_bytes": 256},
        {"name": "control", "source": "system", "block_bytes": 256},
    ],
    "prompts": [{"file": "prompts/a.txt"}, {"file": "prompts/b.txt"}],
    "design": {"blocks": 6, "tokens_per_request": 8},
    "primary": {
        "contrast": {"biased": 1, "control": -1},
        "side": "greater",
        "alpha": 0.01,
        "smallest_effect": 0.1,
    },
}

MakeStudy = Callable[..., Study]


@pytest.fixture(scope="session", autouse=True)
def _settings_of_nobody() -> Iterator[None]:
    """Hides the operator's own settings from every study."""
    with pytest.MonkeyPatch.context() as patched:
        for name in os.environ:
            if name.upper().startswith("QR_"):
                patched.delenv(name)
        yield


@pytest.fixture(scope="session")
def code_is_digested_once() -> Iterator[None]:
    """Remembers the digests of our code, which takes longer to read than a small study to run."""
    from functools import lru_cache

    from qr_sampler.records import code_digest, genesis
    from qr_sampler_lab.experiments import environment

    patched = pytest.MonkeyPatch()
    remembered = lru_cache(code_digest.code_digest)
    patched.setattr(environment, "code_digest", remembered)
    patched.setattr(code_digest, "code_digest", remembered)
    patched.setattr(genesis, "code_digest", remembered, raising=False)
    yield
    patched.undo()


def write_study(directory: Path, **changes: Any) -> Study:
    """Writes the files of a study, with keys of the plan replaced."""
    (directory / "model").mkdir(parents=True)
    (directory / "model" / "toy-model.json").write_text("{}")
    (directory / "prompts").mkdir()
    for name in ("a", "b"):
        (directory / "prompts" / f"{name}.txt").write_text(f"Prompt {name}")
    (directory / "PROTOCOL.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
    return Study(directory)


@pytest.fixture
def make_study(tmp_path: Path, code_is_digested_once: None) -> MakeStudy:
    """Returns what makes a sealed study in a laboratory of its own."""

    def make(**changes: Any) -> Study:
        study = write_study(tmp_path / "lab" / "study", **changes)
        seal_study(study, witness=None)
        return Study(study.directory)

    return make


def finish(study: Study, how: Conduct | None = None) -> Study:
    """Carries a study out, unblinds it and reports."""
    assert conduct(study, how or Conduct())
    unblind(study)
    write_report(study)
    return study


@pytest.fixture(scope="session")
def finished_lab(tmp_path_factory: pytest.TempPathFactory, code_is_digested_once: None) -> Path:
    """A laboratory with one finished study and its bundle; not to be changed."""
    lab = tmp_path_factory.mktemp("finished") / "lab"
    study = write_study(lab / "study")
    seal_study(study, witness=None)
    make_bundle(finish(Study(study.directory)), lab / "bundle")
    return lab


@pytest.fixture
def finished_study(finished_lab: Path, tmp_path: Path) -> Study:
    """A copy of the finished study."""
    shutil.copytree(finished_lab, tmp_path / "lab")
    return Study(tmp_path / "lab" / "study")


@pytest.fixture
def bundle(finished_lab: Path, tmp_path: Path) -> Path:
    """A copy of its bundle."""
    shutil.copytree(finished_lab / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def one_at_a_time(make_study: MakeStudy, tmp_path: Path) -> Path:
    """The bundle of a study whose sessions were made one after another."""
    make_bundle(finish(make_study(), Conduct(at_once=1)), tmp_path / "bundle")
    return tmp_path / "bundle"


def journal_of(study: Study) -> list[dict[str, Any]]:
    """Returns the lines of a journal."""
    return [json.loads(line) for line in study.journal.path.read_text().splitlines()]
