"""One at a time: a process, by a lock on an open file, which the system frees on any death; a thread, where
all want the same thing made."""

import fcntl
import functools
import threading
from collections.abc import Callable


def taken(file, wait: bool) -> bool:
    """Whether this process holds the lock of an open file now.

    It says so too where the file system has no locks: one process at a time is the user's care there.

    Args:
      wait: until no other process holds it; else False if one does.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def made_once(make: Callable) -> Callable:
    """`functools.cache` of a function without arguments, for what takes long to make.

    Threads that ask while one makes it wait: `functools.cache` lets each of them make its own.
    """
    lock, kept = threading.Lock(), functools.cache(make)

    @functools.wraps(make)
    def made():
        with lock:
            return kept()

    return made
