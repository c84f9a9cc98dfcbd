"""The one exception for what a user can cause."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message names the file, the field and the remedy. The launcher exits with 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean ...?' for the nearest of `known`, or the whole list of them."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if match:
        return f" Did you mean {match[0]!r}?"
    return f" Known: {', '.join(known)}."
