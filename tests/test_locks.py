"""Things that are made once, however many threads want them."""

import concurrent.futures
import threading

import pytest

from jaxface import locks


def test_threads_that_ask_at_once_get_one_thing():
    """All eight ask before the first has made it."""
    made, asking = [], threading.Barrier(8)

    @locks.made_once
    def thing():
        threading.Event().wait(0.05)
        made.append(object())
        return made[-1]

    def ask(_):
        asking.wait()
        return thing()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(ask, range(8)))
    assert len(made) == 1 and all(one is made[0] for one in got)


def test_what_could_not_be_made_is_tried_again():
    tries = []

    @locks.made_once
    def thing():
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no space left")
        return "made"

    with pytest.raises(OSError, match="no space"):
        thing()
    assert thing() == "made" == thing() and len(tries) == 2
