"""SIGTERM in every phase, sent from outside to a process of its own, as a scheduler does it."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxface.checkpoint import Checkpoints
from jaxface.preemption import Preemption

ROOT = pathlib.Path(__file__).parents[1]
LIMIT = 30.0  # seconds that a scheduler waits between SIGTERM and SIGKILL

# What every script begins with. `busy` is C code that holds no lock and looks at no signal, which is
# what a long compilation or evaluation looks like to Python.
HEAD = """
import hashlib, os, subprocess, sys, time
from jaxface.preemption import Preemption
def ready(): print("READY", flush=True)
def busy(): hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)
"""


@contextlib.contextmanager
def running(body: str, *arguments):
    """A script of its own process, once it has printed READY."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + body, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        for line in process.stdout:
            if line.strip() == "READY":
                break
            lines.append(line)
        else:
            pytest.fail("".join(lines))
        yield process
    finally:
        process.kill()
        process.communicate()


def stop(process, number=signal.SIGTERM) -> tuple[int, str]:
    """(exit code, what it said) of a process that is sent a signal and has LIMIT seconds to go."""
    process.send_signal(number)
    text = process.communicate(timeout=LIMIT)[0]
    return process.returncode, text


def test_while_importing():
    body = """
with Preemption() as preemption, preemption.phase("import"):
    ready()
    import jax
    time.sleep(99)
"""
    with running(body) as process:
        code, text = stop(process)
    assert code == 143 and "Stopped while importing: no step finished yet." in text


def test_while_xla_compiles(tmp_path):
    body = """
import jax, numpy as np
from jaxface.checkpoint import Checkpoints
with Preemption() as preemption:
    checkpoints = Checkpoints(sys.argv[1])
    checkpoints.save(7, {"step": np.int32(7)}, {})
    preemption.can_save(lambda step, state: checkpoints.save(step, state, {}, wait=True), checkpoints.newest)
    image, kernel = np.ones((1, 1, 1024, 1024), np.float32), np.ones((1, 1, 33, 33), np.float32)
    image[..., 0] = 2  # constants that XLA folds one multiplication at a time, for a minute
    slow = jax.jit(lambda x: x + jax.lax.conv(image, kernel, (1, 1), "SAME"))
    lowered = slow.lower(1.0)
    with preemption.phase("compile"):
        ready()
        lowered.compile()
        print("compiled")
"""
    with running(body, tmp_path) as process:
        time.sleep(0.5)
        code, text = stop(process)
    assert code == 143 and "compiled" not in text
    assert "Stopped while compiling: no step finished since checkpoint 7." in text


LOOP = """
import numpy as np
from jaxface.checkpoint import Checkpoints
with Preemption(grace=float(sys.argv[2])) as preemption:
    checkpoints = Checkpoints(sys.argv[1])
    def save(step, state):
        with preemption.phase("save"):
            checkpoints.save(step, state, {}, wait=True)
            return checkpoints.failure
    preemption.can_save(save, checkpoints.newest)
    step, seconds = 0, 0.02
    while True:
        with preemption.phase("step"):
            time.sleep(seconds)
            if step == 4 and sys.argv[3] == "step": ready(); busy()
        step += 1
        state = {"step": np.int32(step), "w": np.full(1000, step, np.float32)}
        if step == 3 and sys.argv[3] == "loop": ready()
        if preemption.agreed(step):
            save(step, state)
            print(f"Asked to stop: step {step} is saved.")
            sys.exit(143)
        if step == 5 and sys.argv[3] == "evaluate":
            preemption.offer(step, state)
            with preemption.phase("evaluate"):
                ready(); busy()
"""


def test_between_steps_the_loop_saves(tmp_path):
    with running(LOOP, tmp_path, 20, "loop") as process:
        time.sleep(0.1)
        code, text = stop(process)
    step = Checkpoints(tmp_path).newest()
    assert code == 143 and f"Asked to stop: step {step} is saved." in text and step >= 3


def test_in_a_step_that_does_not_end(tmp_path):
    Checkpoints(tmp_path).save(1, {"step": np.int32(1)}, {}, wait=True)
    with running(LOOP, tmp_path, 1, "step") as process:
        code, text = stop(process)
    assert code == 143
    assert "Stopped while training: no answer in time, nothing saved since checkpoint 1." in text


def test_in_a_long_evaluation_the_offered_state_is_saved(tmp_path):
    with running(LOOP, tmp_path, 20, "evaluate") as process:
        time.sleep(0.2)
        code, text = stop(process)
    assert code == 143 and "Stopped while evaluating: step 5 is saved." in text
    tree, _ = Checkpoints(tmp_path).load(tmp_path)
    assert tree["step"] == 5 and (tree["w"] == 5).all()


def test_why_the_offered_state_could_not_be_saved(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with running(LOOP, tmp_path / "file", 20, "evaluate") as process:
        code, text = stop(process)
    assert code == 143 and "while evaluating: step 5 could not be saved" in text
    assert "File exists" in text


def test_saving_state_cannot_be_donated_meanwhile():
    body = """
with Preemption() as preemption:
    def save(step, state):
        time.sleep(1)
        print("saved whole" if state["alive"] else "donated")
    preemption.can_save(save)
    state = {"alive": True}
    with preemption.phase("evaluate"):
        preemption.offer(1, state)
        ready()
        while not preemption.requested: time.sleep(0.01)
    with preemption.phase("step"):
        state["alive"] = False
        time.sleep(9)
"""
    with running(body) as process:
        code, text = stop(process)
    assert code == 143 and "saved whole" in text and "step 1 is saved" in text


def test_second_interrupt_ends_at_once():
    body = """
with Preemption() as preemption:
    preemption.can_save(lambda step, state: (ready(), time.sleep(60)))
    preemption.offer(1, {})
    with preemption.phase("evaluate"):
        ready(); busy()
"""
    with running(body) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().strip() == "READY"  # it saves, and takes its time
        code, text = stop(process, signal.SIGINT)
    assert code == 130 and "Stopped at once" in text


def test_handlers_of_others_are_replaced_and_children_have_their_own():
    body = """
import signal
with Preemption() as preemption:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as libtpu and jax.distributed do
    with preemption.phase("data"):
        child = subprocess.Popen(["sleep", "60"])
        forked = os.fork()
        if not forked:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.2)
        child.terminate()
        assert child.wait(5) == -15
        os.kill(forked, signal.SIGTERM)
        assert os.waitpid(forked, 0)[1] == 15
        assert not preemption.requested
        ready(); busy()
"""
    with running(body) as process:
        code, text = stop(process)
    assert code == 143 and "Stopped while reading data: no step finished yet." in text


def test_a_full_pipe_does_not_keep_it():
    body = """
with Preemption() as preemption, preemption.phase("evaluate"):
    ready()
    while True: print("x" * 1000)
"""
    with running(body) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 143


def test_gives_the_signals_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Preemption() as preemption:
        assert not preemption.agreed(1) and not preemption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not preemption.agreed(2) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert preemption.requested
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_imports_nothing_heavy():
    code = "import sys, jaxface.preemption; assert not {'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
