# SPDX-License-Identifier: Apache-2.0
"""The whole system at work: an entropy server, a small model, a real engine, and the records of it.

``python -m qr_sampler_cli.demo`` exits with 0 only if every token came from the server and has
exactly one record.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler import create_source
from qr_sampler.entropy import EntropySource
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler_cli.commands.tiny_model import prepare_tiny_model
from qr_sampler_cli.engines import EngineChoice, EngineName, choose_engine
from qr_sampler_cli.engines.choice import VLLM
from qr_sampler_cli.environment import environment
from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.generation.report import print_summary, print_texts, verdict
from qr_sampler_cli.generation.run import GenerationRequest, run_generation
from qr_sampler_cli.server_process import entropy_server
from qr_sampler_cli.terminal.progress import stage
from qr_sampler_cli.tiny_model.directory import DEFAULT_STEPS

__all__ = ["demo", "main", "planned_model"]

SOURCE: Final = "quantum_grpc"
FEWER_STEPS: Final = 500
"""Half a minute on two cores, so that the whole takes less than a minute."""
PROMPTS: Final = ("The Light of the Sun", "By the Refraction of the Prism")


def default_directory() -> Path:
    """Returns where the demo keeps model and records: ``QR_DEMO_DIR`` or the user's cache."""
    if chosen := os.environ.get("QR_DEMO_DIR"):
        return Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "qr-sampler" / "demo"


@reports_errors
def demo(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="Texts to continue.")
    ] = None,
    *,
    engine: Annotated[
        EngineName, typer.Option(help="What computes the logits, as 'qr-sampler generate' has it.")
    ] = EngineName.AUTO,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per prompt.")] = 32,
    directory: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep the model and the records; QR_DEMO_DIR or a cache by default."
        ),
    ] = None,
    training_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Training steps of the model, if it has to be trained; {DEFAULT_STEPS} for vLLM, "
            f"whose start takes as long, else {FEWER_STEPS}.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the engine's log.")] = False,
) -> None:
    """Generate text with a real engine, every token chosen by an entropy server over gRPC."""
    place = directory or default_directory()
    choice = check_engine(engine, str(place))
    records = _new_records_file(place / "records")
    model, steps = planned_model(place, choice, training_steps)
    typer.echo(prepare_tiny_model(model, steps=steps), err=True)
    with entropy_server() as address:
        variables = deployment(address)
        with environment(variables):
            wait_for_draw(create_source(SOURCE), address)
        request = GenerationRequest(
            model=str(model),
            prompts=tuple(prompts or PROMPTS),
            max_tokens=max_tokens,
            variables=variables,
            engine=engine,
            verbose=verbose,
        )
        run = run_generation(request, records=records)
    print_texts(run, table=True)
    status = verdict(run, require_primary=True)
    print_summary(run, records=records.path)
    if status is not ExitCode.OK:
        raise typer.Exit(status)


def check_engine(engine: EngineName, model: str) -> EngineChoice:
    """Returns the engine to use, unless it cannot read the model that the demo trains.

    Raises:
        QRSamplerError: When it is so.
    """
    if engine is EngineName.LLAMA_CPP:
        raise ConfigError(
            "--engine llama-cpp: the demo trains a model that llama.cpp cannot read; run it with "
            "transformers, mlx or vllm"
        )
    return choose_engine(engine, model)


def planned_model(
    place: Path, choice: EngineChoice, training_steps: int | None
) -> tuple[Path, int]:
    """Returns where the model is or shall be, and in how many steps it is trained there."""
    if training_steps is not None:
        return place / "tiny-model", training_steps
    if choice.name == VLLM:
        return place / "tiny-model", DEFAULT_STEPS
    return place / "quick-tiny-model", FEWER_STEPS


def deployment(address: str) -> dict[str, str]:
    """Returns the settings with which the server at *address* chooses every token."""
    return {
        "QR_ENTROPY_SOURCE_TYPE": SOURCE,
        "QR_FALLBACK_MODE": "system",
        "QR_GRPC_SERVER_ADDRESS": address,
        "QR_GRPC_MODE": "unary",
        "QR_GRPC_PROFILE": "qr_entropy",
        "QR_GRPC_METHOD_PATH": "/qr_entropy.EntropyService/GetEntropy",
        # Where the model and the server share a small machine, pauses beyond 5 ms are no failures.
        "QR_CB_MIN_TIMEOUT_MS": "2000",
        # gRPC is in use in this process already, so the engine cannot be a fork of it.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def wait_for_draw(source: EntropySource, address: str) -> None:
    """Returns once *source* has really drawn a byte, and closes it.

    Raises:
        EntropyUnavailableError: When the server does not answer.
    """
    with stage(f"asking the entropy server at {address} for a byte"):
        try:
            status = source.probe()
        finally:
            source.close()
    if not status.available:
        raise EntropyUnavailableError(source.name, status.reason)


def _new_records_file(directory: Path) -> RecordsFile:
    directory.mkdir(parents=True, exist_ok=True)
    name = f"demo-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.jsonl"
    return RecordsFile(directory / name, force=False)


def main() -> None:
    """Runs the demo as a command of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
    app.command()(demo)
    app(prog_name="python -m qr_sampler_cli.demo")


if __name__ == "__main__":
    main()
