"""Who may open the page: loopback only by default, a token beyond it, and what is said about encryption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra 'app'")

from FewShotSegLib.app.access import address, check_access, is_loopback, same_origin, same_secret, tls_advice
from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.cli import main
from FewShotSegLib.commands import app as command
from FewShotSegLib.errors import ConfigError

LONG = "x" * 16


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_this_computer(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "hospital.example", "", "127.0.0.1.example"])
def test_other_computers(host: str) -> None:
    assert not is_loopback(host)


def test_by_default_only_this_computer_and_a_new_token_each_time() -> None:
    one, other = AppConfig(), AppConfig()
    assert is_loopback(one.host) and len(one.token) >= 24 and one.token != other.token


def test_beyond_loopback_a_token_of_ones_own_is_demanded_and_tls_explained() -> None:
    with pytest.raises(ConfigError) as refused:
        AppConfig(host="0.0.0.0")
    told = str(refused.value)
    assert "--token" in told and "--certificate" in told and "TLS" in told and "nginx" in told
    assert AppConfig(host="0.0.0.0", token=LONG).token == LONG


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        AppConfig(token="x" * 15)


def test_certificate_and_key_come_together_and_exist(tmp_path: Path) -> None:
    here = tmp_path / "here.pem"
    here.write_text("")
    check_access("127.0.0.1", "", here, here)
    for pair in ((here, None), (None, here), (here, tmp_path / "gone.pem")):
        with pytest.raises(ConfigError, match="--certificate and --key"):
            check_access("127.0.0.1", "", *pair)
    assert tls_advice(here) == "" and "without TLS everybody" in tls_advice(None)


@pytest.mark.parametrize("limit", ["sessions", "idle_minutes", "upload_mb"])
def test_limits_are_positive(limit: str) -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        AppConfig(**{limit: 0})


def test_secrets_are_equal_or_not() -> None:
    assert same_secret("é" * 16, "é" * 16)
    assert not same_secret(None, LONG) and not same_secret("", LONG) and not same_secret(LONG + "x", LONG)


def test_requests_of_other_sites_are_known() -> None:
    assert same_origin(None, "127.0.0.1:8085") and same_origin("http://127.0.0.1:8085", "127.0.0.1:8085")
    assert not same_origin("http://evil.example", "127.0.0.1:8085")
    assert not same_origin("http://127.0.0.1:9000", "127.0.0.1:8085") and not same_origin("null", "127.0.0.1:8085")


def test_the_address_can_be_opened() -> None:
    assert address("127.0.0.1", 8085, "t", False) == "http://127.0.0.1:8085/?token=t"
    assert address("0.0.0.0", 1, "t", True) == "https://127.0.0.1:1/?token=t"
    assert address("::1", 1, "t", False) == "http://[::1]:1/?token=t"


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[AppConfig]:
    """What the command would serve."""
    configs: list[AppConfig] = []

    async def serve(config: AppConfig, ready: Any) -> None:
        configs.append(config)
        ready("http://there")

    monkeypatch.setattr("FewShotSegLib.app.gateway.serve", serve)
    monkeypatch.setattr(command, "check_installed", lambda: None)
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.delenv(command.TOKEN, raising=False)
    return configs


def test_the_command_stays_on_loopback(served: list[AppConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app"]) == 0
    assert served[0].host == "127.0.0.1"
    said = capsys.readouterr()
    assert "http://there" in said.out and "encrypted" not in said.err


def test_the_command_refuses_an_open_door(served: list[AppConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--host", "0.0.0.0"]) == 2
    told = capsys.readouterr().err
    assert not served and "--token" in told and "TLS" in told


def test_the_command_warns_without_tls(
    served: list[AppConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(command.TOKEN, LONG)
    assert main(["app", "--host", "0.0.0.0"]) == 0
    assert served[0].token == LONG and "not encrypted" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_told_before_serving(
    served: list[AppConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["app", "--checkpoint", str(tmp_path / "gone.safetensors")]) == 2
    assert not served and "gone" in capsys.readouterr().err


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NEEDED", ("aiohttp", "no_such_package_xyz"))
    with pytest.raises(ConfigError, match="no_such_package_xyz") as refused:
        command.check_installed()
    assert "aiohttp" not in refused.value.found and "fewshotseg[app]" in str(refused.value)
