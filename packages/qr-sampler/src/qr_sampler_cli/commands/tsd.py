# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler tsd``: experiments of thermodynamic speculative decoding, gate and training.

What takes NumPy is imported by the commands themselves.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import typer

from qr_sampler_cli.commands.tsd_train import train
from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.parsing.number_lists import numbers, whole_numbers
from qr_sampler_cli.parsing.option_groups import with_options
from qr_sampler_cli.terminal.consoles import printable, result_console
from qr_sampler_cli.terminal.progress import counting_bar
from qr_sampler_cli.tsd.equipment import (
    GATE_SAMPLES,
    GATE_SEED,
    import_tsd,
    sampling_unit,
    uniforms,
)
from qr_sampler_cli.tsd.report import as_data, gate_table, refuted, result_table, untested

if TYPE_CHECKING:
    from qr_sampler_tsd.experiments import ExperimentResult

__all__ = ["REFUTED_STATUS", "tsd"]

tsd = typer.Typer(no_args_is_help=True)

REFUTED_STATUS: Final = int(ExitCode.MISMATCH)
"""Exit status when the text does not follow its target, or a unit fails the gate."""

VerifierName: TypeAlias = Literal["token", "block", "k_seq"]

Vocab = Annotated[int, typer.Option("--vocab", min=2, help="Number of tokens, V.")]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the target, and of the uniforms without --source.")
]
Source = Annotated[
    str | None,
    typer.Option(help="Entropy source of all uniforms, see 'qr-sampler sources'; else PCG64."),
]
Unit = Annotated[
    str,
    typer.Option(
        help="What draws the drafts: sim, tree, gibbs, thrml or thrml_tree, options after a colon "
        "(gibbs:sweeps=40), or the name of an entry point; all but sim must pass the gate first."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

BESIDE_SETTINGS: Final = frozenset({"source", "unit", "runs", "plots", "as_json"})
"""Options that say how an experiment is run and shown, not what it is."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every experiment."""

    psi_version: Annotated[int, typer.Option(min=1, max=2, help="Version of the payload.")] = 1
    verifier: Annotated[
        VerifierName,
        typer.Option(help="token: one by one; block: as a whole; k_seq: alternatives."),
    ] = "token"
    steps: Annotated[int, typer.Option(min=1, help="Steps, each one pass for every sequence.")] = (
        20_000
    )
    source: Source = None
    unit: Unit = "sim"
    runs: Annotated[Path, typer.Option(help="Where run directories are made.")] = Path("runs")
    log_every: Annotated[int, typer.Option(min=1, help="Write an event every so many steps.")] = 1
    dense_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds to measure the dense sampler; 0 does without.")
    ] = 0.5
    as_json: AsJson = False

    def settings(self) -> dict[str, Any]:
        """Returns the fields of the experiment's settings that these options give."""
        return {name: value for name, value in vars(self).items() if name not in BESIDE_SETTINGS}


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(RunOptions):
    """Options of a single experiment; a sweep has lists in their place."""

    k: Annotated[int, typer.Option("--K", "--k", min=1, help="Tokens of the payload's head.")] = 64
    tau: Annotated[float, typer.Option(help="Temperature of the payload's scores.")] = 1.0
    epsilon: Annotated[
        str,
        typer.Option("--eps", help="Floor of payload version 1, or auto for the tail's true mass."),
    ] = "auto"
    length: Annotated[
        int, typer.Option("--L", "--length", min=1, help="Drafts per pass of the target.")
    ] = 1
    batch: Annotated[int, typer.Option("--B", "--batch", min=1, help="Sequences side by side.")] = 1
    seed: Seed = 7
    plots: Annotated[
        Literal["png", "svg"] | None,
        typer.Option(help="Draw acceptance, cross-entropy gap and latency; needs the extra plots."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """Returns the fields of the experiment's settings that these options give."""
        floor = None if self.epsilon == "auto" else numbers([self.epsilon], "--eps")[0]
        return {**super().settings(), "epsilon": floor}


@tsd.callback()
def _group() -> None:
    """Thermodynamic speculative decoding: experiments, and the gate of its sampling units.

    Exits with 0 if the text follows its target, with 1 if that is refuted (which happens to a
    correct run less than once in 10^8), with 2 after an error or if there was too little to test.
    """


@tsd.command()
@reports_errors
@with_options(ExperimentOptions)
def m0(
    options: ExperimentOptions,
    vocab: Vocab = 1000,
    law: Annotated[
        Literal["dirichlet", "zipf"], typer.Option(help="Family of the target.")
    ] = "dirichlet",
    alpha: Annotated[float, typer.Option(help="Exponent of Zipf's law.")] = 1.1,
) -> None:
    """Run M0: a fixed distribution without context, and a payload of its own best tokens."""
    experiments = import_tsd("experiments")
    settings = experiments.M0Settings(vocab_size=vocab, law=law, alpha=alpha, **options.settings())
    _run_one(experiments.run_m0, "M0", settings, options)


@tsd.command()
@reports_errors
@with_options(ExperimentOptions)
def m1(
    options: ExperimentOptions,
    corpus: Annotated[
        Path | None, typer.Option(help="UTF-8 text whose characters make the bigram.")
    ] = None,
    vocab: Vocab = 256,
    c: Annotated[float, typer.Option(help="What synthetic rows have in common.")] = 50.0,
    contexts: Annotated[
        int | None,
        typer.Option(min=1, help="Different rows; as many as tokens, or as fit 16 MiB, if absent."),
    ] = None,
) -> None:
    """Run M1: a bigram, synthetic or of a corpus, with a payload for every context."""
    experiments = import_tsd("experiments")
    settings = experiments.M1Settings(
        corpus=corpus, vocab_size=vocab, c=c, contexts=contexts, **options.settings()
    )
    _run_one(experiments.run_m1, "M1", settings, options)


@tsd.command()
@reports_errors
@with_options(RunOptions)
def sweep(
    options: RunOptions,
    mode: Annotated[Literal["m0", "m1"], typer.Option(help="The experiment.")] = "m0",
    vocabs: Annotated[
        list[str] | None, typer.Option(help="Vocabulary sizes; 1000 if absent.")
    ] = None,
    ks: Annotated[
        list[str] | None, typer.Option("--ks", "--Ks", help="Head sizes; 64 if absent.")
    ] = None,
    taus: Annotated[list[str] | None, typer.Option(help="Temperatures; 1 if absent.")] = None,
    lengths: Annotated[
        list[str] | None, typer.Option("--Ls", "--lengths", help="Drafts per pass; 1 if absent.")
    ] = None,
    seeds: Annotated[
        list[str] | None, typer.Option(help="Seeds of the target; 7 if absent.")
    ] = None,
) -> None:
    """Run a grid of M0 or M1, and print a line for each point.

    Lists are given as --ks 32,64,128 or as --ks 32 --ks 64 --ks 128.
    """
    experiments = import_tsd("experiments")
    kind = experiments.M1Settings if mode == "m1" else experiments.M0Settings
    base = kind(**options.settings())
    grid = {
        "vocab_sizes": whole_numbers(vocabs or ["1000"], "--vocabs"),
        "ks": whole_numbers(ks or ["64"], "--ks"),
        "taus": numbers(taus or ["1"], "--taus"),
        "lengths": whole_numbers(lengths or ["1"], "--Ls"),
        "seeds": whole_numbers(seeds or ["7"], "--seeds"),
    }
    directories: list[Path] = []
    device = _device(options.unit)
    with contextlib.ExitStack() as closing:

        def equip(settings: Any) -> Any:
            closing.pop_all().close()
            equipment = closing.enter_context(_equipment(mode.upper(), settings, options, device))
            directories.append(equipment.writer.directory)
            return equipment

        results = list(experiments.sweep(base, equip, **grid))
    _report(results, directories, options.as_json)


@tsd.command()
@reports_errors
def gate(
    unit: Unit = "sim",
    samples: Annotated[int, typer.Option(min=1, help="Draws per golden payload.")] = GATE_SAMPLES,
    seed: Seed = 7,
    source: Source = None,
    as_json: AsJson = False,
) -> None:
    """Test whether a sampling unit draws from F(psi): the golden-psi gate."""
    run_gate = import_tsd("gate").run_gate
    with uniforms(source, seed) as (numbers_of, _):
        report = run_gate(sampling_unit(unit), numbers_of, samples)
    if as_json:
        typer.echo(json.dumps(as_data(report), indent=2))
    else:
        console = result_console()
        console.print(gate_table(report, fancy=console.is_terminal))
        verdict = "passed" if report.passed else "FAILED"
        typer.echo(f"{printable(report.unit)} {verdict} with {report.samples:,} draws per payload")
    if not report.passed:
        raise typer.Exit(REFUTED_STATUS)


@contextlib.contextmanager
def _equipment(mode: str, settings: Any, options: RunOptions, device: Any) -> Iterator[Any]:
    """Yields what a run works with; its files are complete afterwards."""
    experiments, telemetry = import_tsd("experiments"), import_tsd("telemetry")
    description = f"{mode}, K = {settings.k}, L = {settings.length}"
    with contextlib.ExitStack() as stack:
        numbers_of, name = stack.enter_context(uniforms(options.source, settings.seed))
        writer = stack.enter_context(telemetry.RunWriter(options.runs, mode))
        progress = stack.enter_context(counting_bar(description, unit="steps"))
        yield experiments.Equipment(numbers_of, name, device, writer, progress)


def _device(unit: str) -> Any:
    """Returns the unit after it has passed the gate, ``None`` for the direct route of sim.

    The gate draws from uniforms of its own; those of the run are accounted by themselves.
    """
    made = sampling_unit(unit)
    # A unit that derives from it draws in a way of its own.
    if type(made) is import_tsd("tsu").SimTSU:
        return None
    typer.echo(f"testing the unit {unit} with {GATE_SAMPLES:,} draws per payload", err=True)
    with uniforms(None, GATE_SEED) as (numbers_of, _):
        return import_tsd("gate").require_gate(made, numbers_of, GATE_SAMPLES)


def _run_one(
    run: Callable[[Any, Any], ExperimentResult],
    mode: str,
    settings: Any,
    options: ExperimentOptions,
) -> None:
    telemetry = import_tsd("telemetry")
    if options.plots is not None:
        # Before the run, whose results would be lost.
        telemetry.require_matplotlib()
    with _equipment(mode, settings, options, _device(options.unit)) as equipment:
        result = run(settings, equipment)
        directory = equipment.writer.directory
    if options.plots is not None:
        telemetry.plot_run(directory, options.plots)
    _report([result], [directory], options.as_json)


def _report(
    results: Sequence[ExperimentResult], directories: Sequence[Path], as_json: bool
) -> None:
    """Prints results and where their files are.

    Raises:
        typer.Exit: When a result is refuted, or nothing could be tested.
    """
    if as_json:
        data = [
            {**as_data(result), "run_directory": str(directory)}
            for result, directory in zip(results, directories, strict=True)
        ]
        typer.echo(json.dumps(data, indent=2))
    else:
        console = result_console()
        console.print(result_table(results, fancy=console.is_terminal))
        for directory in directories:
            typer.echo(f"run directory: {printable(str(directory))}")
    reasons = [reason for result in results for reason in refuted(result)]
    for reason in reasons:
        typer.echo(f"refuted: {reason}", err=True)
    gaps = [gap for result in results for gap in untested(result)]
    for gap in gaps:
        typer.echo(f"not tested: {gap}", err=True)
    if reasons or gaps:
        raise typer.Exit(REFUTED_STATUS if reasons else int(ExitCode.ERROR))


tsd.command()(train)
