"""The harness on made-up rows: directions, medians, turns, resuming, what fails and what is skipped. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.results import collect, measure_rows, meets, problem, sentence, summarise
from benchmarks.row import Pair, Row, Unavailable, paired
from pipeline.artifacts import read_json, write_json
from tests.benchmarks.fakes import empty_results, fake_row


def measured(rows: list[Row], repeats: int, results: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The results, and what was said."""
    results, said = results or empty_results(), []
    measure_rows(rows, results, repeats=repeats, save=lambda _: None, say=said.append)
    return results, said


def test_above_one_is_better_in_both_directions() -> None:
    rate, seconds = fake_row("rate", []), fake_row("time", [], unit="s", lower_is_better=True)
    assert rate.ratio(Pair(60.0, 10.0)) == 6.0
    assert seconds.ratio(Pair(10.0, 60.0)) == 6.0
    assert rate.ratio(Pair(60.0)) is None


def test_ratio_is_the_median_of_pairs_not_of_medians() -> None:
    """The machine slows down threefold in the middle, on both sides: the ratio does not notice, the value does."""
    record = summarise(fake_row("r", [], target=6.0), [Pair(60, 10), Pair(21, 3), Pair(20, 4)])
    assert (record["value"], record["min"], record["max"], record["repeats"]) == (21, 20, 60, 3)
    assert (record["ratio"], record["ratio_min"], record["ratio_max"]) == (6, 5, 7)
    assert meets(record) is True
    assert meets(record | {"target": 6.5}) is False
    assert meets(record | {"target": None}) is None
    assert "6.00× plain-reference (5.00 to 7.00, asked: 6: met)" in sentence(record)


def test_row_without_another_side() -> None:
    record = summarise(fake_row("alone", [], against=""), [Pair(3.0), Pair(1.0)])
    assert (record["value"], record["ratio"], record["ratio_min"]) == (2.0, None, None)
    assert record["pairs"] == [[3.0, None], [1.0, None]]


def test_sides_take_turns_and_are_warmed_once() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return {"ours": 2.0, "other": 1.0}[name]

    measure = paired(lambda: side("ours"), lambda: side("other"))
    assert [measure() for _ in range(3)] == [Pair(2.0, 1.0)] * 3
    assert calls == ["ours", "other", "ours", "other", "other", "ours", "ours", "other"]
    calls.clear()
    paired(lambda: side("ours"), lambda: side("other"), warm=False)()
    assert calls == ["ours", "other"]


def test_rows_are_measured_in_turns() -> None:
    results, said = measured([fake_row("a", [(1, 1), (2, 1)]), fake_row("b", [(3, 1), (4, 1)])], 2)
    assert [line.split()[3] for line in said] == ["a", "b", "a", "b"]
    assert [(row["name"], row["pairs"]) for row in results["rows"]] == [("a", [[1, 1], [2, 1]]), ("b", [[3, 1], [4, 1]])]


def test_file_follows_the_contract_and_is_written_after_every_pair(tmp_path: Path) -> None:
    path, seen = tmp_path / "bench.json", []

    def save(results: dict[str, Any]) -> None:
        write_json(path, results)
        seen.append([(row["name"], row["repeats"]) for row in read_json(path)["rows"]])

    measure_rows([fake_row("a", [(1, 1)] * 2), fake_row("b", [(3, 1)] * 2)], empty_results(), repeats=2, save=save, say=lambda _: None)
    assert seen == [[("a", 1)], [("a", 1), ("b", 1)], [("a", 2), ("b", 1)], [("a", 2), ("b", 2)]]
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["schema"] == 1 and found["hardware"]["cores"] == 2 and found["commit"] == "c0ffee"
    assert {"name", "unit", "value", "min", "max", "repeats", "against", "ratio"} <= found["rows"][0].keys()
    assert problem(found, path) is None
    assert problem({"schema": 2}, path) and problem(found | {"rows": [{"name": "a"}]}, path)


def test_killed_run_goes_on_where_it_was() -> None:
    def dies(results: dict[str, Any]) -> None:
        if sum(row["repeats"] for row in results["rows"]) == 3:
            raise KeyboardInterrupt

    results = empty_results()
    with pytest.raises(KeyboardInterrupt):
        measure_rows([fake_row("a", [(1, 1)] * 3), fake_row("b", [(2, 1)] * 3)], results, repeats=3, save=dies, say=lambda _: None)
    kept = json.loads(json.dumps(results))
    again, said = measured([fake_row("a", [(5, 1)] * 3), fake_row("b", [(6, 1)] * 3)], 3, kept)
    assert {row["name"]: [pair[0] for pair in row["pairs"]] for row in again["rows"]} == {"a": [1, 1, 5], "b": [2, 6, 6]}
    assert len(said) == 3


def test_a_broken_row_costs_no_other_and_is_tried_again_on_resume() -> None:
    def broken() -> Pair:
        raise RuntimeError("no such luck")

    def lacking() -> Pair:
        raise Unavailable("no photos at ../shared")

    rows = [
        Row("broken", "s", "", "", broken),
        Row("lacking", "s", "", "", lacking),
        fake_row("fine", [(1, 1)] * 2),
    ]
    results, said = measured(rows, 2)
    assert results["failed"] == {"broken": "RuntimeError: no such luck"}
    assert results["skipped"] == {"lacking": "no photos at ../shared"}
    assert [row["name"] for row in results["rows"]] == ["fine"] and len(said) == 4
    results, _ = measured([fake_row("broken", [(1, 1)] * 2)], 2, results)
    assert results["failed"] == {}


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.0, 0.0), (float("nan"), None), (-1.0, None), (1.0, float("inf"))])
def test_what_is_no_measurement_fails_the_row_alone(pair: tuple[float, float | None]) -> None:
    results, _ = measured([fake_row("odd", [pair]), fake_row("fine", [(1, 1)])], 1)
    assert "numbers above 0 are needed" in results["failed"]["odd"]
    assert [row["name"] for row in results["rows"]] == ["fine"]


def test_rows_are_found_in_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "somebench"
    package.mkdir()
    (package / "__init__.py").touch()
    head = "from benchmarks.row import Pair, Row, Unavailable\n"
    one = "def rows():\n    return [Row({!r}, 's', '', '', lambda: Pair(1.0))]\n"
    (package / "first.py").write_text(head + one.format("x"))
    (package / "plain.py").write_text("SIDE = 1\n")
    (package / "needy.py").write_text(head + "def rows():\n    raise Unavailable('no photos')\n")
    (package / "experiment.py").write_text("raise AssertionError('a module without rows is not imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    import somebench  # type: ignore[import-not-found]

    rows, skipped = collect(somebench)
    assert [row.name for row in rows] == ["x"] and skipped == {"needy": "no photos"}
    (package / "second.py").write_text(head + one.format("x"))
    with pytest.raises(ValueError, match="called x"):
        collect(somebench)


def test_own_rows_have_the_contract_s_names_and_say_what_they_run() -> None:
    rows, _ = collect()
    asked = "noise-search noise-converged train-step train-ceiling inference detect-align render write-photo cli-start memory-webface"
    assert set(asked.split()) <= {row.name for row in rows}
    for row in rows:
        assert row.text and row.unit and (row.against or row.target is None), row.name


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[float, float | None]]]:
    """What the command measures: by row, the pairs to come. `gpu-row` needs a GPU that is not there."""
    pairs: dict[str, list[tuple[float, float | None]]] = {"quick": [(60, 10), (62, 10), (61, 10)], "alone": [(3, None)] * 3}

    def rows() -> tuple[list[Row], dict[str, str]]:
        made = [fake_row(name, list(found), target=6.0 if name == "quick" else None) for name, found in pairs.items()]
        return [*made, fake_row("gpu-row", [], gpu=True)], {"detect": "no photos"}

    monkeypatch.setattr("benchmarks.results.collect", rows)
    monkeypatch.setattr("pipeline.runtime.cuda_is_usable", lambda: False)
    return pairs


def test_command_writes_compares_and_says_the_exit_code(fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, baseline = tmp_path / "out", tmp_path / "baseline.json"
    words = ["--repeats", "3", "--output", str(output), "--baseline", str(baseline)]
    assert command.main([*words, "--check", "--save-baseline"]) == 0
    said = capsys.readouterr().out
    assert "6.10× plain-reference" in said and "no baseline for" in said and "gpu-row" in said and "needs a CUDA device" in said
    assert (output / "index.html").is_file()
    assert [row["name"] for row in read_json(output / "bench.json")["rows"]] == ["quick", "alone"]
    assert read_json(output / "bench.json")["skipped"].keys() == {"detect", "gpu-row"}
    assert command.main([*words, "--check"]) == 0
    fakes["quick"] = [(30, 10), (31, 10), (30, 10)]
    assert command.main(words) == 0  # slower, but nobody asked
    assert command.main([*words, "--check"]) == 1
    assert "SLOWER   quick" in capsys.readouterr().out
    assert command.main([*words, "--check", "--resume"]) == 1  # nothing to measure, the file is compared
    assert command.main([*words, "alone", "--check"]) == 0
    fakes["quick"] = []
    assert command.main(words) == 1
    assert "FAILED: StopIteration" in capsys.readouterr().out


def test_wrong_requests_exit_with_2(fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path)]
    assert command.main(["nonsense", *output]) == 2
    assert "there are quick, alone, gpu-row" in capsys.readouterr().err
    assert command.main(["--repeats", "0", *output]) == 2
    assert not list(tmp_path.iterdir())
    (tmp_path / "bench.json").write_text(json.dumps(empty_results()))
    assert command.main(["--resume", *output]) == 2
    assert "another commit or kind of machine" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("[]")
    assert command.main(["--baseline", str(tmp_path / "other.json"), *output]) == 2
    assert command.main(["--list"]) == 0
    assert "quick" in capsys.readouterr().out
