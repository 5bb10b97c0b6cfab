"""A made-up run for the report's tests: invented numbers in the shape of `metrics.json`, and invented pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation.trials import SECTIONS
from pipeline.noise.arms import ARMS
from pipeline.report.render import Panel
from pipeline.training.trials import SETS, trial_of

NASTY = "<script>alert(1)</script>"


def identities(count: int) -> list[str]:
    """Names, one of them hostile and one that a spreadsheet would run."""
    return [NASTY, "=cmd|calc", *(f"person-{place:04d}" for place in range(count - 2))]


def accuracy(curve: list[float | None], spread: list[float], names: list[str], span: list[float] | None) -> dict[str, Any]:
    scored = [value for value in curve if value is not None]
    return {
        "final": scored[-1],
        "peak": max(scored),
        "peak_epoch": curve.index(max(scored)) + 1,
        "by_epoch": curve,
        "ci95": span,
        "per_identity": dict(zip(names, spread, strict=True)),
        "test_photos": dict(zip(names, range(2, 2 + len(names)), strict=True)),
    }


def arm(curve: list[float | None], others: list[float | None], *, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
    photos = 4
    end, rest = curve[-1] or 0.0, others[-1] or 0.0
    return {
        "protected": accuracy(
            curve,
            [float(hit) / photos for hit in rng.binomial(photos, end, len(names))],
            names,
            [max(0.0, end - 0.041), min(1.0, end + 0.039)],
        ),
        "others": accuracy(
            others,
            [float(hit) / photos for hit in rng.binomial(photos, rest, 100)],
            [f"other-{place}" for place in range(100)],
            [rest - 0.021, min(1.0, rest + 0.019)],
        ),
        "verification": {
            "auc": 0.9712, "auc_ci95": [0.9611, 0.9813], "eer": 0.0834, "tar_at_far": {"0.01": 0.7345, "0.001": 0.4123}, "pairs": 20123,
            "identities": 25, "of": "people never trained on",
            "roc": {"far": [0.0001, 0.001, 0.01, 0.1, 1.0], "tar": [0.2011, 0.4123, 0.7345, 0.9312, 1.0]},
            "groups": {
                "protected": {
                    "auc": 0.8234, "auc_ci95": [0.8012, 0.8456], "eer": 0.2511, "tar_at_far": {"0.01": 0.3321, "0.001": None},
                    "pairs": 19900, "identities": 50, "of": "protected people",
                },
                "others": {
                    "auc": 0.9831, "auc_ci95": [0.9754, 0.9901], "eer": 0.0612, "tar_at_far": {"0.01": 0.8112, "0.001": 0.5017},
                    "pairs": 79800, "identities": 100, "of": "other people",
                },
            },
        },
        "identification": {
            "own": {
                "rank1": 0.7312, "rank1_ci95": [0.6812, 0.7811], "tpir_at_fpir": {"0.01": 0.3121, "0.1": 0.5234},
                "identities": 50, "gallery": 800, "probes": 200, "strangers": 400,
            },
        },
        "training": {
            "recipe": "abc", "model": "InceptionResnetV1", "kind": "from scratch", "photos": 2400, "seconds": 241.3,
            "device": "cpu", "precision": "bf16", "processes": 1, "peak_memory_mib": 1207,
        },
        "invalid": [],
    }  # fmt: skip


def sample_metrics() -> dict[str, Any]:
    """A run in which the noise holds; every optional key is there."""
    rng = np.random.default_rng(7)
    names = identities(50)
    clean = arm(
        [0.031, 0.212, 0.55, 0.761, 0.857, 0.892, 0.9113, 0.9137], [0.034, 0.221, 0.56, 0.77, 0.861, 0.903, 0.917, 0.9187],
        names=names, rng=rng,
    )  # fmt: skip
    random = arm(
        [0.022, 0.142, 0.481, 0.713, 0.624, 0.412, 0.31, 0.2875], [0.03, 0.2, 0.53, 0.76, 0.85, 0.9, 0.914, 0.9154],
        names=names, rng=rng,
    )  # fmt: skip
    noise = arm(
        [0.018, 0.067, 0.1425, 0.1175, 0.0825, 0.055, 0.0425, 0.0375], [0.03, 0.19, 0.52, 0.751, 0.846, 0.897, 0.9121, 0.9133],
        names=names, rng=rng,
    )  # fmt: skip
    clean["lfw"] = {
        name: {
            "accuracy": accuracy, "standard_error": 0.0041, "auc": accuracy + 0.01, "eer": 1 - accuracy, "pairs": 5423,
            "tar_at_far": {"0.01": 0.5511, "0.001": 0.3312}, "pairs_left_out": 577,
        }
        for name, accuracy in (("own", 0.7012), ("w600k_mbf", 0.9512))
    }  # fmt: skip
    for record, facts in (
        (random, {"method": "random", "epsilon": 16, "rounds": 0, "converged": None, "seconds": 0.1, "mean_abs": 8.24}),
        (
            noise,
            {
                "method": "error-min", "rule": "identity-mean", "epsilon": 16, "rounds": 12, "converged": True, "error": 0.0831,
                "seconds": 431.7, "mean_abs": 6.12,
            },
        ),
    ):  # fmt: skip
        record["noise"] = facts | {"per": "identity", "identities": 50}
        record["separability"] = {
            "detection": {"auc": 0.9871, "identities": 50},
            "naming": {"clean": 0.1312, "protected": 0.9931, "chance": 0.0213, "identities": 50, "photos": 800, "side": 32},
        }
        record["utility"] = {
            "match": {
                "w600k_mbf": {"clean": 0.9312, "protected": 0.8123, "far": 0.001, "pairs": 7812, "impostor_pairs": 99321, "photos": 1000},
                "pretrained": None,
            },
            "detector": {"photos": 300, "found": 0.9933, "landmarks_px": 0.41},
        }
        record["imperceptibility"] = {"linf": 16, "psnr_db": 29.83, "ssim": 0.8217, "lpips": 0.0713}
        record["photos"] = {
            "linf": 16, "psnr_db": 36.51, "ssim": 0.9614, "recrop_correlation": {"mean": 0.8732, "min": 0.7121}, "count": 1000,
        }  # fmt: skip
    return {
        "schema": 1,
        "run": "synthetic-laptop-partial-id50-eps16-s0",
        "verdict": (
            f"Holds against training from scratch on unprocessed crops; lost to JPEG, quality 50 {NASTY} (61%) and only 60% of each "
            "person’s photos protected (55%); held against early stopping (14%, when others are named on 88%) and ResNet-18, from scratch "
            "(5%). The study’s own training, on photos of 50 of 150 people with error-min noise, names them on 3.8% of their clean "
            "photos (91.4% without protection) and the others on 91.3% (91.9% without)."
        ),
        "lost_to": [
            {"trial": "jpeg-50", "title": f"JPEG, quality 50 {NASTY}", "accuracy": 0.6123, "peak": False},
            {"trial": "share-60", "title": "only 60% of each person’s photos protected", "accuracy": 0.5519, "peak": False},
        ],
        "held_against": [
            {"trial": "early-stopping", "title": "early stopping", "accuracy": 0.1425, "peak": False, "others": 0.8803},
            {"trial": "resnet18", "title": "ResNet-18, from scratch", "accuracy": 0.0511, "peak": False},
        ],
        "verdict_state": "holds",
        "fails_by": None,
        "silent": [],
        "setting": "partial",
        "identities": 50,
        "classes": 150,
        "chance": 0.0067,
        "training": {"kind": "from scratch", "epochs": 8, "model": "InceptionResnetV1"},
        "split": {"train": 2391, "test": 598, "duplicates_moved": 3, "auxiliary": 100, "protected_names": names},
        "panels_note": "",
        "provenance": {
            "commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True, "created": "2025-01-02T03:04:05+00:00", "seeds": [0],
            "config": {
                "data": {"dataset": "synthetic", "photos_per_identity": 20}, "train": {"epochs": 8, "lr": 0.05},
                "evaluate": {"protected_at_most": 0.16, "peak_at_most": 0.2, "others_within": 0.04, "others_auc_within": 0.02},
            },
            "dataset": {
                "name": "synthetic", "identities": 150, "photos": 3000, "aligned": 2989, "rejected": {"no face": 9, "too small": 2},
                "sha256": "f" * 64,
            },
            "packages": {"torch": "2.15.0", "onnxruntime-gpu": None},
            "hardware": {"system": "Linux", "cores": 2, "device": "cpu", "cpu": "A processor with a rather long name @ 2.00GHz"},
            "seconds": {"data": 161.2, "align": 93.4, "noise-error-min": 431.7, "train-clean": 241.3},
        },
        "arms": {"clean": clean, "error-min": noise, "random": random},
        "paired": [
            {
                "arm": "error-min", "against": "clean", "group": "protected", "difference": -0.8762, "ci95": [-0.921, -0.8311], "p": 0.0005,
                "identities": 50,
            },
            {"arm": "random", "against": "clean", "group": "others", "difference": 0.0012, "ci95": None, "p": None, "identities": 2},
        ],
        "orderings": [
            {
                "claim": "error-min leaves at most half of the clean accuracy", "published": "16.4%, clean 94.8%",
                "here": "3.8%, clean 91.4%", "holds": True,
            },
            {"claim": "random peaks far above error-min", "published": "about 80%", "here": f"{NASTY} 14.0% and 14.3%", "holds": False},
        ],
        "countermeasures": {
            "early-stopping": {"clean": {"protected": 0.9137, "others": 0.9187}, "error-min": {"protected": 0.1425, "others": 0.52}},
            "jpeg-50": {
                "clean": {"protected": 0.8811, "others": 0.8901, "protected_peak": 0.8822, "protected_ci95": [0.84, 0.92]},
                "error-min": {"protected": 0.6123, "others": 0.8853, "protected_peak": 0.6345},
            },
        },
        "trainers": {
            "resnet18": {"clean": {"protected": 0.7011, "others": 0.7123}, "error-min": {"protected": 0.0511, "others": 0.7043}},
        },
        "shares": {"share-60": {"error-min": {"protected": 0.5519, "others": 0.9011}}},
        "trial_titles": {
            "early-stopping": "early stopping", "jpeg-50": f"JPEG, quality 50 {NASTY}", "resnet18": "ResNet-18, from scratch",
            "share-60": "only 60% of each person’s photos protected",
        },
        "checks": [
            {
                "name": "clean arm learned", "ok": True, "arm": None,
                "detail": "without protection the people to protect are named on 91.4%, others on 91.9% of their photos",
            },
            {
                "name": "error-min: noise converged", "ok": True, "detail": "converged in 12 rounds, surrogate error 8.3%",
                "arm": "error-min",
            },
            {"name": f"no duplicate of {NASTY}", "ok": True, "detail": f"0 photos <b>of</b> {NASTY}", "arm": None},
        ],
    }  # fmt: skip


def seeded_metrics(seed: int, shift: float) -> dict[str, Any]:
    """The made-up run of another seed, in which error-min leaves `shift` more to be named."""
    metrics = sample_metrics()
    metrics["provenance"]["seeds"] = [seed]
    metrics["provenance"]["config"]["train"]["seed"] = seed
    metrics["run"] = f"study-s{seed}"
    for arm in metrics["arms"].values():
        for group in ("protected", "others"):
            arm[group]["test_photos"] = dict.fromkeys(arm[group]["per_identity"], 4)
    mine = metrics["arms"]["error-min"]["protected"]
    mine["final"] = round(mine["final"] + shift, 4)
    mine["by_epoch"] = [round(value + shift, 4) for value in mine["by_epoch"]]
    return metrics


def big_metrics(people: int = 1000) -> dict[str, Any]:
    """The sample with every arm there is, every trial of every arm, and many protected people with long names."""
    metrics, titles = sample_metrics(), {name: trial_of(name).title for name in SETS["full"]}
    names = [f"{name}-of-a-data-set-with-long-names" for name in identities(people)]
    each = dict(zip(names, (place % 5 / 4 for place in range(people)), strict=True))
    protected = {"per_identity": each, "test_photos": dict.fromkeys(names, 4)}
    like = {arm: metrics["arms"].get(arm, metrics["arms"]["clean" if arm == "removed" else "random"]) for arm in ARMS}
    metrics["arms"] = {arm: record | {"protected": record["protected"] | protected} for arm, record in like.items()}
    scored = {"protected": 0.1234, "protected_peak": 0.2345, "protected_ci95": [0.1012, 0.1498], "others": 0.9012}
    for kind, section in SECTIONS.items():
        metrics[section] |= {name: dict.fromkeys(ARMS, scored) for name in SETS["full"] if trial_of(name).kind == kind}
    metrics["trial_titles"] |= titles
    metrics["held_against"] += [{"trial": name, "title": title, "accuracy": 0.1234, "peak": False} for name, title in titles.items()]
    metrics["paired"] = [
        metrics["paired"][0] | {"arm": arm, "against": against, "group": group}
        for arm in ARMS for against in ("clean", "random") for group in ("protected", "others") if arm not in ("clean", against)
    ]  # fmt: skip
    metrics["split"]["protected_names"] = names
    return metrics | {"identities": people, "classes": 3 * people}


def sample_panels(arms: tuple[str, ...] = ("error-min", "random"), *, people: int = 4, photo_side: int = 250) -> list[Panel]:
    """Smooth invented pictures with block noise on them: `people` crops and one photo an arm."""
    rng = np.random.default_rng(3)
    panels = []
    for name in arms:
        for place, side in enumerate([112] * people + [photo_side]):
            y, x = np.mgrid[:side, :side] / side
            light = np.exp(-((x - 0.5) ** 2 + (y - 0.45) ** 2) / 0.08)
            original = np.stack([60 + 150 * light * tint for tint in rng.uniform(0.6, 1.0, 3)], -1) + rng.normal(0, 2, (side, side, 3))
            original = np.clip(original, 0, 255).astype(np.uint8)
            noise = np.kron(rng.integers(-16, 17, (side // 8 + 1, side // 8 + 1, 3)), np.ones((8, 8, 1), int))[:side, :side]
            if place == people:
                noise[((x - 0.5) ** 2 + (y - 0.5) ** 2) > 0.08] = 0
            protected = np.clip(original.astype(int) + noise, 0, 255).astype(np.uint8)
            kind = "photo" if place == people else "crop"
            panels.append(Panel(NASTY if place == 0 else f"person-{place}", f"p/{place}.jpg", name, original, protected, kind))
    return panels
