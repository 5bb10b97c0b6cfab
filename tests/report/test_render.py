"""index.html: complete, escaped, closed to the network, the same bytes each time, and small."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.noise.arms import ARMS
from pipeline.noise.transforms import QUALITY, describe_transforms
from pipeline.report import views
from pipeline.report.compare import state_words
from pipeline.report.figures import accuracy_per_identity, roc_curves, say_spread
from pipeline.report.limits import EMBEDDINGS, KNOWN, TRIED_BY, limits_of
from pipeline.report.render import Panel, amplified_change, build_page, content_of, render_report
from pipeline.report.views import data_set, heading_of, key_numbers
from pipeline.report.words import by_chance, duration, interval, level, number, percent
from pipeline.training.trials import SETS
from tests.report.sample import NASTY, sample_metrics, sample_panels

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Outline(HTMLParser):
    """What the tests ask of a page: its tags in order, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(metrics: dict[str, Any], panels: list[Panel], folder: Path) -> str:
    render_report(metrics, panels, folder)
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(sample_metrics(), sample_panels(), tmp_path_factory.mktemp("report"))


def words_of(page: str) -> str:
    """The page as read, tags and pictures removed."""
    page = re.sub(r"<(script|style)>.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_names_are_escaped(page: str):
    assert NASTY not in page
    assert page.count("<script") == 1
    assert html.escape(NASTY) in page
    assert "<bdi>" in page, "a name that turns the direction of writing turns nothing after it"
    hostile = sample_metrics()
    for key in ("run", "verdict", "setting", "panels_note"):
        hostile[key] = f'"><img src=x onerror=alert(1)>{NASTY}'
    hostile["provenance"]["config"] = {NASTY: NASTY}
    hostile["arms"][NASTY + "$x$"] = hostile["arms"]["random"]
    hostile["countermeasures"] = {NASTY: {NASTY: {"protected": 0.1, "others": 0.9}}}
    text = build_page(content_of(hostile))
    assert NASTY not in text and "<img" not in text and text.count("<script") == 1


def test_nothing_is_requested(page: str):
    outline = Outline(page)
    links = [value for _, attrs in outline.tags for name, value in attrs.items() if name in ("src", "href", "data", "action", "srcset")]
    assert links and all(link and link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"@import|url\((?!#)|https?:", page)
    policy = next(attrs["content"] for tag, attrs in outline.tags if tag == "meta" and "http-equiv" in attrs)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert policy is not None and script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_every_number_is_there(page: str):
    words = words_of(page)
    metrics = sample_metrics()
    assert metrics["verdict"] in words
    wanted = []
    for record in metrics["arms"].values():
        for group in ("protected", "others"):
            one = record[group]
            wanted += [percent(one["final"]), interval(one["ci95"]), f"{percent(one['peak'])} (epoch {one['peak_epoch']})"]
        check = record["verification"]
        for one in (check, *check["groups"].values()):
            wanted += [one["of"], number(one["auc"], 4), f"{one['auc_ci95'][0]:.3f}–{one['auc_ci95'][1]:.3f}", percent(one["eer"])]
            wanted += [*map(percent, one["tar_at_far"].values()), number(one["pairs"])]
        if "noise" in record:
            noise, crops, photos = record["noise"], record["imperceptibility"], record["photos"]
            wanted += [noise["method"], str(noise["rounds"]), duration(noise["seconds"]), f"{noise['mean_abs']:.1f}/255"]
            wanted += [level(crops["linf"]), number(crops["psnr_db"], 1, " dB"), number(crops["ssim"], 3)]
            wanted += [number(photos["psnr_db"], 1, " dB"), number(photos["ssim"], 3), number(photos["count"])]
            wanted += [number(value, 2) for value in photos["recrop_correlation"].values()]
        found = record["identification"]["own"]
        wanted += [percent(found["rank1"]), interval(found["rank1_ci95"]), *map(percent, found["tpir_at_fpir"].values())]
    for section in ("trainers", "countermeasures", "shares"):
        for name, arms in metrics[section].items():
            wanted.append(metrics["trial_titles"][name])
            wanted += [percent(one[group]) for one in arms.values() for group in ("protected", "others")]
    source = metrics["provenance"]
    wanted += [percent(metrics["chance"]), source["commit"], source["created"], source["dataset"]["sha256"], "not installed"]
    wanted += [check["name"] for check in metrics["checks"]] + [check["detail"] for check in metrics["checks"]]
    assert [text for text in wanted if re.sub(r"\s+", " ", text) not in words] == []


def test_structure_can_be_read_aloud(page: str):
    outline = Outline(page)
    heads = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert heads[0] == 1 and heads.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(heads))
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("table") == tags.count("caption") >= 5
    assert all(attrs.get("scope") for tag, attrs in outline.tags if tag == "th")
    assert all(attrs.get("alt") for tag, attrs in outline.tags if tag == "img")
    figures = [attrs for tag, attrs in outline.tags if tag == "svg"]
    assert len(figures) == 6 and all(attrs["role"] == "img" for attrs in figures)
    ids = [attrs["id"] for _, attrs in outline.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    pointers = [attrs["aria-labelledby"] for _, attrs in outline.tags if attrs.get("aria-labelledby")]
    assert {name for pointer in pointers if pointer for name in pointer.split()} <= set(ids)
    targets = [attrs["href"] for _, attrs in outline.tags if attrs.get("href")]
    assert {target[1:] for target in targets if target} <= set(ids)


def test_same_input_same_bytes(page: str, tmp_path: Path):
    assert page_of(sample_metrics(), sample_panels(), tmp_path) == page


def test_input_is_left_alone(tmp_path: Path):
    metrics = sample_metrics()
    render_report(metrics, [], tmp_path)
    assert metrics == sample_metrics()


def test_contract_alone_is_enough(tmp_path: Path):
    """Schema 1 without any optional key, and arms with next to nothing: said as not measured, never guessed."""
    metrics = sample_metrics()
    for key in ("verdict_state", "training", "split", "panels_note", "countermeasures", "checks", "provenance"):
        del metrics[key]
    metrics["arms"] = {"clean": {}, "error-min": {"protected": {"final": 0.1}, "others": None, "verification": None, "noise": {}}}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "not measured" in words and "not recorded" in words and "10.0%" in words
    Outline(page_of({"arms": {}}, [], tmp_path))
    bare = sample_metrics()
    for record in bare["arms"].values():
        record["protected"].pop("per_identity")
        record["protected"]["ci95"] = None
        record["others"] = None
        record["protected"]["by_epoch"] = [None, 0.5, None, 0.25]
    Outline(page_of(bare, [], tmp_path))


@pytest.mark.parametrize(
    ("state", "ok", "shown"),
    [
        ("holds", True, "verdict holds"), ("fails", True, "verdict fails"), ("invalid", True, "verdict invalid"),
        (None, False, "verdict invalid"), (None, True, "verdict unrated"),
    ],
)  # fmt: skip
def test_verdict_is_coloured_by_its_state(state: str | None, ok: bool, shown: str, tmp_path: Path):
    metrics = sample_metrics() | {"checks": [{"name": "clean arm learned", "ok": ok, "detail": ""}], "verdict_state": state, "lost_to": []}
    metrics["arms"] = {}
    assert f'class="{shown}"' in page_of(metrics, [], tmp_path)


def test_what_was_lost_is_in_the_heading(page: str, tmp_path: Path):
    assert "Protected, but not against every trainer" in page and 'class="verdict holds partly"' in page
    unbeaten = page_of(sample_metrics() | {"lost_to": []}, [], tmp_path)
    assert "not against every trainer" not in unbeaten and "Lost to nothing that was tried here." in unbeaten


def test_seven_answers_need_no_reading_on(page: str, tmp_path: Path):
    answers = page[page.index('class="answers"') : page.index("<nav")]
    words = words_of(answers)
    for question, answer in (
        ("Who was protected?", "50 people of the 150"), ("Against what?", "InceptionResnetV1, trained from scratch"),
        ("How sure is it?", "95% interval 0.0–7.6% over 50 people"), ("How visible is it?", "No colour value changes by more than 16/255"),
        ("When does it fail?", "Lost to: JPEG, quality 50"), ("", "On the face the change is visible: PSNR 29.8 dB"), ("", "−87.6 points"),
        ("", "Also tried: stopping at the best epoch, 1 other trainer, 1 countermeasure, 1 share of protected photos."),
        ("", "all 3 passed"),
        ("", "only 60% of each person’s photos protected (55.2%)"), ("", "Not tried here: "),
        ("", "named on at most 16.0% of clean photos after the last epoch and 20.0% after the best, "
         "and others lose at most 4 points of accuracy and 0.02 of verification’s AUC: "
         "limits of the run’s configuration, the same for every arm."),
        ("Does the owner’s own software still work?", "The detector finds the face again in 99.3% of 300 protected photos."),
        ("", "w600k_mbf still takes a protected and a clean photo for one person’s in 81.2% of pairs (93.1% of pairs of clean ones)."),
        ("", "It is not made to hide anybody from face search that exists already"),
    ):  # fmt: skip
        assert question in words and answer in words, (question, answer)
    silent = [{"trial": "jpeg-50", "title": "JPEG, quality 50", "clean": 0.012}, {"trial": "grey", "title": "greyscale", "clean": None}]
    unsure = words_of(page_of(sample_metrics() | {"silent": silent}, [], tmp_path))
    assert "JPEG, quality 50 says nothing here: without noise, too, it leaves a recogniser that names only 1.2%." in unsure
    assert "Greyscale says nothing here: it was not tried without noise." in unsure
    unasked = sample_metrics()
    unasked["arms"]["error-min"]["utility"] = {"detector": None, "match": {"pretrained": None}}
    assert "Whether a recogniser still knows the owner was not measured." in words_of(page_of(unasked, [], tmp_path).split("<nav")[0])
    unasked["arms"]["error-min"]["utility"]["match"]["pretrained"] = {"clean": 0.5, "protected": 0.25, "far": 0.001, "pairs": 9}
    unasked["provenance"]["config"]["train"]["weights"] = "/weights/of-somebody.safetensors"
    assert "of-somebody still takes a protected and a clean photo" in words_of(page_of(unasked, [], tmp_path).split("<nav")[0])
    failing = page_of(sample_metrics() | {"verdict_state": "fails", "lost_to": []}, [], tmp_path)
    assert "Lost to: the study’s own training." in failing
    harm = {"arm": "error-min", "against": "clean", "group": "others", "difference": -0.052, "ci95": [-0.071, -0.033], "p": None}
    paid = page_of(sample_metrics() | {"verdict_state": "fails", "fails_by": "others", "lost_to": [], "paired": [harm]}, [], tmp_path)
    assert "Protected, but others are recognised less well" in paid
    assert "less well: person by person −5.2 points against no protection (95% interval −7.1 to −3.3)." in words_of(paid)
    assert "the study’s own training." not in words_of(paid.split("<nav")[0]), "which it was not lost to"
    confused = sample_metrics() | {"verdict_state": "fails", "fails_by": "others", "lost_to": [], "paired": [harm | {"difference": 0.001}]}
    confused["arms"]["error-min"]["verification"]["groups"]["others"]["auc"] = 0.94
    said = "less well: comparing two of their photos, the recogniser has an AUC of 0.940 instead of 0.983; in naming, person by person +0.1"
    assert said in words_of(page_of(confused, [], tmp_path)), "they are named as well as before"
    assert "comparing two of their photos" not in words_of(paid)
    late = page_of(sample_metrics() | {"verdict_state": "fails", "fails_by": "peak", "lost_to": []}, [], tmp_path)
    assert "Lost to: the study’s own training, stopped at its best epoch." in late
    early = [{"trial": "early-stopping", "title": "early stopping", "accuracy": 0.25, "peak": False, "others": 0.5}]
    late = page_of(sample_metrics() | {"verdict_state": "fails", "fails_by": "peak", "lost_to": early}, [], tmp_path)
    assert "Lost to: early stopping (25.0%, when others are named on 50.0%)." in late, "which is said once"
    compared = page_of(sample_metrics() | {"verdict_state": "fails", "fails_by": "verification", "lost_to": []}, [], tmp_path)
    assert "Rarely named, but still told apart" in compared
    assert "Lost to: whoever compares two faces with the study’s own recogniser, which names few but tells people apart." in compared


def test_what_was_not_measured_says_what_it_needs(page: str, tmp_path: Path):
    words = words_of(page)
    assert "matches two photos of a person: give REFERENCE=" not in words and "alexnet" not in words
    assert "By a recogniser trained elsewhere, as face search has one: not measured; give REFERENCE=." in words
    metrics = sample_metrics()
    for arm in ("error-min", "random"):
        metrics["arms"][arm]["utility"]["match"] = {}
        metrics["arms"][arm]["imperceptibility"]["lpips"] = None
    metrics["arms"]["clean"]["identification"]["w600k_mbf"] = metrics["arms"]["clean"]["identification"]["own"]
    words = words_of(page_of(metrics, [], tmp_path))
    assert "an existing recogniser matches two photos of a person: give REFERENCE= not measured not measured" in words
    assert "as face search has one: not measured" not in words and "alexnet-owt-7be5be79.pth" in words
    for arm in ("error-min", "random"):
        metrics["arms"][arm]["utility"] = {"match": {"w600k_mbf": None}, "detector": None}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "an existing recogniser matches two photos of a person: too few pairs" in words
    assert "the detector finds the face again (asked of whole photos) not measured" in words


def test_how_people_are_spread_is_said_from_their_own_accuracies():
    assert say_spread({"a": 0.0, "b": 0.11, "c": 0.52, "d": 0.76, "e": 1.0, "f": None}) == (
        "of 5 identities the least recognised is at 0.0%, the quartiles are 11.0%, 52.0% and 76.0%, the most recognised is at 100.0%; 2 "
        "are recognised on a quarter of their photos or less"
    )
    drawn = accuracy_per_identity(sample_metrics()["arms"], 0.01, key="spread")
    assert drawn is not None and all(f"{arm}: of 50 identities" in drawn for arm in ("clean", "error-min", "random"))


@pytest.mark.parametrize(("most", "said"), [(0.5, "never named, nobody on more than 50.0% of theirs."), (1.0, "never named.")])
def test_how_many_are_never_named(most: float, said: str, tmp_path: Path):
    metrics = sample_metrics()
    metrics["arms"]["error-min"]["protected"] |= {"per_identity": {"a": 0.0, "b": most}, "test_photos": {"a": 4, "b": 4}}
    assert f"That is of 8 photos; 1 person is {said}" in words_of(page_of(metrics, [], tmp_path))


def test_what_another_trainer_got_is_a_key_number(page: str, tmp_path: Path):
    """The worst of those who fight the noise; where a part of the photos is clean there is less noise to fight."""
    found = ("Protected people, worst trial of another trainer", "61.2%", f"JPEG, quality 50 {NASTY}", "protected")
    assert found in key_numbers(sample_metrics())
    peak = {"trial": "mixup", "title": "MixUp", "accuracy": 0.7, "peak": True}
    rows = [peak, {"trial": "share-60", "title": "", "accuracy": 0.9, "peak": False}]
    assert (found[0], "70.0%", "MixUp, best epoch", "protected") in key_numbers(sample_metrics() | {"lost_to": rows})
    alone = sample_metrics() | {"lost_to": [], "held_against": sample_metrics()["held_against"][:1]}
    assert not any("another trainer" in one[0] for one in key_numbers(alone)), "early stopping has a place of its own"


def test_the_heading_says_no_more_than_was_tried():
    """A part of the photos left clean is no other trainer, and of two runs the one that tried less must not look the better."""
    early, trainer = sample_metrics()["held_against"]
    share = {"trial": "share-60", "title": "", "accuracy": 0.1, "peak": False}
    for held, said, word in (
        ([early], "Protected from the study’s own training", "protected from its own training"),
        ([early, share], "Protected from the study’s own training", "protected from its own training"),
        ([early, trainer], "Protected from all that was tried", "protected from all that was tried"),
    ):
        metrics = sample_metrics() | {"lost_to": [], "held_against": held}
        assert (heading_of(metrics), state_words(metrics)) == (said, (word, "good"))


def test_an_interval_across_the_limit_is_said(page: str, tmp_path: Path):
    assert "reaches across the limit" not in page
    metrics = sample_metrics()
    metrics["arms"]["error-min"]["protected"] |= {"final": 0.17, "ci95": [0.11, 0.235]}
    assert "The interval reaches across the limit of 16.0%" in words_of(page_of(metrics, [], tmp_path))
    late = metrics | {"verdict_state": "fails", "fails_by": "peak"}
    assert "reaches across the limit" not in words_of(page_of(late, [], tmp_path)), "its best epoch decides"


def test_whose_weights_the_search_began_with_is_said(tmp_path: Path):
    metrics = sample_metrics()
    metrics["arms"]["error-min"]["identification"]["pretrained"] = metrics["arms"]["error-min"]["identification"]["own"]
    config = metrics["provenance"]["config"]
    config["train"] |= {"weights": "/there/casia.safetensors", "weights_sha256": "a"}
    config["noise-error-min"] = {"weights_sha256": "a"}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "casia, with whose weights the noise search began, puts them first" in words
    assert "casia: with whose weights the noise search began" in words
    config["noise-error-min"]["weights_sha256"] = "b"
    assert "casia, trained elsewhere, puts them first" in words_of(page_of(metrics, [], tmp_path))


def test_what_is_not_said_to_be_untried(tmp_path: Path):
    """A fact about the run is nothing left undone, and a file's name is no architecture."""

    def untried(**identification: Any) -> str:
        metrics = sample_metrics()
        metrics["arms"]["error-min"]["noise"] |= {"transforms": describe_transforms()}
        metrics["arms"]["error-min"]["identification"] |= identification
        metrics["trainers"] = {}
        return next(text for text in dict(content_of(metrics)["answers"])["What next?"] if text.startswith("Not tried here: "))

    assert "countermeasures that the search knew" not in untried()
    own = sample_metrics()["arms"]["error-min"]["identification"]["own"]
    assert "other architectures and sizes" in untried() and "other architectures and sizes" in untried(mobilefacenet=own)


def test_chances_have_digits_that_can_be_read() -> None:
    assert [by_chance(one) for one in (1.0, 0.9995, 0.102, 0.0231, 0.0005, None)] == [
        "100%",
        "100%",
        "10%",
        "2.3%",
        "0.05%",
        "not measured",
    ]
    assert by_chance(0.0005, 2000) == "at most 0.05%" and by_chance(0.001, 2000) == "0.1%"


def test_the_rule_is_the_verdict_s_own(tmp_path: Path):
    metrics = sample_metrics() | {"setting": "full"}
    assert "and verification’s AUC falls by at least 50% of what it is above a guess" in words_of(page_of(metrics, [], tmp_path))


def test_nobody_named_has_an_interval_and_no_worst_case(tmp_path: Path):
    metrics = sample_metrics()
    mine = metrics["arms"]["error-min"]["protected"]
    mine |= {"final": 0.0, "ci95": [0.0, 0.0711], "per_identity": dict.fromkeys(mine["per_identity"], 0.0)}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "95% interval 0.0–7.1% over 50 people" in words and "50 people are never named." in words


def test_what_was_swapped_by_chance_is_said(page: str, tmp_path: Path):
    assert "drawing which of the two each person had by chance does as much" in page
    metrics = sample_metrics()
    metrics["provenance"]["seeds"] = [0, 1, 2, 3, 4, 5]
    assert "drawing which of the two whole seeds had by chance does as much" in page_of(metrics, [], tmp_path)


def test_what_each_arm_was_trained_on_is_said(page: str):
    metrics: dict[str, Any] = sample_metrics()
    assert views.trained_on(metrics) == [("every arm", "cpu, bf16, 1 process")]
    del metrics["arms"]["clean"]["training"]["device"]
    assert ("clean", "not recorded") in views.trained_on(metrics)
    metrics["arms"]["clean"]["training"]["device"] = "cuda"
    metrics["arms"]["random"]["training"] |= {"device": "cpu", "precision": "fp32", "processes": 2}
    assert ("random", "cpu, fp32, 2 processes") in views.trained_on(metrics) and len(views.trained_on(metrics)) == 3


def test_every_arm_is_explained(page: str):
    words = words_of(page)
    assert all(ARMS[arm].text in words for arm in sample_metrics()["arms"])


@pytest.mark.parametrize(
    ("name", "photos", "said"),
    [
        ("folder", "/home/a/my photos", "photos in the folder 'my photos'"),
        ("celeba", "/data/celeba", "CelebA"),
        ("synthetic", None, "synthetic"),
        ("own", None, "own"),
    ],
)
def test_a_data_set_is_called_as_its_reader_knows_it(name: str, photos: str | None, said: str, tmp_path: Path):
    metrics = sample_metrics()
    metrics["provenance"]["dataset"]["name"] = name
    metrics["provenance"]["config"]["data"] = {"dataset": name, "photos": photos}
    assert data_set(metrics) == said
    assert (f"Data set: {said}." in words_of(page_of(metrics, [], tmp_path))) == (name != "synthetic")


def test_the_page_says_which_noise_it_is_about(tmp_path: Path):
    top = words_of(page_of(sample_metrics(), [], tmp_path).split("<nav")[0])
    assert "Protected people (error-min), last epoch" in top and "carry noise (error-min); everybody else’s stay clean" in top
    assert "These answers are about error-min; the tables have the other kinds of noise, too." in top


def test_a_trial_lost_at_its_best_epoch_shows_it(tmp_path: Path):
    metrics = sample_metrics()
    metrics["countermeasures"]["jpeg-50"]["error-min"] |= {"protected": 0.05, "protected_peak": 0.45, "protected_ci95": [0.02, 0.08]}
    metrics["lost_to"] = [{"trial": "jpeg-50", "title": "JPEG, quality 50", "accuracy": 0.45, "peak": True}]
    page = page_of(metrics, [], tmp_path)
    table = words_of(page.split('<table id="countermeasures-protected"')[1].split("</table>")[0])
    assert "5.0% (best epoch 45.0%)" in table and "2.0–8.0%" in table and table.count("95% interval") == 1
    assert "Lost to: JPEG, quality 50 (45.0% at its best epoch)." in words_of(page)
    metrics["countermeasures"]["jpeg-50"]["error-min"] |= {"protected_sd": 0.012}
    assert "5.0% ± 1.2 (best epoch 45.0%)" in words_of(page_of(metrics, [], tmp_path))


def test_what_was_not_searched_is_not_said_to_have_seen_anybody(tmp_path: Path):
    metrics = sample_metrics()
    assert "Noise search also sees" in page_of(metrics, [], tmp_path)
    del metrics["arms"]["error-min"]
    words = words_of(page_of(metrics, [], tmp_path))
    for text in ("Noise search also sees", "The noise search had", "Strangers in training"):
        assert text not in words, text
    del metrics["arms"]["random"]
    words = words_of(page_of(metrics, [], tmp_path))
    assert "from their photos?" in words and "Change allowed" not in words
    stepped = sample_metrics()
    del stepped["arms"]["error-min"]["noise"]["error"]
    stepped["arms"]["error-min"]["noise"] |= {"rounds": 0, "steps": 20, "converged": None}
    assert "20 steps, no test" in words_of(page_of(stepped, [], tmp_path))


def test_pictures_are_pointed_to_where_there_are_any(tmp_path: Path):
    assert "see the pictures below" in page_of(sample_metrics(), [], tmp_path)
    assert "see the pictures below" not in page_of(sample_metrics() | {"panels_note": "None is shown."}, [], tmp_path)


def test_too_few_people_for_an_interval_is_said(tmp_path: Path):
    metrics = sample_metrics()
    mine = metrics["arms"]["error-min"]["protected"]
    mine |= {"ci95": None, "per_identity": {"a": 0.5, "b": 0.0}, "test_photos": {"a": 2, "b": 2}}
    table = page_of(metrics, [], tmp_path).split('<table id="accuracy"')[1].split("</table>")[0]
    assert words_of(table).count("too few people") == 1


def test_many_roc_curves_stay_legible():
    arms = {arm: sample_metrics()["arms"]["random"] for arm in ARMS}
    drawn = roc_curves(arms, key="roc")
    assert drawn is not None
    legend = [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawn) if text in {*ARMS, "other arms"}]
    assert set(legend) == {"clean", "random", "error-min", "other arms"}
    assert all(f"{arm}: AUC 0.9712" in drawn for arm in ARMS), "all are read aloud"


def test_limits_follow_what_was_measured(page: str, tmp_path: Path):
    below = page.split('<section id="limits">')[1].split("<h3>Known weaknesses that were measured here</h3>")
    assert "Adversarial training" in below[0] and "Simple image processing" in below[1].split("</section>")[0]
    metrics = sample_metrics() | {"countermeasures": {"jpeg-75": {"error-min": {"protected": 0.1234, "others": 0.9}}}}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "Measured in this run: jpeg-75" in words and "12.3%" in words
    titled = words_of(page_of(metrics | {"trial_titles": {"jpeg-75": "JPEG, quality 75"}}, [], tmp_path))
    assert "Measured in this run: JPEG, quality 75." in titled
    said_nothing = metrics | {"silent": [{"trial": "jpeg-75", "title": "JPEG, quality 75", "clean": 0.01}]}
    assert "Measured in this run: jpeg-75" not in words_of(page_of(said_nothing, [], tmp_path))


def test_what_says_nothing_is_not_said_to_be_untried():
    metrics = sample_metrics() | {"countermeasures": {"grey": {"clean": {"protected": 0.1, "others": 0.1}}}}
    metrics |= {"trial_titles": {"grey": "greyscale"}, "silent": [{"trial": "grey", "title": "greyscale", "clean": 0.1}]}
    answers = dict(content_of(metrics)["answers"])
    fails = " ".join(answers["When does it fail?"] + answers["What next?"])
    assert "Greyscale says nothing here" in fails and "adversarial training" in fails and "simple image processing" not in fails
    (limit,) = [one for one in limits_of(metrics) if one.title == "Simple image processing"]
    assert " Tried in this run, where it says nothing: greyscale. Networks were given the study’s own epochs; whoever trains" in limit.text
    assert not limit.measured
    metrics["silent"] = [{"trial": "svm", "title": "embeddings of w, linear SVM", "clean": 0.1}]
    metrics["trainers"] = {"svm": {"clean": {"protected": 0.1, "others": 0.1}}}
    (limit,) = [one for one in limits_of(metrics) if one.title == EMBEDDINGS]
    assert "where it says nothing: " in limit.text and "epochs" not in limit.text, "trains no network"


def test_a_drawn_pattern_of_the_same_strength_is_asked_for():
    """`random` is weaker and finer than searched noise, so what it leaves says nothing of the search."""
    metrics = sample_metrics()

    def limit() -> Any:
        return [one for one in limits_of(metrics) if one.title == "What the search adds to a pattern"]

    metrics["arms"]["random"]["imperceptibility"] = {"psnr_db": 28.64}
    metrics["arms"]["error-min"]["imperceptibility"] |= {"psnr_db": 25.92}
    assert "of the same ε (PSNR 28.6 for 25.9 dB)." in limit()[0].text and not limit()[0].measured
    asked = " ".join([*metrics["arms"], "lsp"])
    assert f'`make study ARMS="{asked}"` for patterns without a search' in " ".join(dict(content_of(metrics)["answers"])["What next?"])
    metrics["arms"]["lsp"] = copy.deepcopy(metrics["arms"]["random"]) | {"invalid": []}
    metrics["arms"]["lsp"]["protected"]["final"] = 0.045
    named = metrics["arms"]["error-min"]["protected"]["final"]
    assert limit()[0].measured == f"Measured in this run: lsp leaves 4.5% named, error-min {named:.1%}."
    assert "patterns without a search" not in " ".join(dict(content_of(metrics)["answers"])["What next?"])
    metrics["arms"]["error-min-samplewise"] = metrics["arms"].pop("error-min")
    assert not limit(), "has no drawn counterpart here"


def test_what_to_do_next_is_said():
    def words(**values: Any) -> str:
        return " ".join(dict(content_of(sample_metrics() | values)["answers"])["What next?"])

    untried: dict[str, Any] = {"countermeasures": {}, "trainers": {}, "shares": {}, "lost_to": []}
    assert words(**untried).startswith("Rely on it against no more than was tried. Not tried here: fine-tuning")
    assert (
        'can try more, with all else as it was: `make matrix MATRIX="trainers countermeasures shares"`, with REFERENCE= for '
        f'the embeddings of a recogniser that exists; `make study ARMS="{" ".join(sample_metrics()["arms"])} lsp"` for patterns without '
        'a search; `make study SEEDS="0 1 2"` for other seeds; DATASET= and PHOTOS= for real faces.'
    ) in words(**untried)
    assert words().startswith("Do not rely on it against what it lost to, nor against what was not tried.")
    assert words(verdict_state="fails", fails_by="naming").startswith("Do not take these people for protected.")
    assert words(verdict_state="fails", fails_by="others").startswith("Weigh first what it costs other people.")
    failed = [{"name": "clean arm learned", "ok": False, "detail": "", "arm": None}]
    few = [{"name": "enough identities for intervals", "ok": False, "detail": "", "arm": None}]
    assert words(verdict_state="invalid", checks=few) == words(verdict_state="invalid", checks=failed)
    assert words(verdict_state="invalid", checks=failed) == "First mend what the verdict names: until then nothing is claimed."


def test_what_is_said_to_try_a_limit_tries_it():
    asked = {title: words for title, words, _ in KNOWN}
    assert {*asked} - {*TRIED_BY} == {"Recognisers that are already trained", "Strangers in training"}
    for title, name in TRIED_BY.items():  # the last two by a recogniser from elsewhere
        assert any(word in trial for word in asked.get(title, ["-reference"]) for trial in SETS[name]), title


def test_every_trial_counts_for_one_limit():
    none_of_them = {"scratch"}  # where a study fine-tunes, its own network without weights
    words = {word for _, words, _ in KNOWN for word in words}
    for trial in set(SETS["full"]) - none_of_them:
        titles = [title for title, words, _ in KNOWN if any(word in trial for word in words)]
        assert len(titles) == 1 or trial.startswith("recropped"), (trial, titles)
    assert all(any(word in trial for trial in SETS["full"]) for word in words - {"open-set"})


def test_what_the_search_knew_is_said_where_it_knew_anything(page: str, tmp_path: Path):
    title = "Countermeasures that the search knew"
    assert title not in page and "through transforms" not in page
    metrics = sample_metrics()
    metrics["arms"]["error-min"]["noise"] |= {"transforms": describe_transforms(), "draws": 2}
    words = words_of(page_of(metrics, [], tmp_path))
    assert title in words and f"JPEG of quality {QUALITY[0]}–{QUALITY[1]}" in words and "through transforms" in words


def test_what_was_not_tried_on_the_noise_is_not_measured(tmp_path: Path):
    alone = {"jpeg-75": {"clean": {"protected": 0.8, "others": 0.9}}}
    metrics = sample_metrics() | {"countermeasures": alone, "trainers": {}, "shares": {}}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "Measured in this run: jpeg-75" not in words and "Also tried" not in words


def test_how_near_the_surrogate_was_is_said_as_it_was(tmp_path: Path):
    metrics = sample_metrics()

    def words(train: dict[str, Any], noise: dict[str, Any]) -> str:
        metrics["provenance"]["config"] = {"train": train, "noise-error-min": noise}
        return words_of(page_of(metrics, [], tmp_path))

    own = {"input_size": 75, "weights_sha256": None}
    assert "a network of the recogniser’s own kind, at the same input size, from other initial weights" in words(own, own)
    tuned = {"input_size": 160, "weights_sha256": "a1"}
    assert "at 75 px where the recogniser has 160, from other initial weights" in words(tuned, own)
    alike = words(tuned, tuned)
    assert "from the same pretrained weights" in alike and "Weights other than those the search began with" in alike
    known = "began with the very weights that the recogniser begins with"
    assert known in alike and known not in words(tuned, own)


def test_targeted_noise_says_what_it_is_and_whose_network_it_was_made_against(tmp_path: Path):
    metrics = sample_metrics()
    assert "Targeted adversarial noise" not in words_of(page_of(metrics, [], tmp_path))
    noise = metrics["arms"].pop("error-min")
    learned = [{"model": "InceptionResnetV1", "names": 0.89}, {"model": "MobileFaceNet", "names": 0.8}]
    noise["noise"] |= {"method": "tap-ensemble", "steps": 60, "rounds": 0, "converged": None, "surrogates": learned}
    metrics["arms"]["tap-ensemble"] = noise
    own = {"input_size": 75, "weights_sha256": None}
    metrics["provenance"]["config"] = {"train": own, "surrogate": own, "noise-tap-ensemble": own | {"input_size": 112}}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "by what is not in their clean photos (tap-ensemble)" in words and "60 steps, no test" in words
    assert "InceptionResnetV1 (names 89.0% of their clean photos) and MobileFaceNet (names 80.0% of their clean photos)" in words
    assert "a network of the recogniser’s own kind, at the same input size, from other initial weights, and with a MobileFaceNet." in words
    assert "The search stops when" not in words, "steps are counted, and nothing is tested"
    assert "What the search adds to a pattern" not in words, "it has no pattern a person"


def test_a_cloak_that_is_targeted_noise_too_says_both(tmp_path: Path):
    metrics = sample_metrics()
    noise = metrics["arms"].pop("error-min")
    learned = [{"model": "InceptionResnetV1", "names": 0.89}, {"model": "MobileFaceNet", "names": 0.8}]
    known = [{"name": "r50.onnx", "sha256": "2"}]
    noise["noise"] |= {"method": "cloak-tap", "steps": 60, "rounds": 0, "converged": None, "surrogates": learned, "against": known}
    metrics["arms"]["cloak-tap"] = noise
    own = {"input_size": 75, "weights_sha256": None}
    metrics["provenance"]["config"] = {"train": own, "surrogate": own, "noise-cloak-tap": own | {"input_size": 160}}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "by what is not in their clean photos (cloak-tap)" in words
    assert "A small change by which a face looks like somebody else’s" in words
    assert "MobileFaceNet (names 80.0% of their clean photos) · against r50" in words and "The cloak was made against r50." in words
    assert "a network of the recogniser’s own kind, at the same input size, from other initial weights, and with a MobileFaceNet." in words


def test_a_cloak_says_what_it_was_made_against_and_what_not(tmp_path: Path):
    title = "Recognisers that the cloak was not made against"

    def words(reference: str, *held: str) -> str:
        metrics = sample_metrics()
        cloak = metrics["arms"].pop("error-min")
        cloak["noise"] |= {"method": "cloak", "against": [{"name": "a.safetensors", "sha256": "1"}, {"name": "r50.onnx", "sha256": "2"}]}
        cloak["identification"]["r50"] = cloak["identification"]["own"]
        metrics["arms"]["cloak"], metrics["lost_to"] = cloak, []
        metrics["trainers"] = {"svm-reference": {"clean": {"protected": 0.99, "others": 0.9}, "cloak": {"protected": 0.01, "others": 0.9}}}
        metrics["provenance"]["config"] = {"evaluate": {"reference_sha256": reference}, "train": {"weights_sha256": "1"}}
        metrics["held_against"] = [{"trial": trial, "title": trial, "accuracy": 0.01, "peak": False} for trial in held]
        return words_of(page_of(metrics, [], tmp_path))

    assert title not in words_of(page_of(sample_metrics(), [], tmp_path))
    known, other = words("2", "svm-reference"), words("3", "svm-reference")
    assert "Protected from the recognisers it was made against" in known
    assert "Protected from all that was tried" in other, "r50 was asked nothing"
    assert "Protected from the study’s own training" in words("2"), "nor was it here"
    for page in (known, other):
        assert title in page and "The cloak was made against a and r50." in page
        assert "It was made against a and r50; a recogniser that is none of these may know everybody all the same." in page
        assert "not made to hide anybody from face search" not in page
    assert "r50, which it was made against, puts them first" in known and "r50: trained elsewhere; the cloak was made against it" in known
    assert "r50, trained elsewhere, puts them first" in other and "the cloak was made against it" not in other
    measured = "Measured in this run: the study’s own training"
    assert f"{measured}; svm-reference; open-set identification by r50." in other and f"{measured}." in known


def test_fine_tuning_from_weights_that_a_cloak_did_not_know_is_measured():
    """Where only those that the recogniser starts from are known, nothing else was asked."""
    metrics = sample_metrics()
    metrics["arms"]["cloak"] = metrics["arms"].pop("error-min")
    metrics["arms"]["cloak"]["noise"]["against"] = [{"name": "r50.onnx", "sha256": "2"}]
    metrics |= {"trainers": {}, "countermeasures": {}, "shares": {}, "training": {"kind": "fine-tuned from casia.safetensors"}}
    for weights, measured in (("1", "Measured in this run: the study’s own training."), ("2", "")):
        metrics["provenance"]["config"] = {"train": {"weights": "casia.safetensors", "weights_sha256": weights}}
        (limit,) = [one for one in limits_of(metrics) if one.title == "Recognisers that the cloak was not made against"]
        assert limit.measured == measured


def test_what_lies_beneath_a_cloak_is_said(tmp_path: Path):
    said = ("over an error-minimizing pattern of 8/255", "The pattern beneath the cloak was searched without them.")

    def words(**beneath: Any) -> str:
        metrics = sample_metrics()
        both = metrics["arms"].pop("error-min")
        both["noise"] |= {"against": [{"name": "a.onnx", "sha256": "1"}], "transforms": describe_transforms(), **beneath}
        metrics["arms"]["cloak-error-min"] = both
        return words_of(page_of(metrics, [], tmp_path))

    assert all(part in words(beneath={"method": "error-min", "epsilon": 8}) for part in said)
    assert not any(part in words() for part in said)


def test_the_largest_change_is_that_of_crops_and_photos(tmp_path: Path):
    metrics = sample_metrics()
    for arm in metrics["arms"].values():
        if "imperceptibility" in arm:
            arm["imperceptibility"]["linf"], arm["photos"] = 12, {"linf": 16, "psnr_db": 35.0, "ssim": 0.98}
    assert "No colour value changes by more than 16/255" in words_of(page_of(metrics, [], tmp_path))


def test_what_was_tried_on_the_clean_arm_alone_hides_no_arm(tmp_path: Path):
    metrics = sample_metrics()
    early: dict[str, Any] = {arm: {"protected": 0.5, "others": 0.5} for arm in metrics["arms"]}
    metrics["countermeasures"] = {"early-stopping": early, "ueraser": {"clean": {"protected": 0.0, "others": 0.01}}}
    table = page_of(metrics, [], tmp_path).split("Accuracy of protected people under countermeasures")[1].split("</table>")[0]
    assert all(f">{arm}<" in table for arm in metrics["arms"]), table


def test_published_orderings_say_where_the_settings_differ(page: str, tmp_path: Path):
    assert "On CIFAR-10 every class carried the noise" in words_of(page)
    metrics = sample_metrics()
    for arm in metrics["arms"].values():
        arm["others"] = None  # the full setting
    without = words_of(page_of(metrics, [], tmp_path))
    assert "every class carried the noise" not in without and "Fowl" not in without
    claim = "error-max peaks far above error-min"
    metrics["orderings"].append({"claim": claim, "published": "about 50%", "here": "best epochs 1.7% and 1.3%", "holds": False})
    assert "was found by others, too (Fowl et al., NeurIPS 2021)" in words_of(page_of(metrics, [], tmp_path))


def test_noise_is_amplified_around_grey():
    original = np.array([[[100, 100, 100], [0, 0, 255]]], np.uint8)
    protected = np.array([[[100, 105, 84], [12, 13, 239]]], np.uint8)
    assert amplified_change(original, protected).tolist() == [[[128, 178, 0], [248, 255, 0]]]


def test_many_panels_still_fit_into_a_mail(tmp_path: Path):
    arms = ("error-min", "random", "error-max", "lsp", "tap")
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (600, 500, 3), np.uint8)  # white noise: nothing to compress
    panels = sample_panels(arms, people=1, photo_side=64)
    panels += [Panel("person-9", "9.jpg", arm, photo, photo[::-1].copy(), "photo") for arm in arms]
    text = page_of(sample_metrics(), panels, tmp_path)
    assert (tmp_path / "index.html").stat().st_size <= 5_000_000
    assert "more left out" in text
    assert all(f"in arm {arm}" in text for arm in arms)
    assert "500 × 600 px, shown at 400 × 480" in text


def test_hidden_people_are_explained(tmp_path: Path):
    text = page_of(sample_metrics() | {"panels_note": "The photos show real people, so none is shown here."}, [], tmp_path)
    assert "so none is shown here" in text and "data:image" not in text


def test_bound_noise_says_on_how_many_strangers_a_face_outweighs_it(tmp_path: Path):
    metrics = sample_metrics()
    metrics["arms"]["error-min"]["noise"] |= {"binding": "other people's photos", "error": 0.021, "error_on_others": 0.468}
    words = words_of(page_of(metrics, [], tmp_path))
    assert "2.1%; on other people’s photos 46.8%" in words
    assert "goes all its rounds, and converged if the surrogate then errs on few of its owners’." in words
