# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler tiny-model`` around a trainer that trains nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler_cli.main import app
from qr_sampler_cli.terminal.consoles import progress_console
from qr_sampler_cli.tiny_model.directory import (
    DEFAULT_STEPS,
    ForeignDirectoryError,
    TinyModelSummary,
)


class Trainer:
    """Stands in for both functions of the trainer and notes how it was called."""

    def __init__(self, *, reused: bool) -> None:
        self.reused = reused
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, directory: Path, *, steps: int, seed: int, progress: Any
    ) -> TinyModelSummary:
        self.calls.append({"directory": directory, "steps": steps, "seed": seed})
        print("a banner of a library")
        for step in range(1, steps + 1):
            progress(step, steps, 9.0 / step)
        return TinyModelSummary(
            directory=directory,
            parameters=790_000,
            vocab_size=2048,
            corpus_tokens=100_000,
            steps=steps,
            final_loss_nats=2.5,
            training_s=61.4,
            reused=self.reused,
        )


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> tuple[Trainer, Trainer]:
    reusing, training = Trainer(reused=True), Trainer(reused=False)
    monkeypatch.setattr("qr_sampler_cli.commands.tiny_model.ensure_tiny_model", reusing)
    monkeypatch.setattr("qr_sampler_cli.commands.tiny_model.train_tiny_model", training)
    return reusing, training


def test_model_that_is_there_is_reused(trainers: tuple[Trainer, Trainer]) -> None:
    reusing, training = trainers
    result = CliRunner().invoke(app, ["tiny-model", "some/dir"])
    assert result.exit_code == 0
    assert result.stdout == (
        "some/dir: reused; 790,000 parameters, 2,048 tokens, loss 2.50 nats per token\n"
    )
    assert reusing.calls == [{"directory": Path("some/dir"), "steps": DEFAULT_STEPS, "seed": 0}]
    assert training.calls == []


def test_force_trains_with_the_given_steps_and_seed(trainers: tuple[Trainer, Trainer]) -> None:
    reusing, training = trainers
    arguments = ["tiny-model", "d", "--force", "--steps=20", "--seed=3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "d: trained in 61 s;" in result.stdout
    assert reusing.calls == []
    assert training.calls == [{"directory": Path("d"), "steps": 20, "seed": 3}]


def test_progress_without_a_terminal_is_ten_lines(trainers: tuple[Trainer, Trainer]) -> None:
    result = CliRunner().invoke(app, ["tiny-model", "d", "--force", "--steps=20"])
    lines = [line for line in result.stderr.splitlines() if line.startswith("training")]
    assert len(lines) == 10
    assert lines[-1] == "training the tiny model: step 20 of 20, loss 0.45"


def test_progress_on_a_terminal_is_a_bar(
    trainers: tuple[Trainer, Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = progress_console()
    terminal.file = io.StringIO()
    monkeypatch.setattr("qr_sampler_cli.terminal.progress.progress_console", lambda: terminal)
    assert CliRunner().invoke(app, ["tiny-model", "d", "--force", "--steps=3"]).exit_code == 0
    assert "training the tiny model" in terminal.file.getvalue()
    assert "loss 3.00" in terminal.file.getvalue()


@pytest.mark.parametrize("arguments", [["--steps=0"], ["--seed=-1"]])
def test_numbers_out_of_range_are_refused(
    trainers: tuple[Trainer, Trainer], arguments: list[str]
) -> None:
    assert CliRunner().invoke(app, ["tiny-model", "d", *arguments]).exit_code == 2
    assert not trainers[0].calls


def test_foreign_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious", "utf-8")
    result = CliRunner().invoke(app, ["tiny-model", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert issubclass(ForeignDirectoryError, FileExistsError)


def test_a_gguf_file_is_written_on_request(
    trainers: tuple[Trainer, Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[Path, Path]] = []

    def note(directory: Path, file: Path) -> Path:
        written.append((directory, file))
        return file

    monkeypatch.setattr("qr_sampler_cli.commands.tiny_model.write_gguf", note)
    result = CliRunner().invoke(app, ["tiny-model", "d", "--gguf", "d.gguf"])
    assert result.stdout.splitlines()[1] == "d.gguf: the same model for llama.cpp"
    assert written == [(Path("d"), Path("d.gguf"))]
