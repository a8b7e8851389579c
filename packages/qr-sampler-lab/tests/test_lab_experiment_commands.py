# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler experiment``: new, check, seal, status, mark and abort, as users type them."""

from __future__ import annotations

import functools
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from qr_sampler.errors import ConfigError
from qr_sampler.records.code_digest import code_digest
from qr_sampler_cli.main import app
from qr_sampler_lab.experiments import environment
from qr_sampler_lab.experiments.files.register import LAB_VARIABLE
from qr_sampler_lab.experiments.protocol.schema import json_schema
from qr_sampler_lab.experiments.study import Study

DOCS = Path(__file__).resolve().parents[3] / "docs"
TEMPLATE = Path(environment.__file__).parent / "protocol" / "template.yaml"


@pytest.fixture(autouse=True)
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes an empty directory with a model the current one."""
    monkeypatch.delenv(LAB_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "code_digest", functools.cache(code_digest))
    (tmp_path / "tiny-model").mkdir()
    (tmp_path / "tiny-model" / "config.json").write_text("{}")


def run(line: str) -> Result:
    """Runs ``qr-sampler experiment`` with what follows."""
    return CliRunner().invoke(app, ["experiment", *shlex.split(line)])


def done(line: str) -> str:
    """Returns what a command printed that did what was asked."""
    result = run(line)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_study_from_its_protocol_to_its_end() -> None:
    assert "first/PROTOCOL.yaml" in done("new first")
    text = done("check first")
    headings = re.findall("^## (.*)", text, flags=re.MULTILINE)
    assert headings == [
        "Hypotheses",
        "Design plan",
        "Sampling plan",
        "Variables",
        "Analysis plan",
        "Data exclusion",
        "Inference criteria",
        "To consider",
    ]
    digest = done("seal first --no-drand").strip()
    assert digest == Study(Path("first")).sealed.digest
    assert "mark 1" in done("mark 'the lights went out' --study first")
    shown = done("status first")
    assert digest in shown
    assert "register  first" in shown
    values = json.loads(done("status first --json --model"))
    assert (values["state"], values["faults"]) == ("sealed", [])
    assert values["standing"]["marks"] == 1
    assert "aborted" in done("abort 'nobody came' --study first")
    assert "aborted: nobody came" in done("status first")
    assert "aborted already" not in run("abort again --study first").stdout
    assert run("abort again --study first").exit_code == 2


def test_commands_in_the_directory_of_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    done("new first")
    monkeypatch.chdir("first")
    done("check")
    done("seal --no-drand")
    done("mark hello")
    assert "sealed" in done("status")


def test_counts_are_shown_by_alias_and_results_never() -> None:
    done("new first")
    done("seal first --no-drand")
    journal = Study(Path("first")).journal
    journal.ordered("secret", commitment="")
    journal.begun()
    journal.session_begun(0)
    journal.session_ended(0, requests={"arm-1": 4}, tokens={"arm-1": 128})
    journal.session_begun(1)
    text = done("status first")
    assert re.search(r"arm-1 +4 requests +128 tokens", text)
    assert "1 of 82 ended" in text
    assert "2 begun" in text
    assert "running" in text


def test_without_a_network_the_seal_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(number: int | None, file: Path | None) -> dict[str, object]:
        raise ConfigError("there is no network")

    monkeypatch.setattr("qr_sampler_lab.experiments.beacon.fetched_round", offline)
    done("new first")
    result = run("seal first --drand-file round.json")
    assert (result.exit_code, Path("first/seal.json").exists()) == (2, False)
    result = run("seal first")
    assert result.exit_code == 0
    assert "there is no network" in result.stderr
    assert "no outside witness" in result.stderr
    assert "no outside witness" in done("status first")


def test_a_round_in_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"round": 5, "signature": "ab", "randomness": "cd"}
    monkeypatch.setattr(
        "qr_sampler_lab.experiments.beacon.fetched_round", lambda number, file: told
    )
    done("new first")
    assert "witness" not in run("seal first").stderr
    assert json.loads(Path("first/seal.json").read_text())["witness"] == told
    assert "a round of drand" in done("status first")


def test_a_protocol_that_cannot_be_sealed() -> None:
    done("new first")
    path = Path("first/PROTOCOL.yaml")
    path.write_text(path.read_text().replace("../tiny-model", "../none"))
    result = run("check first")
    assert result.exit_code == 1
    assert "error: the model ../none is no directory" in result.stderr
    assert run("seal first --no-drand").exit_code == 2
    path.write_text("protocol: 1\n")
    result = run("check first")
    assert (result.exit_code, "Field required" in result.stderr) == (2, True)


def test_status_tells_of_faults() -> None:
    done("new first")
    done("seal first --no-drand")
    Path("first/prompts/story.txt").write_text("another")
    result = run("status first")
    assert result.exit_code == 1
    assert "fault     prompts/story.txt was changed" in result.stdout
    Study(Path("first")).journal.aborted("x\x1b[2Jy")
    result = run("status first --repair")
    assert "register  first" in result.stdout
    assert "\x1b" not in result.stdout


def test_new_studies_from_protocols_that_are_there() -> None:
    done("new first")
    Path("first/prompts/story.txt").write_text("A story of its own")
    done("new deep/second --from first/PROTOCOL.yaml")
    assert Path("deep/second/prompts/story.txt").read_text() == "A story of its own"
    assert "\nname: second\n" in Path("deep/second/PROTOCOL.yaml").read_text()
    Path("bare.yaml").write_text(Path("first/PROTOCOL.yaml").read_text())
    done("new third --from bare.yaml")
    assert Path("third/prompts/story.txt").read_text().startswith("Once upon a time")


REFUSED = {
    "new first": "exists already",
    "new Capitals": "name='Capitals'",
    "new second --from nothing": "neither a file nor a protocol",
    "new second --from folded.yaml": "no line `name:` of its own",
    "new second --from latin.yaml": "UTF-8",
    "check nowhere": "no directory",
    "check tiny-model": "experiment new NAME",
    "status nowhere": "no directory",
    "mark hello --study first": "not sealed",
    "abort hello --study first": "not sealed",
    "status first --repair": "not sealed",
}


def test_what_cannot_be_done_is_refused_in_one_line() -> None:
    done("new first")
    text = TEMPLATE.read_text()
    Path("folded.yaml").write_text(text.replace("name: my-study", '"name": my-study', 1))
    Path("latin.yaml").write_bytes(text.encode() + b"# \xff\n")
    for line, reason in REFUSED.items():
        result = run(line)
        assert result.exit_code == 2, line
        assert reason in result.stderr, line
        assert result.stderr.startswith("error: "), line


def test_marks_and_reasons_are_bounded_texts() -> None:
    done("new first")
    done("seal first --no-drand")
    for text in ("", "   ", "x" * 10_001, "\ud800"):
        for command in ("mark", "abort"):
            result = CliRunner().invoke(app, ["experiment", command, text, "--study", "first"])
            assert result.exit_code == 2
    assert len(Study(Path("first")).journal.entries()) == 1


def test_the_schema_of_a_protocol() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert done("check --schema") == json_schema()
    schema = json.loads(json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load(TEMPLATE.read_text("utf-8"))
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "colour": "red"}, schema)


def test_the_page_has_the_schema() -> None:
    if not DOCS.is_dir():
        pytest.skip("the documentation is in the repository, not in this archive")
    remedy = "run `qr-sampler experiment check --schema > docs/protocol.schema.json`"
    assert (DOCS / "protocol.schema.json").read_text("utf-8") == json_schema(), remedy
