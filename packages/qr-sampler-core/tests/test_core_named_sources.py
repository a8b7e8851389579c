# SPDX-License-Identifier: Apache-2.0
"""Several sources of one kind: each has its own name and settings, and none another's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

import pytest

from qr_sampler import (
    ENTROPY_SOURCES,
    ConfigError,
    FallbackEntropySource,
    GuardedSource,
    Origin,
    PluginLoadError,
    Settings,
    UnknownPluginError,
    configured_sources,
    create_source,
)
from qr_sampler.components.sources import source_names
from qr_sampler.records.genesis import genesis_of

ENTRY_POINTS: Final = """
    [qr_sampler.entropy_sources]
    lamp = lamp_source:Lamp
    stubborn = lamp_source:Stubborn
    plain = lamp_source:Plain
    fixed = lamp_source:Fixed
    pair = lamp_source:Pair
    single = lamp_source:Single
    gone = lamp_source:Gone
"""

MODULE: Final = """
    from pydantic import Field, SecretStr
    from pydantic_settings import SettingsConfigDict

    from qr_sampler import EntropyDraw, EntropySource, EntropyUnavailableError, create_source
    from qr_sampler.entropy.breaker_settings import BreakerOptions
    from qr_sampler.settings.environment import EnvironmentSettings
    from qr_sampler.settings.recorded import recorded_values

    class LampSettings(EnvironmentSettings):
        model_config = SettingsConfigDict(env_prefix="QR_LAMP_")
        location = "port"

        port: str = "nowhere"
        value: int = Field(1, ge=0, le=255, description="What it sends.")
        enabled: bool = False
        key: SecretStr = SecretStr("none")

    class Lamp(EntropySource):
        def __init__(self, settings, breaker=None):
            self.settings = settings
            self.breaker = breaker
            # Asked for its name while it is constructed, as one that starts a thread may be.
            self.label = f"thread of {self.name}"

        @property
        def name(self):
            return "lamp"

        @classmethod
        def from_environment(cls):
            return cls(LampSettings.load(), BreakerOptions.from_environment())

        @property
        def recorded_settings(self):
            return recorded_values(self.settings)

        def get_random_bytes(self, n):
            return bytes([self.settings.value]) * n

    class Stubborn(EntropySource):
        '''Writes its name wherever it can, and constructs its class by name.'''

        def __init__(self):
            self.name = "stubborn"

        name = ""

        @classmethod
        def from_environment(cls):
            return Stubborn()

        def get_random_bytes(self, n):
            raise EntropyUnavailableError("stubborn", "it is dark")

        def draw(self, n):
            import time
            now = time.monotonic_ns()
            return EntropyDraw(data=bytes(n), source="stubborn", requested_ns=now,
                               received_ns=now, wall_time_ns=time.time_ns())

    class Plain(EntropySource):
        name = "plain"

        def get_random_bytes(self, n):
            return bytes(n)

    class _Metal(type(EntropySource)):
        def __new__(cls, name, bases, body):
            if any(isinstance(base, _Metal) for base in bases):
                raise TypeError(f"{name} is final")
            return super().__new__(cls, name, bases, body)

    class Fixed(EntropySource, metaclass=_Metal):
        name = "fixed"

        def get_random_bytes(self, n):
            return bytes(n)

    class Pair(Lamp):
        name = "pair"

        @classmethod
        def from_environment(cls):
            source = cls(LampSettings.load())
            source.inner = create_source("lamp")
            return source

    class Single(Plain):
        only = Plain()

        @classmethod
        def from_environment(cls):
            return cls.only

    class Gone(EntropySource):
        name = "gone"

        @classmethod
        def from_environment(cls):
            raise RuntimeError("no driver")

        def get_random_bytes(self, n):
            return bytes(n)
"""


@pytest.fixture(autouse=True)
def _lamps(install_plugin: Any) -> None:
    install_plugin("qr-lamp", ENTRY_POINTS, {"lamp_source": MODULE}, version="2.5")


def declare(monkeypatch: pytest.MonkeyPatch, text: str = "", toml: str | None = None) -> None:
    monkeypatch.setenv("QR_SOURCES", text)
    if toml is not None:
        Path("sources.toml").write_text(toml, "utf-8")
        monkeypatch.setenv("QR_SOURCES_FILE", "sources.toml")


def test_instances_have_their_own_settings_and_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QR_LAMP_VALUE", "7")
    declare(
        monkeypatch,
        "left=lamp:/dev/left, right = lamp",
        '[top]\nkind = "lamp"\nvalue = 9\nkey = "hidden"\n',
    )
    left, right, top = (create_source(name) for name in ("left", "right", "top"))
    told: list[Any] = [dict(source.recorded_settings) for source in (left, right, top)]
    assert [one["port"] for one in told] == ["/dev/left", "nowhere", "nowhere"]
    assert [one["value"] for one in told] == [7, 7, 9], "the declaration comes before the variable"
    assert [source.draw(1).data for source in (left, right, top)] == [b"\x07", b"\x07", b"\x09"]
    assert [source.draw(1).source for source in (left, right, top)] == ["left", "right", "top"]
    assert [source.name for source in (left, right, top)] == ["left", "right", "top"]
    assert vars(left)["label"] == "thread of left"
    assert create_source("lamp").recorded_settings["port"] == "nowhere"
    assert {"left", "right", "top", "lamp"} <= set(source_names())


def test_an_instance_is_what_its_kind_is(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "left=lamp")
    left, kind = create_source("left"), ENTROPY_SOURCES.load("lamp")
    assert isinstance(left, kind)
    assert type(left).__module__ == kind.__module__, "whose code it is decides how it is called"
    assert type(left).__qualname__ == kind.__qualname__
    assert left.origin == Origin("qr-lamp", "2.5", kind="lamp")
    assert left.draw(1).origin is left.origin
    assert kind.from_environment().name == "lamp", "the class itself is left alone"


def test_no_call_passes_through_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "left=lamp")
    left, kind = create_source("left"), ENTROPY_SOURCES.load("lamp")
    for method in ("draw", "get_random_bytes", "committed_draw", "draw_rows", "status", "close"):
        assert getattr(type(left), method) is getattr(kind, method)


def test_a_kind_that_writes_its_own_name_serves_under_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare(monkeypatch, "left=stubborn")
    source = create_source("left")
    assert source.name == "left"
    guarded = GuardedSource(source, timeout_ms=60_000)
    draw = guarded.draw(3)
    assert (draw.data, draw.source, draw.origin.kind) == (bytes(3), "left", "stubborn")
    guarded.close()


def test_one_source_cannot_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "left=single,right=single")
    assert create_source("left").name == "left"
    with pytest.raises(PluginLoadError, match="'left' and 'right' would be the same source"):
        create_source("right")


def test_genesis_says_of_which_kind_an_instance_is(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "left=lamp:/dev/left")
    settings = Settings.load(entropy_source_type="left", fallback_mode="plain")
    record = genesis_of(
        run_id="run",
        engine="toy",
        model="tiny",
        settings={},
        sources=configured_sources(settings).values(),
        distributions=[],
        host={},
    )
    assert [(one["name"], one["kind"]) for one in record.sources] == [
        ("left", "lamp"),
        ("plain", "plain"),
    ]
    (lamp, _) = record.sources
    assert lamp["settings"] == {"port": "/dev/left", "value": 1, "enabled": False}
    assert record.versions == {"qr-lamp": "2.5"} or "qr-lamp" not in record.versions


def test_requests_choose_among_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "left=lamp,right=lamp")
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "left")
    monkeypatch.setenv("QR_REQUEST_ENTROPY_SOURCES", "right")
    sources = configured_sources(Settings.load(fallback_mode="right"))
    assert list(sources) == ["left", "right"]
    left, right = sources.values()
    assert isinstance(left, FallbackEntropySource)
    assert left.fallback is right
    assert isinstance(left.primary, GuardedSource)
    assert isinstance(right, GuardedSource)
    assert left.primary.source is not right.source, "each has a guard and a breaker of its own"


def test_settings_of_the_deployment_are_not_those_of_an_instance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare(monkeypatch, toml='[left]\nkind = "lamp"\nenabled = false\n')
    monkeypatch.setenv("QR_LAMP_ENABLED", "true")
    left: Any = create_source("left")
    assert left.settings.enabled is False
    assert left.breaker.enabled is True, "QR_CB_ENABLED is for all sources"


def test_a_source_within_an_instance_has_none_of_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare(monkeypatch, "left=pair:/dev/left")
    left: Any = create_source("left")
    assert left.settings.port == "/dev/left"
    assert left.inner.settings.port == "nowhere"
    assert left.inner.name == "lamp"


def test_threads_configure_instances_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"lamp_{number}" for number in range(16)]
    declare(monkeypatch, ",".join(f"{name}=lamp:/dev/{name}" for name in names))
    found: dict[str, Any] = {}

    def create(name: str) -> None:
        found[name] = create_source(name).recorded_settings["port"]

    threads = [threading.Thread(target=create, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: f"/dev/{name}" for name in names}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("left", "'left' is not 'name=kind' or 'name=kind:place'"),
        ("left=", "'left=' is not 'name=kind'"),
        ("left=lamp:", "'left=lamp:' is not 'name=kind'"),
        ("left=lamp:a,b", "'b' is not 'name=kind'.* a comma belongs into QR_SOURCES_FILE"),
        ("=lamp", "'' cannot be the name of a source; use lower-case letters"),
        ("Left=lamp", "'Left' cannot be the name of a source"),
        (f"{'x' * 65}=lamp", "cannot be the name of a source"),
        ("left=lamp,left=plain", "left: QR_SOURCES declares it, too; give one of them another"),
        ("left=lampe", "left: no kind of source is called 'lampe'; did you mean 'lamp'?"),
        ("left=zzz", "no kind of source is called 'zzz'; installed are .*lamp"),
        ("left=right,right=lamp", "left: no kind of source is called 'right'"),
        ("lamp=plain", "lamp: that is the name of a kind of source; choose .* 'lamp_1'"),
        ("error=lamp", "error: that is the name of the mode of a fallback"),
        ("left=plain:/dev/x", "left: the kind 'plain' has no setting that '/dev/x' could be"),
        ("left=fixed", "'fixed' from qr-lamp 2.5 cannot be loaded: TypeError: Fixed is final"),
        ("left=gone", "'gone' from qr-lamp 2.5 cannot be loaded: RuntimeError: no driver"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    declare(monkeypatch, text)
    with pytest.raises((ConfigError, PluginLoadError), match=message):
        create_source("left")


def test_there_is_an_end_to_the_number_of_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, ",".join(f"lamp_{number}=lamp" for number in range(64)))
    assert create_source("lamp_63").name == "lamp_63"
    declare(monkeypatch, ",".join(f"lamp_{number}=lamp" for number in range(65)))
    with pytest.raises(ConfigError, match="QR_SOURCES: there are more than 64 sources"):
        create_source("lamp_1")


def test_a_name_that_nobody_has_is_told_with_those_of_instances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare(monkeypatch, "left=lamp")
    with pytest.raises(UnknownPluginError, match=r"source 'lift'; available: .*left"):
        create_source("lift")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[left]\nkind = "lamp"\nvaule = 3\n', r"toml: left: 'vaule' is not .*mean 'value'\?"),
        ('[left]\nkind = "lamp"\nzzz = 3\n', "'zzz' is not .*; choose among enabled, key, port"),
        ('[left]\nkind = "lamp"\nvalue = 300\n', r"value=300: .*equal to 255 \(What it sends"),
        ('[left]\nkind = "lamp"\nvalue = [3]\n', r"left: value=\[3\]: Input should be a valid int"),
        ('[left]\nkind = "plain"\nvalue = 3\n', "it reads no settings that a single source can"),
        ("[left]\nvalue = 3\n", r"\[left\] does not say of which kind it is; add a line like kind"),
        ("[left]\nkind = 3\n", r"\[left\] does not say of which kind it is"),
        ('kind = "lamp"\n', "'kind' stands outside of a table; put it below a line like"),
        ("[left\n", r"sources.toml is not TOML: .*line 1"),
        ('[left]\nkind = "lamp"\nkind = "lamp"\n', "sources.toml is not TOML: .*line 3"),
        ("n = 1" + "0" * 5000, "is not TOML: .*; correct it"),
        ("n = " + "[" * 20_000, "is not TOML: .*; correct it"),
        ("# " + "x" * 2**18, "is larger than 262144 bytes; shorten it"),
        ('[Left]\nkind = "lamp"\n', "sources.toml: 'Left' cannot be the name of a source"),
        ('[right]\nkind = "lamp"\n', "sources.toml: right: QR_SOURCES declares it, too"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toml: str, message: str
) -> None:
    declare(monkeypatch, "right=lamp", toml)
    with pytest.raises(ConfigError, match=message):
        create_source("left")


def test_bytes_that_are_no_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare(monkeypatch, toml="")
    (tmp_path / "sources.toml").write_bytes(b"[left]\nkind = '\xff'\n")
    with pytest.raises(ConfigError, match="is not UTF-8; save it as UTF-8"):
        create_source("lamp")


@pytest.mark.parametrize(
    ("path", "message"),
    [("absent.toml", "cannot be read: No such file"), (".", "is not a regular file")],
)
def test_a_file_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, message: str
) -> None:
    monkeypatch.setenv("QR_SOURCES_FILE", path)
    with pytest.raises(ConfigError, match=f"QR_SOURCES_FILE=.*{message}"):
        create_source("lamp")


def test_what_the_file_holds_is_in_no_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare(monkeypatch, toml='[left]\nkind = "lamp"\nkeey = "hidden"\n')
    with pytest.raises(ConfigError) as caught:
        create_source("left")
    assert "hidden" not in str(caught.value)
    declare(monkeypatch, toml='[left]\nkey = "hidden\n')
    (tmp_path / "other.toml").write_text('[left]\nkey = "hidden\n', "utf-8")
    monkeypatch.setenv("QR_SOURCES_FILE", "other.toml")
    with pytest.raises(ConfigError, match="not TOML") as caught:
        create_source("left")
    error: BaseException | None = caught.value
    while error is not None:
        assert "hidden" not in f"{error} {vars(error)}"
        error = error.__cause__ or error.__context__


def test_the_file_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    declare(monkeypatch, toml='[left]\nkind = "lamp"\nvalue = 3\n')
    assert create_source("left").draw(1).data == b"\x03"
    (tmp_path / "sources.toml").write_text('[left]\nkind = "lamp"\nvalue = 4\n', "utf-8")
    assert create_source("left").draw(1).data == b"\x03"
