"""The validity checks that are asked for by name, and what their failing takes away; apart from `checks.py`, which is slow to load."""

from __future__ import annotations

CLEAN_ARM = "clean arm"
CLEAN_LEARNED = "clean arm learned"
SAME_RECIPE = "same recipe in every arm"
ENOUGH_IDENTITIES = "enough identities for intervals"

TRAINING_ALONE = (CLEAN_LEARNED, SAME_RECIPE)  # concern what was trained here; what a recogniser trained elsewhere finds still counts
CLAIM_ALONE = (ENOUGH_IDENTITIES, CLEAN_ARM)  # where they fail, numbers stand, but prove nothing
