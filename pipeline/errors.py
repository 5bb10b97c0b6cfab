"""The two kinds of failure that a user sees as one line instead of a traceback."""

from __future__ import annotations


class RequestError(ValueError):
    """The request itself is wrong: exit code 2, nothing was written. The message names the variable, the value, what is allowed."""


class StageError(RuntimeError):
    """The request is fine but a stage cannot go on: exit code 1. The message names the photo, file or stage, and what to do."""
