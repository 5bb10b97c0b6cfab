"""Patterns of an earlier run (NOISE), put on a person's later photos without a search.

One pattern a person is for photos that no search has seen, too (Huang et al., ICLR 2021, section 3: class-wise noise), and photos that are
out already go on carrying it: another pattern on the new ones would say of neither that it is the person's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import sha256_of_file
from pipeline.config import NoiseConfig
from pipeline.errors import RequestError, StageError
from pipeline.noise.arms import ARMS
from pipeline.noise.table import FILE, NoiseTable, load_noise

REUSED = tuple(name for name, arm in ARMS.items() if (arm.method, arm.per) == ("error-min", "identity"))  # arms whose patterns are taken


def patterns_asked_for(value: str, arms: list[str], epsilon: int) -> dict[str, dict[str, str]]:
    """By arm, path and SHA-256 of the patterns that it takes from NOISE.

    Raises:
        RequestError: no such file, or what it holds is for no arm of this request.
    """
    path = Path(value)
    if path.name != FILE or not path.is_file() or not path.with_name("noise.json").is_file():
        raise RequestError(f"NOISE={value}: not there; allowed is the path of an earlier run's {FILE}, beside its noise.json")
    try:
        table, facts = load_noise(path.parent)
    except StageError as error:
        raise RequestError(f"NOISE={value}: {error}") from None
    arm = facts.get("method")
    if arm not in REUSED:
        raise RequestError(f"NOISE={value}: is noise of {arm}; allowed is that of {', '.join(REUSED)}: one pattern a person, and searched")
    if arm not in arms:
        raise RequestError(f"NOISE={value}: is noise of {arm}, which is not among ARMS={' '.join(arms)!r}")
    if table.epsilon != epsilon:
        raise RequestError(f"NOISE={value}: is noise of EPSILON={table.epsilon}, and {epsilon} is asked for; give EPSILON={table.epsilon}")
    return {arm: {"given": str(path.absolute()), "given_sha256": sha256_of_file(path)}}


def patterns_of(config: NoiseConfig, names: tuple[str, ...]) -> tuple[NoiseTable, dict[str, Any]]:
    """The patterns of the identities `names`, and what `noise.json` said of the search for them; `given` says whose noise it is.

    Raises:
        StageError: the file is another one than it was when it was asked for, or has no pattern of somebody.
    """
    assert config.given is not None, config.arm
    path = Path(config.given)
    if not path.is_file() or sha256_of_file(path) != config.given_sha256:
        raise StageError(f"{path}: gone, or another file than it was when NOISE was read; run the same command again")
    table, facts = load_noise(path.parent)
    place = {name: row for row, name in enumerate(table.names)}
    missing = [name for name in names if name not in place]
    if missing:
        some = ", ".join(repr(name) for name in missing[:5]) + (" …" if len(missing) > 5 else "")
        raise StageError(
            f"NOISE={path}: has no pattern of {len(missing)} of the {len(names)} people to protect ({some}): name others in IDENTITIES, or "
            "protect these in a run of their own, without NOISE"
        )
    found = NoiseTable(table.delta[[place[name] for name in names]], names, table.epsilon)
    return found, facts | {"given": {"sha256": config.given_sha256, "people": len(table.names)}}
