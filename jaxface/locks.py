"""One process at a time: a lock on an open file, which the system frees on any death."""

import fcntl


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
