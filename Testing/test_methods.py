from __future__ import annotations

import dataclasses

import pytest
import torch

from FewShotSegLib import methods
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods import Method, create_method, list_methods, upsample


def test_published_methods_are_listed_and_match_comes_first_when_present() -> None:
    assert list_methods()[:3] == ["match", "alpnet", "visa"]
    assert set(list_methods()[3:]) <= {"adnet", "adnet3d", "qnet", "rpt", "pami", "qamp"}


def test_methods_whose_module_is_missing_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "NAMES", ("absent", *methods.NAMES))
    assert "absent" not in list_methods()
    with pytest.raises(ConfigError, match="absent"):
        create_method("absent")


@pytest.mark.parametrize("name", list_methods())
def test_a_method_has_its_name_and_a_frozen_config(name: str) -> None:
    method = create_method(name)
    assert isinstance(method, Method)
    assert method.name == name
    option = dataclasses.fields(method.config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(method.config, option, 0)


def test_options_reach_the_config() -> None:
    assert create_method("alpnet", window=4, faithful=True).config.window == 4
    assert create_method("visa", faithful=True).config.faithful


def test_default_strategies() -> None:
    assert create_method("alpnet").default_strategy == "direct"
    assert create_method("visa").default_strategy == "propagate"


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="match, alpnet, visa"):
        create_method("alpnett")


def test_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'windows'.*temperature"):
        create_method("alpnet", windows=2)


def test_upsampling_keeps_a_constant() -> None:
    torch.testing.assert_close(upsample(torch.ones(2, 2, 4, 4), (32, 24)), torch.ones(2, 2, 32, 24))


@pytest.mark.parametrize(
    ("option", "value"), [("temperature", "hot"), ("temperature", True), ("radius", 2.5), ("registration", 3)]
)
def test_a_value_of_another_type_is_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option} = {value!r}"):
        create_method("match", **{option: value})


@pytest.mark.parametrize(("option", "value"), [("temperature", 0), ("sigma", -1.0), ("radius", -1), ("reach_mm", float("nan"))])
def test_impossible_values_of_match_are_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        create_method("match", **{option: value})


def test_a_whole_number_is_a_float() -> None:
    assert create_method("match", sigma=2).config.sigma == 2
