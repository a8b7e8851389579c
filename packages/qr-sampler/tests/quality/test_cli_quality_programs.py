# SPDX-License-Identifier: Apache-2.0
"""Programs of others: what is made of their answers, and how they are kept within bounds.

The programs here are small ones that print what the real ones do. What ``rngtest`` and
``dieharder`` say was copied from rng-tools 5 and dieharder 3.31.1, the JSON of NIST's programs
follows their source, and PractRand's text published results of version 0.94.
"""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from qr_sampler_cli.quality.programs.dieharder import Dieharder
from qr_sampler_cli.quality.programs.fips import FAILING_SHARE, FipsTests
from qr_sampler_cli.quality.programs.known import PROGRAMS
from qr_sampler_cli.quality.programs.nist import IidTests, NonIidEstimates
from qr_sampler_cli.quality.programs.practrand import PractRand
from qr_sampler_cli.quality.programs.program import ProgramReport, TestProgram, asked
from qr_sampler_cli.quality.programs.running import MOST_OUTPUT, run_program

SAMPLE = bytes(range(256)) * 4_096

RNGTEST = """\
if [ "$1" = --version ]; then echo "rngtest 5"; exit 0; fi
cat > seen
cat >&2 <<'END'
rngtest: starting FIPS tests...
rngtest: entropy source drained
rngtest: bits received from input: 8388608
rngtest: FIPS 140-2 successes: 415
rngtest: FIPS 140-2 failures: 4
rngtest: FIPS 140-2(2001-10-10) Monobit: 0
rngtest: FIPS 140-2(2001-10-10) Runs: 4
END
exit 1
"""

DIEHARDER = """\
if [ "$1" = -l ]; then
  echo "#            dieharder version 3.31.1 Copyright 2003 Robert G. Brown          #"; exit 0
fi
echo "$@" >> "$HOME/arguments"
case "$6" in
  2) echo "  diehard_rank_32x32|   0|0.00000000" ;;
  *) echo "            sts_runs|   2|0.97561854" ;;
esac
"""

PRACTRAND = """\
echo "$@" > "$HOME/arguments"
cat <<'END'
RNG_test using PractRand version 0.94
RNG = RNG_stdin8, seed = unknown
test set = core, folding = standard (8 bit)

rng=RNG_stdin8, seed=unknown
length= 512 kilobytes (2^19 bytes), time= 0.1 seconds
  Test Name                         Raw       Processed     Evaluation
  [Low1/8]Gap-16:B                  R=  -4.6  p =1-7.1e-4   unusual
  ...and 161 test result(s) without anomalies

rng=RNG_stdin8, seed=unknown
length= 1 megabyte (2^20 bytes), time= 0.2 seconds
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that puts a shell script onto an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cat", "sleep", "env", "yes"):
        (folder / tool).symlink_to(
            next(p for p in (f"/bin/{tool}", f"/usr/bin/{tool}") if Path(p).exists())
        )
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))

    def written(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}", "utf-8")
        path.chmod(0o755)
        return path

    return written


def only(program: TestProgram, data: bytes = SAMPLE, timeout_s: float = 20.0) -> ProgramReport:
    (report,) = asked([program], data, timeout_s, None)
    return report


def test_what_is_not_installed_is_said(install: Any) -> None:
    reports = asked(PROGRAMS, SAMPLE, 5.0, None)
    assert [report.outcome for report in reports] == ["not installed"] * 5
    assert [report.program for report in reports] == [
        "ea_non_iid",
        "ea_iid",
        "dieharder",
        "RNG_test",
        "rngtest",
    ]
    assert asked(PROGRAMS, SAMPLE, 5.0, frozenset()) == []
    (wanted,) = asked(PROGRAMS, SAMPLE, 5.0, frozenset({"rngtest"}))
    assert wanted.program == "rngtest"


def test_rngtest(install: Any) -> None:
    path = install("rngtest", RNGTEST)
    report = only(FipsTests())
    assert (report.outcome, report.version, report.path) == ("judged", "rngtest 5", str(path))
    assert report.words == "4 of 419 blocks of 20,000 bits fail"
    expected = stats.binom.sf(3, 419, FAILING_SHARE)
    assert dict(report.p_values) == pytest.approx({"FIPS 140-2": expected})


def test_rngtest_that_says_nothing_is_not_judged(install: Any) -> None:
    install("rngtest", "echo broken; exit 12")
    report = only(FipsTests())
    assert report.outcome == "not judged"
    assert "it said: broken" in report.words
    assert "needs at least 2,504 bytes" in only(FipsTests(), b"\0" * 100).words


def test_dieharder_is_asked_for_as_much_as_there_is(install: Any, tmp_path: Path) -> None:
    install("dieharder", DIEHARDER)
    report = only(Dieharder())
    assert report.version == "dieharder version 3.31.1"
    assert dict(report.p_values) == pytest.approx(
        {
            "sts_monobit": 2.0 * (1.0 - 0.97561854),
            "sts_runs": 2.0 * (1.0 - 0.97561854),
            "rank 32x32": 2e-8,
            "rank 6x8": 2.0 * (1.0 - 0.97561854),
        }
    )
    arguments = (tmp_path / "arguments").read_text("utf-8").splitlines()
    assert arguments[0].startswith("-g 201 -f sample.bin -d 100 -t 261120 -p 1")
    assert "-d 2 -t 8160 " in arguments[2]
    few = only(Dieharder(), SAMPLE[:20_000])
    assert few.outcome == "judged"
    assert "too few bytes for rank 32x32, rank 6x8" in few.words


def test_dieharder_that_reads_its_file_again_is_not_judged(install: Any) -> None:
    script = "echo '# The file file_input_raw was rewound 40 times' >&2\n" + DIEHARDER
    install("dieharder", script)
    report = only(Dieharder())
    assert (report.outcome, dict(report.p_values)) == ("not judged", {})
    assert "rewound" in report.words


@pytest.mark.parametrize(
    ("last", "p_value", "words"),
    [
        ("  no anomalies in 171 test result(s)\n", 1.0, "171 results of 1,024 KiB, no anomaly"),
        (
            (
                "  Test Name                         Raw       Processed     Evaluation\n"
                "  [Low1/8]Gap-16:B                  R=  -4.6  p =1-7.1e-9   suspicious\n"
                "  DC6-9x1Bytes-1                    R=  +6.0  p =  3.0e-3   unusual\n"
                "  ...and 98 test result(s) without anomalies\n"
            ),
            2 * 100 * 7.1e-9,
            "100 results of 1,024 KiB, the smallest p 7.1e-09",
        ),
        (
            "  BCFN(2+0,13-5,T)                  R=+36783  p = 0           FAIL !!!!!!!!\n",
            0.0,
            "1 results of 1,024 KiB, the smallest p 0",
        ),
    ],
)
def test_practrand(install: Any, tmp_path: Path, last: str, p_value: float, words: str) -> None:
    install("RNG_test", f"{PRACTRAND}{last}END\n")
    report = only(PractRand())
    assert report.version == "PractRand version 0.94"
    assert dict(report.p_values) == pytest.approx({"smallest of all": p_value})
    assert report.words == words
    asked_for = (tmp_path / "arguments").read_text("utf-8")
    assert asked_for == "stdin8 -tlmin 1024KB -tlmax 1024KB\n"


def test_practrand_without_results_is_not_judged(install: Any) -> None:
    install("RNG_test", "echo RNG_test using PractRand version 0.94")
    assert only(PractRand()).outcome == "not judged"


def nist(install: Any, name: str, answer: Any) -> None:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    install(
        name,
        'if [ "$1" = --version ]; then echo "Version 1.1.8"; exit 0; fi\n'
        f'echo "$@" > "$HOME/arguments"\ncat > "$5" <<\'END\'\n{text}\nEND\n',
    )


def test_nist_estimates(install: Any, tmp_path: Path) -> None:
    cases = [
        {"testCaseDesc": "Most Common Value", "hOriginal": 7.0104, "hBitstring": 0.983},
        {"testCaseDesc": "Overall", "hOriginal": 6.63, "hBitstring": 0.73, "hAssessed": 5.8608},
    ]
    nist(install, "ea_non_iid", {"errorLevel": 0, "IID": False, "testCases": cases})
    report = only(NonIidEstimates())
    assert report.version == "Version 1.1.8"
    assert dict(report.figures) == {"min_entropy": 5.8608}
    assert report.words == "min-entropy 5.8608 bits a byte, the least of ten estimates"
    arguments = (tmp_path / "arguments").read_text("utf-8")
    assert arguments == "-i -a -q -o answer.json sample.bin 8\n"
    assert "needs at least 1,000,000 bytes" in only(NonIidEstimates(), SAMPLE[:999_999]).words


def test_nist_tests_of_independence(install: Any) -> None:
    case = {
        "hAssessed": 7.88,
        "passedChiSquareTests": True,
        "passedLongestRepeatedSubstringTest": False,
        "passedIidPermutationTests": False,
    }
    nist(install, "ea_iid", {"errorLevel": 0, "testCases": [case]})
    report = only(IidTests())
    assert report.failed == ("longest repeated substring", "permutations")
    nist(
        install,
        "ea_iid",
        {"errorLevel": 0, "testCases": [dict.fromkeys(case, True) | {"hAssessed": 7.9}]},
    )
    assert only(IidTests()).words.startswith("passes all three groups of tests; 7.9000 bits")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[" * 100_000,
        "[1]",
        {"errorLevel": -1, "testCases": [{"hAssessed": 7.0}]},
        {"errorLevel": 0, "testCases": 7},
        {"errorLevel": 0, "testCases": [{"hAssessed": 9.0}, 4]},
        {"errorLevel": 0, "testCases": [{"hAssessed": "7"}]},
    ],
)
def test_nist_without_a_verdict_is_not_judged(install: Any, answer: Any) -> None:
    nist(install, "ea_non_iid", answer)
    report = only(NonIidEstimates())
    assert (report.outcome, dict(report.figures)) == ("not judged", {})


def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    install: Any, tmp_path: Path
) -> None:
    path = install("slow", f"sleep 300 & echo $! > {tmp_path}/child\necho begun\nwait")
    began = time.monotonic()
    run = run_program([str(path)], directory=tmp_path, timeout_s=0.5)
    assert time.monotonic() - began < 60
    assert (run.status, run.output) == (None, "begun\n")
    assert run.failure == "ended after 0.5 s, the time limit"
    child = int((tmp_path / "child").read_text("utf-8"))
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or zombie(child):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives")


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_program_that_never_stops_talking_is_ended(install: Any, tmp_path: Path) -> None:
    path = install("loud", "exec yes")
    run = run_program([str(path)], directory=tmp_path, timeout_s=60.0)
    assert run.failure == f"ended after more than {MOST_OUTPUT:,} bytes of output"
    assert len(run.output) <= 2 * MOST_OUTPUT


def test_a_program_that_cannot_be_run_is_no_error_of_ours(install: Any, tmp_path: Path) -> None:
    path = install("odd", "")
    path.chmod(0o644)
    assert "cannot be run" in run_program([str(path)], directory=tmp_path, timeout_s=5.0).failure
    # On the PATH, but without the right to run it: as if it were not installed.
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_programs_see_no_settings_of_ours(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_GRPC_API_KEY", "secret")
    path = install("env_of", "exec env")
    output = run_program([str(path)], directory=tmp_path, timeout_s=10.0).output
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert "PATH" in names
    assert "secret" not in output
    assert not names & {name for name in os.environ if name.startswith("QR_")}
