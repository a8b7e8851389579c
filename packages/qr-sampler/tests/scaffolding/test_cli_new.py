# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler new``: what it refuses, what it makes, and that templates cannot act."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.main import get_command
from typer.testing import CliRunner

from qr_sampler.errors import ConfigError
from qr_sampler.settings_reference import setting_rows
from qr_sampler_cli.main import app
from qr_sampler_cli.scaffolding import filling
from qr_sampler_cli.scaffolding.filling import make_package
from qr_sampler_cli.scaffolding.kinds import KINDS
from qr_sampler_cli.scaffolding.names import MAX_CHARACTERS, package_names
from qr_sampler_cli.settings.catalogue import installed_groups

ROOT = Path(__file__).resolve().parents[4]
PACKAGE = Path(__file__).resolve().parents[2]

NAMES = ("qa", "twenty_characters_ab")
"""The code is formatted by lines of 100 characters, whatever is put into it."""


def made(folder: Path, kind: str, name: str = "dice", **texts: str) -> Path:
    """Makes a package in *folder* and returns where it is."""
    given = {"description": "Throws dice.", "author": "A. Thrower", **texts}
    place = folder / f"{kind}-{name}"
    make_package(KINDS[kind], package_names(KINDS[kind], name), place, **given)
    return place


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a package of every kind."""
    folder = tmp_path_factory.mktemp("packages")
    return {kind: contents(made(folder, kind)) for kind in KINDS}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["new", *arguments])
    return result.exit_code, " ".join(result.output.split())


def test_it_says_what_it_has_made_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed = run("source", "my_dice", "--no-input")
    assert status == 0, printed
    files = contents(tmp_path / "qr-entropy-my-dice")
    assert len(files) == 12
    assert all(f"qr-entropy-my-dice/{file}" in printed for file in files)
    assert {".gitignore", "LICENSE", ".github/workflows/ci.yml"} <= set(files)
    assert "src/qr_entropy_my_dice/py.typed" in files
    text = b"\n".join(files.values()).decode()
    assert 'my_dice = "qr_entropy_my_dice.source:MyDiceSource"' in text
    assert 'env_prefix="QR_MY_DICE_"' in text
    assert list(tmp_path.iterdir()) == [tmp_path / "qr-entropy-my-dice"]


def test_the_package_can_be_named_and_placed_otherwise(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    status, printed = run("strategy", "calm", "--package", "calm-text", "--output", str(place))
    assert status == 0, printed
    assert (place / "src" / "calm_text" / "strategy.py").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_make_the_same_bytes(
    tmp_path: Path, packages: dict[str, dict[str, bytes]], kind: str
) -> None:
    assert contents(made(tmp_path, kind)) == packages[kind]
    files = {name: data.decode() for name, data in packages[kind].items()}
    left = [name for name, text in files.items() if re.search(r"(?<!\$)\{\{|\{%", text)]
    assert left == [], "something was not filled in"
    assert not any(re.search(r"\b20\d\d-\d\d-\d\d", text) for text in files.values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "cannot name a source"),
        ("Dice", "cannot name a source"),
        ("dice-bag", "cannot name a source"),
        ("2dice", "cannot name a source"),
        ("dice_", "cannot name a source"),
        ("two__dice", "cannot name a source"),
        ("../dice", "cannot name a source"),
        ("/dice", "cannot name a source"),
        ("dice\n", "cannot name a source"),
        ("w\u00fcrfel", "cannot name a source"),
        ("{{dice}}", "cannot name a source"),
        ("d" * (MAX_CHARACTERS + 1), "cannot name a source"),
        ("lambda", "keyword of Python"),
        ("test", "for tests"),
        ("testbed", "for tests"),
        ("environment", "class of qr-sampler"),
        ("error", "failure policy"),
        ("system", "already offers the entropy source system"),
        ("sources", "name of qr-sampler itself|is installed already"),
        ("http", "name of qr-sampler itself|already offers"),
        ("ledger", "QR_LEDGER_BLOCKS"),
        ("top", "QR_TOP_K"),
    ],
)
def test_names_that_could_not_be_used_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    place = tmp_path / "place"
    status, printed = run("source", "--output", str(place), "--", name)
    assert status == 2
    assert re.search(reason, printed), printed
    assert not place.exists()


@pytest.mark.parametrize(
    ("kind", "name"), [("amplifier", "zscore_mean"), ("strategy", "edt"), ("source", "sham")]
)
def test_installed_names_are_refused_for_their_kind_only(kind: str, name: str) -> None:
    with pytest.raises(ConfigError, match="already offers"):
        package_names(KINDS[kind], name)
    assert package_names(KINDS["server"], "sham").distribution == "qr-entropy-server-sham"


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("Dice", "cannot name a package"),
        ("a/b", "cannot name a package"),
        ("dice.", "cannot name a package"),
        ("d" * 41, "at most 40"),
        ("qr-sampler-dice", "name of qr-sampler itself"),
        ("json", "module of Python itself"),
        ("class", "module of Python itself"),
        ("numpy", "installed already"),
        ("typing-extensions", "installed already"),
        ("yaml", "belongs to"),
    ],
)
def test_packages_that_there_are_are_refused(package: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        package_names(KINDS["source"], "dice", package)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine", "utf-8")
    status, printed = run("source", "dice", "--output", str(full))
    assert status == 2
    assert "is not empty" in printed
    status, printed = run("source", "dice", "--output", str(full / "thesis.txt"))
    assert status == 2
    assert "in the way" in printed
    status, printed = run("source", "dice", "--output", str(full / "thesis.txt" / "below"))
    assert status == 2
    assert "cannot make the package" in printed
    status, printed = run("source", "dice", "--output", str(tmp_path / ("d" * 300)))
    assert status == 2
    assert "File name too long" in printed
    assert contents(tmp_path) == {"full/thesis.txt": b"mine"}


def test_half_a_package_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    move = shutil.move

    def interrupted(path: Path, target: Path) -> None:
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(target)
        move(path, target)

    monkeypatch.setattr(shutil, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, "source")
    assert contents(tmp_path) == {}
    assert len(moved) == 3


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed = run("source", "dice", "--output", ".")
    assert status == 0, printed
    assert (tmp_path / "pyproject.toml").is_file()
    assert len(contents(tmp_path)) == 12


def test_without_copier_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "copier", None)
    status, printed = run("source", "dice", "--output", str(tmp_path / "x"))
    assert status == 2
    assert "needs copier, which is not installed" in printed
    assert "pip install './packages/qr-sampler[new]'" in printed


def test_texts_are_texts_and_no_templates(tmp_path: Path) -> None:
    text = '{{ 7 * 7 }} {% set x = 1 %} "quoted" \\ <&> \U0001f3b2 \U00020bb7'
    files = contents(made(tmp_path, "source", description=text, author=text))
    assert text in files["README.md"].decode()
    if sys.version_info >= (3, 11):
        import tomllib

        project = tomllib.loads(files["pyproject.toml"].decode())["project"]
        assert project["description"] == text
        assert project["authors"] == [{"name": text}]


@pytest.mark.parametrize("text", ["", "two\nlines", "\x1b[31mred", "x" * 201])
def test_texts_that_are_no_line_are_refused(tmp_path: Path, text: str) -> None:
    place = str(tmp_path / "x")
    status, printed = run("source", "dice", "--output", place, "--author", text)
    assert status == 2
    assert "one line" in printed


@pytest.mark.parametrize("unsafe", ["_tasks: ['touch {}']", "_jinja_extensions: [os.path]"])
def test_templates_cannot_run_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsafe: str
) -> None:
    evil, trace = tmp_path / "evil", tmp_path / "trace"
    shutil.copytree(filling.TEMPLATES, evil)
    with (evil / "copier.yml").open("a") as file:
        file.write(unsafe.format(trace) + "\n")
    monkeypatch.setattr(filling, "TEMPLATES", evil)
    with pytest.raises(Exception, match="unsafe"):
        made(tmp_path, "source")
    assert not trace.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil"]


def test_questions_are_asked_at_a_terminal_only(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="is about POSIX")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "qr_sampler_cli", "new", "source", "dice"]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "dice")],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    os.write(ours, b"Throws real dice.\n\n")
    assert process.wait(timeout=300) == 0
    os.close(ours)
    project = (tmp_path / "dice" / "pyproject.toml").read_text("utf-8")
    assert 'description = "Throws real dice."' in project
    assert 'name = "The authors of qr-entropy-dice"' in project


def test_the_workflow_pins_what_it_runs(packages: dict[str, dict[str, bytes]]) -> None:
    import yaml

    for files in packages.values():
        text = files[".github/workflows/ci.yml"].decode()
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {}
        used = re.findall(r"uses: (\S+)", text)
        assert len(used) == 3
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)
        assert "${{ matrix.python }}" in text


def test_the_floors_are_those_of_our_own_packages(packages: dict[str, dict[str, bytes]]) -> None:
    (ours,) = (
        one
        for one in map(Requirement, requires("qr-sampler") or ())
        if one.name == "qr-sampler-core" and one.marker is None
    )
    for files in packages.values():
        text = files["pyproject.toml"].decode()
        named = [Requirement(line) for line in re.findall(r'"(qr-sampler-[^"]+)"', text)]
        assert named
        assert {str(one.specifier) for one in named} == {str(ours.specifier)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_of_a_readme_exist(packages: dict[str, dict[str, bytes]], kind: str) -> None:
    text = packages[kind]["README.md"].decode()
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL))
    commands = [shlex.split(line) for line in lines.replace("\\\n", " ").splitlines()]
    used = [words[1:] for words in commands if words[:1] == ["qr-sampler"]]
    assert len(used) > 1
    known = get_command(app).commands
    for name, *arguments in used:
        command = known[name]
        if name == "health":
            command = command.commands[arguments[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options
    rows = (row for group in installed_groups() for row in setting_rows(group.model))
    variables = {row.variable.strip("`") for row in rows} | {
        # Of a package that is not everywhere.
        "QR_GRPC_SERVER_ADDRESS"
    }
    exported = {words[1].partition("=")[0] for words in commands if words[:1] == ["export"]}
    assert exported
    assert exported <= variables


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
def test_the_code_is_formatted_whatever_the_name(tmp_path: Path) -> None:
    for kind in KINDS:
        for name in NAMES:
            made(tmp_path, kind, name)
    for command in (("check", "--no-cache"), ("format", "--check", "--no-cache")):
        done = subprocess.run(
            ["ruff", *command, "."], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_single_file_in_servers_is_the_device_of_the_template(
    packages: dict[str, dict[str, bytes]],
) -> None:
    if not (ROOT / "servers").is_dir():
        pytest.skip("the servers are in the repository, not in this archive")
    texts = (
        (ROOT / "servers" / "qrng_template_server.py").read_text("utf-8"),
        packages["server"]["src/qr_entropy_server_dice/device.py"].decode(),
    )
    classes = [
        ast.get_source_segment(text, node)
        for text in texts
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) == 2
    assert classes[0] == classes[1]


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds the distributions")
def test_templates_are_in_what_is_distributed(tmp_path: Path) -> None:
    if not (PACKAGE / "pyproject.toml").exists():
        pytest.skip("there is nothing to build from")
    # A wheel from a source distribution shows that both have them.
    command = ["uv", "build", "--quiet", "--out-dir", str(tmp_path), str(PACKAGE)]
    subprocess.run(command, check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    inside = zipfile.ZipFile(wheel)
    root = "qr_sampler_cli/scaffolding/templates/"
    packed = {
        name.removeprefix(root): inside.read(name)
        for name in inside.namelist()
        if name.startswith(root)
    }
    assert packed == contents(filling.TEMPLATES)
    assert "shared/.gitignore.jinja" in packed
