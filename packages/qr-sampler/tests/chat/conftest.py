# SPDX-License-Identifier: Apache-2.0
"""The engine that the tests of conversations talk with."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qr_sampler_cli.engines import EngineChoice
from qr_sampler_cli.main import app

PROGRAM = Path(__file__).with_name("toy_engine.py")


@pytest.fixture(scope="session")
def toy_module() -> Iterator[Any]:
    """The module of the engine, which is a program as well."""
    spec = importlib.util.spec_from_file_location("toy_engine", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def engine_class(toy_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A class of engines of a test's own; those that were made are in ``made``."""
    for name in [name for name in os.environ if name.startswith(("QR_", "NO_COLOR"))]:
        monkeypatch.delenv(name)
    # The blocks of the default amplifier are large, and do not matter here.
    monkeypatch.setenv("QR_SIGNAL_AMPLIFIER_TYPE", "exact_sum")
    monkeypatch.setenv("QR_SAMPLE_COUNT", "64")
    monkeypatch.chdir(tmp_path)
    made: list[Any] = []

    class Engine(toy_module.ToyEngine):  # type: ignore[misc]
        pass

    Engine.made = made

    def load(name: str, model: str, settings: Any, *, arguments: Any) -> Any:
        made.append(Engine(model, settings=settings))
        return made[-1]

    monkeypatch.setattr("qr_sampler_cli.engines.loading.load_engine", load)
    choice = EngineChoice("transformers", "because a test says so")
    monkeypatch.setattr("qr_sampler_cli.chat.run.choose_engine", lambda *_: choice)
    return Engine


@pytest.fixture
def chat(engine_class: Any) -> Callable[..., Result]:
    """Runs ``qr-sampler chat`` with the toy engine on lines of a script."""

    def run(*lines: str, arguments: tuple[str, ...] = ()) -> Result:
        text = "".join(f"{line}\n" for line in lines)
        return CliRunner().invoke(app, ["chat", "--model=m", *arguments], input=text)

    return run
