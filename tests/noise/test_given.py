"""Patterns of an earlier run on later photos of the same people."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import NoiseConfig, load
from pipeline.errors import RequestError, StageError
from pipeline.noise.given import patterns_asked_for, patterns_of
from pipeline.noise.table import NoiseTable, load_noise, save_noise
from tests.study import Study
from tests.test_request import ask

NAMES = ("anna", "bo", "cem")
FACTS = {"method": "error-min", "per": "identity", "epsilon": 16, "identities": 3, "rounds": 9, "converged": True, "error": 0.02}


def earlier(folder: Path, names: tuple[str, ...] = NAMES, *, epsilon: int = 16, per: str = "identity", **facts: object) -> Path:
    """`noise.safetensors` of an earlier run, each of whose patterns is one number."""
    delta = np.ones((len(names), 3, 112, 112), np.int8) * np.arange(1, len(names) + 1, dtype=np.int8)[:, None, None, None]
    save_noise(folder, NoiseTable(delta, names, epsilon, per), FACTS | facts)
    return folder / "noise.safetensors"


def config_for(path: Path, epsilon: int = 16) -> NoiseConfig:
    given = patterns_asked_for(str(path), ["clean", "error-min"], epsilon)["error-min"]
    return NoiseConfig.model_validate({"arm": "error-min", "epsilon": epsilon, **given})


def test_everybody_gets_their_own_pattern_again(tmp_path: Path) -> None:
    table, facts = patterns_of(config_for(earlier(tmp_path)), ("bo", "anna"))
    assert table.names == ("bo", "anna") and [int(one.max()) for one in table.delta] == [2, 1]
    assert (facts["rounds"], facts["converged"], facts["given"]["people"]) == (9, True, 3)


def test_who_has_no_pattern_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"has no pattern of 1 of the 2 people to protect \('dan'\): name others in IDENTITIES"):
        patterns_of(config_for(earlier(tmp_path)), ("anna", "dan"))


def test_another_file_of_that_name_is_noticed(tmp_path: Path) -> None:
    config = config_for(earlier(tmp_path))
    earlier(tmp_path, ("anna", "bo"))
    with pytest.raises(StageError, match="another file than it was when NOISE was read"):
        patterns_of(config, ("anna",))


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ({}, "noise.json", "not there; allowed is the path of an earlier run's noise.safetensors"),
        ({}, "elsewhere/noise.safetensors", "not there; allowed"),
        ({"epsilon": 8}, "noise.safetensors", "is noise of EPSILON=8, and 16 is asked for; give EPSILON=8"),
        ({"method": "cloak", "per": "photo"}, "noise.safetensors", "is noise of cloak; allowed is that of error-min, error-min-grey"),
        ({"method": "error-min-robust"}, "noise.safetensors", "is noise of error-min-robust, which is not among ARMS='clean error-min'"),
    ],
)
def test_a_wrong_request_is_refused(made: dict[str, object], asked: str, message: str, tmp_path: Path) -> None:
    earlier(tmp_path, **made)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=re.escape(f"NOISE={tmp_path / asked}: ") + message):
        ask(tmp_path / "asked", arms="clean error-min", noise=str(tmp_path / asked))
    assert not (tmp_path / "asked").exists()


def test_damaged_noise_is_refused(tmp_path: Path) -> None:
    earlier(tmp_path).write_bytes(b"no noise")
    with pytest.raises(RequestError, match=r"NOISE=.*: damaged"):
        ask(tmp_path / "asked", arms="clean error-min", noise=str(tmp_path / "noise.safetensors"))


def test_the_arm_that_it_is_of_takes_it(tmp_path: Path) -> None:
    path = earlier(tmp_path)
    ask(tmp_path, arms="clean error-min error-min-robust random", noise=str(path))
    configs = [load(NoiseConfig, tmp_path / "run" / "config" / f"noise-{arm}.yaml") for arm in ("error-min", "error-min-robust", "random")]
    assert [config.given for config in configs] == [str(path), None, None]


def test_nothing_is_searched_and_photos_carry_what_was_given(tmp_path: Path) -> None:
    study = Study(tmp_path)
    split = study.table()
    people = sorted(split.loc[split["role"] == "protected", "identity"].unique())
    path = earlier(tmp_path / "earlier", (*reversed(people), "somebody else"))
    given = patterns_asked_for(str(path), ["error-min"], 16)["error-min"]
    study.noise("error-min", epsilon=16, **given)
    table, facts = load_noise(study.run / "error-min")
    wanted, _ = load_noise(path.parent)
    assert list(table.names) == people
    for name, delta in zip(table.names, table.delta, strict=True):
        assert np.array_equal(delta, wanted.delta[wanted.names.index(name)])
    assert facts["given"]["sha256"] == given["given_sha256"] and facts["identities"] == len(table.names)
    assert facts["mean_abs"] == pytest.approx(np.abs(table.delta).mean(), abs=1e-3)
