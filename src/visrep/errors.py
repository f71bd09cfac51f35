"""Errors that are the user's to mend: shown as one message, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_STATUS = 2  # of a command that the user must mend something for; without that, it would end so again


class UserError(ValueError):
    """Something that the user can mend; the message says what is wrong, where, and what to do."""


def nearest(word: str, words: Iterable[str], count: int = 3) -> list[str]:
    """The names most like ``word``, best first; substring matches count as near."""
    pool = sorted(set(words))
    close = difflib.get_close_matches(word, pool, n=count, cutoff=0.5)
    contained = [w for w in pool if word and (word in w or w in word)]
    return list(dict.fromkeys(close + contained))[:count]


def suggestion(word: str, words: Iterable[str]) -> str:
    """What to write instead of the unknown ``word``: the nearest name, then all of them."""
    known = sorted(words)
    near = nearest(word, known)
    return f"{f'did you mean {near[0]}? ' if near else ''}known: {', '.join(known)}"
