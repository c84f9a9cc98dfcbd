"""What a person sees while a long job runs: a bar on a terminal, a line now and then in a log."""

import sys
import time

import rich.console
import rich.progress

console = rich.console.Console(highlight=False, soft_wrap=True)
QUIET_EVERY = 20.0  # seconds between lines where output is not a terminal


def say(message: str) -> None:
    console.print(message, markup=False)


class Progress:
    """Rate, time left and newest numbers of a job of `total` steps.

    with Progress("training", total=1000, start=0, unit="step") as progress:
        progress.update(step, {"loss/generator": 0.7})
    """

    def __init__(self, name: str, total: int, start: int = 0, unit: str = "step"):
        self.name, self.total, self.start, self.unit = name, total, start, unit
        self._shown_at = self._began = time.monotonic()
        self._bar = None
        if sys.stdout.isatty():
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("[bold]{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[rate]}"),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.fields[numbers]}"),
                console=console,
            )
            self._task = self._bar.add_task(name, total=total, completed=start, rate="", numbers="")

    def __enter__(self):
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error):
        if self._bar:
            self._bar.stop()

    def update(self, step: int, numbers: dict[str, float] | None = None) -> None:
        """Tells that `step` steps are done; `numbers` are the newest known ones."""
        now = time.monotonic()
        done = max(step - self.start, 1e-9)
        rate = done / max(now - self._began, 1e-9)
        shown = "  ".join(f"{k.split('/')[-1]} {v:.3g}" for k, v in (numbers or {}).items())
        if self._bar:
            self._bar.update(
                self._task, completed=step, rate=f"{rate:.2f} {self.unit}/s", numbers=shown
            )
        elif now - self._shown_at > QUIET_EVERY or step >= self.total:
            self._shown_at = now
            left = (self.total - step) / rate
            say(
                f"{self.name}: {step}/{self.total}  {rate:.2f} {self.unit}/s  "
                f"{int(left // 60)}:{int(left % 60):02d} left  {shown}"
            )
