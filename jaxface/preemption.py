"""Answers SIGTERM and Ctrl-C in every phase of a run, also where Python does not run.

Python runs a signal handler in the main thread between two of its instructions: while XLA compiles or
an evaluation computes, that may be minutes. So the signal's number is written to a pipe by C
(signal.set_wakeup_fd) and a thread of its own reads it. While the main loop steps, the thread leaves
the answer to it (`agreed`); in any other phase it saves the newest state that was offered to it and
ends the process itself. A scheduler's usual 30 s are kept: 20 s for the loop, at once elsewhere.

Imports nothing but the standard library, so that it can be installed before JAX is imported.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

STOPPED = 143  # 128 + SIGTERM: tells a scheduler to start the run again
DOING = {
    "import": "importing",
    "data": "reading data",
    "start": "starting",
    "compile": "compiling",
    "step": "training",
    "sample": "drawing samples",
    "evaluate": "evaluating",
    "save": "saving",
}
POLLED = ("step", "save", None)  # phases after which the loop asks `agreed` soon
SAVING = 8.0  # seconds beyond the grace that a save under way may take
NO_SIGNAL = 0  # tells the listening thread to end
CHECK = 2.0  # seconds of training between two agreements of several processes


class Preemption:
    """Installed while the `with` block runs, on the main thread.

    with Preemption() as preemption:
        with preemption.phase("import"):
            import jax
        preemption.can_save(save, newest)
        while ...:
            with preemption.phase("step"):
                state = step_fn(state)
            if preemption.agreed(step):
                save(step, state); return STOPPED
            preemption.offer(step, state)
            with preemption.phase("evaluate"): ...

    Args:
      grace: seconds the loop has to ask `agreed` before the thread answers in its place.
    """

    def __init__(self, grace: float = 20.0):
        self.grace = grace
        self._requested = threading.Event()
        self._taken = threading.Event()  # the loop has seen the request and saves by itself
        self._phase: str | None = None
        self._loops = False  # `agreed` has been asked at least once
        self._offered = None
        self._save: Callable = lambda step, state: None
        self._newest: Callable = lambda: None
        # Held by the answering thread from its decision to the end of the process, so that the main
        # thread cannot donate the state that is being saved: it stops at its next change of phase.
        self._turn = threading.RLock()
        self._next_check = 0
        self._checked = None

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self._requested.is_set()

    # ---- what the run tells -------------------------------------------------------------------

    @contextlib.contextmanager
    def phase(self, name: str):
        """Names what the main thread does; phases nest. Free to use from any thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Asked to stop with a state to save, before any loop that would: the answering thread ends the
        # process as soon as it has its turn, and until then that state may not be donated.
        while name == "step" and self.requested and not self._loops and self._offered:
            time.sleep(0.05)
        with self._turn:
            self._handle()
            before, self._phase = self._phase, name
            if name == "step":
                self._offered = None  # it is donated now, or would be kept in memory for nothing
        try:
            yield
        finally:
            with self._turn:
                self._phase = before

    def offer(self, step: int, state) -> None:
        """Lets the thread save `state`, finished at `step`, until the next phase "step" begins."""
        with self._turn:
            self._offered = (step, state)

    def can_save(self, save: Callable, newest: Callable[[], int | None] = lambda: None) -> None:
        """Gives `save(step, state)`, which returns when the state is committed and raises or returns
        the reason (a text) if it could not be, and `newest()`, the step of the newest checkpoint."""
        self._save, self._newest = save, newest

    def agreed(self, step: int) -> bool:
        """Whether all processes stop after this step. Every process asks after every step.

        One process decides alone. Several exchange a flag every few seconds, at the same step each,
        so that a signal to any one of them stops all of them with the same state.
        """
        with self._turn:
            self._handle()
            self._loops = True
        stop = self._exchange(step) if _process_count() > 1 else self.requested
        if stop:
            self._requested.set()
            with self._turn:
                self._taken.set()
        return stop

    def _exchange(self, step: int) -> bool:
        if step < self._next_check:
            return False
        import numpy as np
        from jax.experimental import multihost_utils

        now = time.monotonic()
        pace = CHECK
        if self._checked is not None:
            pace = (now - self._checked[1]) / max(1, step - self._checked[0])
        told = np.array([self.requested, pace], np.float32)
        flag, slowest = np.max(multihost_utils.process_allgather(told).reshape(-1, 2), axis=0)
        self._checked = (step, now)
        # From the numbers that all have: the next exchange comes at the same step everywhere.
        self._next_check = step + max(1, min(1000, int(CHECK / max(float(slowest), 1e-3))))
        return bool(flag)

    # ---- the signals --------------------------------------------------------------------------

    def __enter__(self):
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._old = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        self._old_fd = signal.set_wakeup_fd(self._write_end)
        self._handle()
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._listen, name="preemption", daemon=True).start()
        return self

    def __exit__(self, *error):
        self._forget()
        os.write(self._write_end, bytes([NO_SIGNAL]))

    def _handle(self) -> None:
        """(Re)installs the handlers: jax.distributed and accelerator runtimes put in their own."""
        if self._old:
            signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in self._old:
            signal.signal(number, _noted)

    def _forget(self) -> None:
        """Gives the signals back, at the end and in a forked child, which is its own process."""
        if self._old:
            signal.set_wakeup_fd(self._old_fd)
            for number, handler in self._old.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._old = {}

    def _listen(self) -> None:
        interrupts = 0
        while True:
            for number in os.read(self._read_end, 64):
                if number == NO_SIGNAL:
                    os.close(self._read_end)
                    os.close(self._write_end)
                    return
                interrupts += number == signal.SIGINT
                if interrupts > 1:
                    _end(128 + signal.SIGINT, "Stopped at once, nothing saved.")
                if number in (signal.SIGTERM, signal.SIGINT) and not self.requested:
                    self._requested.set()
                    threading.Thread(target=self._answer, name="stop", daemon=True).start()

    def _answer(self) -> None:
        began = time.monotonic()
        if self._waits_for_loop():
            _say("Asked to stop: finishing the step that runs.")
        while not self._taken.is_set():
            with self._turn:
                left = self.grace - (time.monotonic() - began)
                left += SAVING if self._phase == "save" else 0
                if not self._taken.is_set() and not (self._waits_for_loop() and left > 0):
                    _end(STOPPED, self._save_what_there_is())
            time.sleep(0.05)

    def _waits_for_loop(self) -> bool:
        return self._loops and self._phase in POLLED

    def _save_what_there_is(self) -> str:
        """Saves the offered state if it is news. Returns the line that tells what became of it."""
        doing = DOING.get(self._phase, f"in phase {self._phase}" if self._phase else "starting")
        if self._loops and self._phase is None:
            doing = "between two steps"
        try:
            newest = self._newest()
            since = "yet" if newest is None else f"since checkpoint {newest}"
            if self._waits_for_loop():
                return f"Stopped while {doing}: no answer in time, nothing saved {since}."
            if self._offered is None or self._offered[0] <= (newest or 0):
                return f"Stopped while {doing}: no step finished {since}."
            step, state = self._offered
            failure = self._save(step, state)
        except Exception as error:
            failure = f"the newest step could not be saved ({error})."
        if failure:
            return f"Stopped while {doing}: {failure}"
        return f"Stopped while {doing}: step {step} is saved. The same command continues it."


def _noted(number, frame) -> None:
    """A handler must be there for the number to reach the pipe; nothing is left for it to do."""


def _process_count() -> int:
    jax = sys.modules.get("jax")
    return 1 if jax is None else jax.process_count()


def _say(line: str) -> None:
    print(line, flush=True)


def _end(code: int, line: str) -> None:
    """Ends the process from any thread: sys.exit would end only the thread."""
    # A reader of our output that has stopped reading must not keep us.
    unread = threading.Timer(3.0, os._exit, [code])
    unread.daemon = True
    unread.start()
    _say(line)
    sys.stderr.flush()
    os._exit(code)
