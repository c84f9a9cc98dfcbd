"""A preemption that never comes, for tests that launch in their own process."""

import contextlib


class Calm:
    requested = False

    @contextlib.contextmanager
    def phase(self, name):
        yield

    def offer(self, step, state):
        pass

    def can_save(self, save, newest=None):
        pass

    def agreed(self, step):
        return False
