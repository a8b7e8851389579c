# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler probe``: what an entropy server can do, and how to draw from it."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qr_sampler_cli.failures import ExitCode, import_package, reports_errors
from qr_sampler_cli.findings.report import print_findings
from qr_sampler_cli.probe.findings import findings_of
from qr_sampler_cli.remedies import from_clone
from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_cli.terminal.progress import counting_bar, remark

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from qr_sampler_cli.terminal.progress import Count
    from qr_sampler_grpc.probe import ProbeReport

__all__ = ["UNUSABLE_STATUS", "probe"]

UNUSABLE_STATUS: Final = 1
"""Exit status when tokens should not be drawn from the server."""

STATUSES: Final = {
    "usable": int(ExitCode.OK),
    "not usable": UNUSABLE_STATUS,
    "not judged": int(ExitCode.ERROR),
}
"""Exit status of each verdict."""

REMEDY: Final = "install it " + from_clone("qr-sampler-grpc")


@reports_errors
def probe(
    address: Annotated[
        str, typer.Argument(help="Where the server listens: host:port or unix:///path.")
    ],
    profile: Annotated[
        str,
        typer.Option(
            help="What it speaks: qr_entropy, qrng, qr_purity, custom, or direct for the protocol "
            "of Unix sockets. QR_GRPC_PROFILE by default."
        ),
    ] = "",
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File that holds the API key; QR_GRPC_API_KEY is used without it."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False,
    ca: Annotated[
        Path | None, typer.Option(help="Certificates that may vouch for the server; implies TLS.")
    ] = None,
    client_cert: Annotated[
        Path | None, typer.Option(help="Certificate of this client; implies TLS.")
    ] = None,
    client_key: Annotated[
        Path | None, typer.Option(help="Private key of that certificate.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Ed25519 public key that answers must be signed with.")
    ] = None,
    method_path: Annotated[
        str, typer.Option(help="Unary method, as /package.Service/Method.")
    ] = "",
    timeout_ms: Annotated[
        float | None, typer.Option(min=1.0, help="Longest that a draw may take, in milliseconds.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Timed draws in each mode.")] = 50,
    draw_bytes: Annotated[
        int, typer.Option("--bytes", min=1, max=2**24, help="Bytes of each draw.")
    ] = 10_240,
    max_bytes: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**30,
            help="Most bytes to spend on finding the largest request; 0 does without.",
        ),
    ] = 2**18,
    conformance: Annotated[
        bool,
        typer.Option("--conformance", help="Run all conformance cases; a failure then counts."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Find out what an entropy server can do, and print the lines that configure it.

    Draws in every mode and reports how long it took, what the server tells about its bytes, whether
    these could be uniform, and which conformance cases it passes. Anything not given here is taken
    from QR_GRPC_* variables and the .env file, as the source does. Quotas are respected. Exits with
    0 if the server is usable, with 1 if it is not, with 2 if the command was used incorrectly or an
    exhausted quota left too little data to tell.
    """
    probing: Any = import_package("qr_sampler_grpc.probe", needed_for="probe", remedy=REMEDY)
    given = {
        "api_key_file": api_key_file,
        "tls_enabled": tls or None,
        "tls_ca_cert": ca,
        "tls_client_cert": client_cert,
        "tls_client_key": client_key,
        "public_key": public_key,
        "method_path": method_path or None,
        "timeout_ms": timeout_ms,
    }
    options = {name: value for name, value in given.items() if value is not None}
    target = probing.target_for(address, profile, **options)
    plan = probing.Plan(
        draws=draws, draw_bytes=draw_bytes, search_bytes=max_bytes, thorough=conformance
    ).checked(target)
    remark(
        f"probing {target.address} as {target.profile}: up to {plan.most_requests(target):,} "
        f"requests for up to {plan.most_bytes(target):,} random bytes"
    )
    if minutes := plan.least_minutes(target):
        remark(
            f"with the quota of {target.limits.max_requests_per_minute:g} requests a minute that "
            f"takes at least {minutes} min"
        )
    pacer = probing.QuotaPacer(target.limits, tell=remark)
    report: ProbeReport = probing.examine(target, plan, _watch, pacer)
    if as_json:
        typer.echo(json.dumps(_as_data(report), indent=2))
    else:
        _print(report)
    if status := STATUSES[report.verdict]:
        raise typer.Exit(status)


def _watch(description: str) -> AbstractContextManager[Count]:
    # The report contains everything; progress is only of interest to those who watch.
    return counting_bar(description, unit="done", in_files=False)


def _as_data(report: ProbeReport) -> dict[str, Any]:
    data = dataclasses.asdict(report)
    return {
        "verdict": report.verdict,
        "fastest_mode": report.fastest_mode,
        "conforms": report.conforms,
        **data,
    }


def _print(report: ProbeReport) -> None:
    print_findings(findings_of(report))
    address, spent = printable(report.address), f"{report.spent_bytes:,} bytes were drawn"
    if report.verdict == "not judged":
        typer.echo(f"{address} was NOT JUDGED, because its quota is used up; {spent}")
    else:
        typer.echo(f"{address} is {'usable' if report.usable else 'NOT USABLE'}; {spent}")
    if report.usable:
        typer.echo("to draw from it:\n")
        typer.echo(printable(_pasteable(report.configuration)))


def _pasteable(variables: Mapping[str, str]) -> str:
    """Returns lines that work in a shell and in a ``.env`` file."""
    placeholder = import_module("qr_sampler_grpc.probe.configuration").KEY_FILE_PLACEHOLDER
    return "\n".join(
        # The key itself is never shown, and giving it twice is refused.
        f"# and the API key, in QR_GRPC_API_KEY as here or in a file: {name}={value}"
        if value == placeholder
        else f"export {name}={shlex.quote(value)}"
        for name, value in variables.items()
    )
