# SPDX-License-Identifier: Apache-2.0
"""Tokens from simulated devices over pseudo-terminals, which are pulled out in the middle.

Two requests run side by side, one from a OneRNG and one from a QCicada, in one engine. Each device
is a program of its own, as its driver is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from qr_sampler.records.files import ledgers_in
from qr_sampler.testing import chained_lines

TOKENS: Final = 8
BLOCK_BYTES: Final = 256
ROUNDS: Final = ("whole", "onerng away", "onerng back", "qcicada away", "qcicada back")
DEVICES: Final = {"serial": "onerng", "cryptalabs": "qcicada"}

SERVE: Final = """
    import subprocess
    from vllm import SamplingParams
    import qr_sampler_vllm

    def plugged_in(*command):
        program = subprocess.Popen(
            [sys.executable, "-m", *command, "--rate", "400000"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        assert program.stdout.readline().endswith("is ready\\n")
        return program

    def tell(program, word):
        program.stdin.write(word + "\\n")
        program.stdin.flush()
        return program.stdout.readline()

    devices = {
        "onerng": plugged_in(
            "qr_entropy_serial.simulators", "onerng", "--link", os.environ["QR_SERIAL_PORT"]
        ),
        "qcicada": plugged_in(
            "qr_entropy_cryptalabs.simulators", "--link", os.environ["QR_CRYPTALABS_PORT"],
            "--public-key", os.environ["QR_CRYPTALABS_PUBLIC_KEY"],
        ),
    }
    llm = engine(max_num_seqs=4)

    def generate(part):
        name, _, state = part.partition(" ")
        if state == "back":
            tell(devices[name], "replug")
        for source in ("serial", "cryptalabs"):
            params = SamplingParams(
                max_tokens=task["tokens"],
                allowed_token_ids=list(range(300, 900)),
                extra_args={"qr_request_key": f"{part}: {source}", "qr_entropy_source": source},
            )
            llm.llm_engine.add_request(f"{part}: {source}", "Light is", params)
        found, steps = {}, 0
        while llm.llm_engine.has_unfinished_requests():
            for output in llm.llm_engine.step():
                found[output.request_id] = list(output.outputs[0].token_ids)
            steps += 1
            if steps == 4 and state == "away":
                tell(devices[name], "unplug")
        return found

    found = {}
    for part in task["rounds"]:
        found.update(generate(part))
    qr_sampler_vllm.flush_records()
    for program in devices.values():
        program.terminate()
        program.communicate()
    result(found)
"""


class Run:
    """What became of the requests.

    Args:
        found: The tokens of each request.
        lines: The records of the tokens.
        draws: The lines of the draws.
        key: File with the public key of the QCicada.
    """

    def __init__(
        self,
        found: dict[str, list[int]],
        lines: list[dict[str, Any]],
        draws: list[dict[str, Any]],
        key: Path,
    ) -> None:
        self.found, self.lines, self.draws, self.key = found, lines, draws, key

    def tokens(self, key: str) -> list[dict[str, Any]]:
        """Returns the records of the tokens of a request."""
        return [
            line
            for line in self.lines
            if line["kind"] in ("token", "forced") and line["request_key"] == key
        ]


@pytest.fixture(scope="module")
def run(offline_engine: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("ports")
    env = {
        "QR_ENTROPY_SOURCE_TYPE": "serial",
        "QR_REQUEST_ENTROPY_SOURCES": "cryptalabs",
        "QR_FALLBACK_MODE": "end_request",
        "QR_SAMPLE_COUNT": str(BLOCK_BYTES),
        "QR_SERIAL_PORT": str(folder / "onerng"),
        "QR_SERIAL_DEVICE": "onerng",
        "QR_CRYPTALABS_PORT": str(folder / "qcicada"),
        "QR_CRYPTALABS_PUBLIC_KEY": str(folder / "qcicada.pem"),
        "QR_DRAW_TIMEOUT_MS": "20000",
        # Otherwise a device would be left alone for a while after it was away.
        "QR_CB_ENABLED": "false",
    }
    engine = offline_engine("v1")
    found = engine.result(SERVE, {"rounds": ROUNDS, "tokens": TOKENS}, env)
    (ledger,) = ledgers_in(engine.ledger)
    draws = [line for line in chained_lines(ledger) if line["kind"] == "draw"]
    return Run(found, engine.lines(), draws, folder / "qcicada.pem")


@pytest.mark.parametrize("part", ROUNDS)
@pytest.mark.parametrize("source", DEVICES)
def test_a_request_has_all_its_tokens_while_its_device_is_there(
    run: Run, part: str, source: str
) -> None:
    key = f"{part}: {source}"
    records = run.tokens(key)
    assert [record["token_id"] for record in records] == run.found[key]
    decided = [record for record in records if record["kind"] == "token"]
    assert {(one["source"], one["fallback"]) for one in decided} == {(source, False)}
    if part != f"{DEVICES[source]} away":
        assert len(decided) == len(records) == TOKENS
        return
    # The step in which the device was pulled out may have had its bytes already.
    assert 0 < len(decided) < TOKENS
    assert [record["kind"] for record in records[len(decided) :]] == ["forced"]
    assert "does not exist" in records[-1]["reason"]


def test_every_draw_of_the_qcicada_is_signed_by_its_key(run: Run) -> None:
    """Verified from the records alone, by the library of cryptography itself."""
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    utils = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.utils")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    public = serialization.load_pem_public_key(run.key.read_bytes())
    signed = [line for line in run.draws if line["source"] == "cryptalabs"]
    assert len({line["signature"] for line in signed}) == len(signed) > 3 * TOKENS
    for line in signed:
        raw = base64.b64decode(line["signature"])
        halves = (int.from_bytes(part, "big") for part in (raw[:32], raw[32:]))
        public.verify(
            utils.encode_dss_signature(*halves),
            bytes.fromhex(line["data_sha256"]),
            ec.ECDSA(utils.Prehashed(hashes.SHA256())),
        )
        assert line["signature_verified"] is True
        assert line["device_id"] == "QC0000000217"
