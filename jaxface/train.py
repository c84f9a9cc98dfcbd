"""The only loop: build, restore, step, log, evaluate, save.

Read top to bottom: `train` is one run from its config to its report. Every effect of a run happens
here, in plain sight; everything below is arithmetic.
"""

import datetime
import importlib.metadata
import io
import itertools
import json
import math
import mimetypes
import pathlib
import platform
import time

import jax
from clu import parameter_overview
from PIL import Image

from jaxface import export as files
from jaxface import lineage, parallel
from jaxface.checkpoint import Checkpoints, check_space, estimate_bytes
from jaxface.errors import UserError, nearest
from jaxface.preemption import STOPPED
from jaxface.reports import readings, report
from jaxface.reports.grid import make_grid
from jaxface.system import Asked, Figure, Film, Record, Result, RunConfig, System
from jaxface.terminal import Progress, say
from jaxface.workdir import Workdir, as_dict

GRID = 64  # pictures of a progress grid
KINDS = {  # that are read
    "photograph": "JPEG, PNG, WebP, BMP or TIFF",
    "video": "MP4, MOV, MKV, WebM, AVI or MPEG",
}
PHONE = (".heic", ".heif", ".avif", ".webp")  # images that not every table of file types knows


class Diverged(RuntimeError):
    """Too many updates in a row were not finite numbers."""


def train(system: System, config: RunConfig, workdir: Workdir, preemption, about: dict) -> int:
    """Trains from the newest good checkpoint of `workdir`, or from the start, to its report.

    Returns 0 when the run is complete, STOPPED when it was asked to stop and saved its state, 1 when
    the last checkpoint could not be written.

    Raises:
      UserError: before any compute is spent, for what a user can mend.
      Diverged: more than config.max_skipped updates in a row were skipped.
    """
    parallel.check_batch(config.batch, config.accumulate)
    # Who the parent has learned from is for the checkpoints alone; `about` goes into many files.
    parent = dict(about.get("start") or {})
    ancestors = parent.pop("ancestors", ())
    about = about | ({"start": parent} if parent else {})
    workdir.prepare(as_dict(config), about)
    mesh = parallel.make_mesh()
    key = jax.random.key(config.seed)
    checkpoints = checkpoints_of(config, workdir)
    checkpoints.ask_gate()

    # Data. It is read before anything is compiled, so that a bad photograph costs nobody an hour.
    with preemption.phase("data"), workdir.clock("data"):
        resident = parallel.first_process_first(system.resident)
        resident_on_device = parallel.place_state(resident, mesh, config.compile)
        if system.preview:
            workdir.add_figure("reals", system.preview(), {"data": config.data})

    # State: newest good checkpoint, else fresh, else fresh with the networks of --init_from. What makes it is
    # compiled while the step is traced, and the step while the first pictures are drawn.
    with preemption.phase("start"), workdir.clock("start"):
        steps = num_steps(system, config)
        init = parallel.compiled_once(system.init).trace(key)
        check_space(workdir.path, (config.keep + 1) * estimate_bytes(init.out_info))
        restored = checkpoints.restore(init.out_info)
        start = int(restored[0].step) if restored else 0
        made = None if restored else parallel.compile_aside(init.lower())
        step_fn = parallel.compile_step(system.train_step, mesh, config.compile)
        batches = iter(system.batches(start, jax.process_index(), jax.process_count()))
        lowered = None
        if start < steps:
            batch = next(batches)
            batches = itertools.chain([batch], batches)
            lowered = parallel.lower_step(
                step_fn, init.out_info, batch, resident_on_device, key, mesh
            )
        if restored:
            state = restored[0]
        else:
            state = parallel.to_host(made()(key))
            state = system.start_from(state) if system.start_from else state
        compiling = parallel.compile_aside(lowered) if lowered else None
        state = parallel.place_state(state, mesh, config.compile)
        metrics_log = workdir.open_metrics(after_step=start)
        origin = lineage.Lineage(
            config, system.consumed, restored and restored[1].get("lineage"), ancestors
        )
        write_lineage(workdir, config, restored, about)
    if restored is not None:
        say(f"Continuing at step {start} of {steps} from {workdir.path}.")

    def save(step, state, wait=False):
        with preemption.phase("save"), workdir.clock("save", step):
            meta = {"config": as_dict(config), "data": {"step": step}, "run": about}
            if workdir.writes:  # nobody else saves
                meta["lineage"] = origin.at(step)
            checkpoints.save(step, state, meta, wait=wait)
            if workdir.writes:  # after it: on a full disk the save makes room
                note_lineage(workdir, now=lineage.summary(meta["lineage"]) | {"step": step})

    def sample(step, state):
        preemption.offer(step, state)
        with preemption.phase("sample"), workdir.clock("sample", step):
            if workdir.writes:
                shown = system.sample(parallel.to_host(state), jax.random.fold_in(key, 1), GRID)
                figure = (
                    shown._replace(caption=f"{shown.caption} Step {step}.")
                    if isinstance(shown, Figure)
                    else Figure(shown, 8, f"Samples at step {step}.")
                )
                workdir.add_figure(f"{step:08d}", figure, provenance(config, step))
                write_grid(metrics_log, step, figure)

    def evaluate(step, state, evals, digest=""):
        preemption.offer(step, state)
        with preemption.phase("evaluate"), workdir.clock("evaluate", step):
            if workdir.writes:
                about = provenance(config, step)
                results = run_evals(evals, state, key, workdir, about, digest)
                scalars = {f"eval/{k}": v.value for k, v in results.items()}
                metrics_log.write_scalars(step, scalars)
                return results
        return {}

    def save_and_tell(step, state):
        save(step, state, wait=True)
        return checkpoints.failure

    preemption.can_save(save_and_tell, checkpoints.newest)
    # A stop may have come between a step and what was due after it.
    if (
        start % config.sample_every == 0
        and not (workdir.path / f"samples/{start:08d}.png").exists()
    ):
        sample(start, state)
    owed = 0 < start < steps and config.eval_every and start % config.eval_every == 0
    if owed and not metrics_log.has(start, "eval/"):
        evaluate(start, state, system.monitors)

    # The loop.
    blocks = jax.default_backend() == "cpu"  # pretend devices deadlock with two steps in flight
    step, since, numbers, compiled = start, time.monotonic(), {}, set()
    turns = parallel.Turns()
    with Progress("training", steps, start) as progress:
        if compiling:
            with preemption.phase("compile"):
                compiling()
        while step < steps:
            batch = next(batches)
            kind = frozenset(batch)  # a batch of another structure is another program
            first = kind not in compiled
            compiled.add(kind)
            if first and step > start:
                preemption.offer(step, state)  # so that it is not lost while this one compiles
            with turns.of(kind), preemption.phase("compile" if first else "step"):
                batch = parallel.place_batch(batch, mesh, config.compile)
                state, metrics = step_fn(state, batch, resident_on_device, key)
                if first or blocks:
                    jax.block_until_ready(metrics)
            step += 1
            if first:
                workdir.record("compile", time.monotonic() - since, step)
                parallel.release_memory()
                since = time.monotonic()

            last = step == steps
            if step % config.log_every == 0 or last:
                numbers = {k: float(v) for k, v in parallel.to_host(metrics).items()}
                workdir.record("step", time.monotonic() - since, step)
                metrics_log.write_scalars(step, numbers)
                metrics_log.flush()
                stop_if_diverged(numbers, config, step)
                since = time.monotonic()
            progress.update(step, {k: v for k, v in numbers.items() if k.startswith("loss/")})

            if preemption.agreed(step):
                save(step, state, wait=True)
                metrics_log.close()
                say(
                    f"Asked to stop: step {step} is saved in {workdir.path}. "
                    "The same command continues it."
                    if checkpoints.failure is None
                    else f"Asked to stop, but step {step} could not be saved: {checkpoints.failure}"
                )
                return STOPPED
            busy = time.monotonic()
            if step % config.sample_every == 0 or last:
                sample(step, state)
            if config.eval_every and step % config.eval_every == 0 and not last:
                evaluate(step, state, system.monitors)
            if step % config.save_every == 0 or last:
                save(step, state, wait=last)
                if checkpoints.failure:
                    say(
                        f"Checkpoint at step {step} failed, training goes on: {checkpoints.failure}"
                    )
            since += time.monotonic() - busy

    # What the run ends with.
    digest = checkpoints.digest(step) if checkpoints.newest() == step else ""
    results = evaluate(step, state, system.evals, digest)
    metrics_log.close()
    if workdir.writes:
        workdir.add_results(results)
        with workdir.clock("report", step):
            page = report.write(workdir.path)
        table(results)
        say(f"Report: {page}")
    if checkpoints.failure:
        say(f"The last checkpoint could not be written: {checkpoints.failure}")
        return 1
    return 0


def evaluate(
    system: System, config: RunConfig, workdir: Workdir, preemption, images: str = ""
) -> int:
    """Judges the newest checkpoint of a workdir again, or a folder of pictures as if it had made them.

    Renews results.json and the report; numbers and figures of a folder are called folder_....
    """
    if images and not system.judge_folder:
        raise UserError("--images: this system judges no pictures of others.")
    key = jax.random.key(config.seed)
    if images:
        about = {"content": f"pictures of {images}", "data": config.data}
        evals = {"folder": lambda state, key: system.judge_folder(images)}
        state, digest, step, prefix = None, "", 0, "folder_"
    else:
        state, digest = newest(system, config, workdir)
        step, prefix, evals = int(state.step), "", system.evals
        about = provenance(config, step) | {"checkpoint_sha256": digest}
    with preemption.phase("evaluate"), workdir.clock("evaluate", step):
        results = run_evals(evals, state, key, workdir, about, digest, prefix)
    workdir.add_results(results)
    table(results)
    say(f"Report: {report.write(workdir.path)}")
    return 0


def sample(system: System, config: RunConfig, workdir: Workdir, asked: Asked) -> int:
    """Writes what the newest checkpoint shows: single faces and a grid of them, or a tour."""
    if asked.show and asked.show not in system.shows:
        raise UserError(
            f"--show={asked.show}: this system shows {', '.join(system.shows) or 'single pictures only'}."
            f"{nearest(asked.show, system.shows)}"
        )
    state, digest = newest(system, config, workdir)
    if system.release:
        system.release(workdir.path, digest)
    step, key = int(state.step), jax.random.key(asked.seed)
    about = provenance(config, step) | {"seed": str(asked.seed), "checkpoint_sha256": digest}
    about |= {"label": asked.label} if asked.label else {}
    name = f"seed{asked.seed}" + (f"-{asked.label}" if asked.label else "")
    images = None if asked.show else system.sample(state, key, asked.number or GRID, asked.label)
    if isinstance(images, Figure):
        shown = images._replace(caption=f"{images.caption} Seed {asked.seed}, step {step}.")
    elif not asked.show:
        for index, image in enumerate(images):
            figure = Figure(image[None], 1, f"Sample {index} of seed {asked.seed} at step {step}.")
            workdir.add_picture(f"{name}/{index:05d}", figure, about | {"index": str(index)})
        say(f"{len(images)} pictures: {workdir.path / 'generated' / name}")
        caption = f"{len(images)} samples of seed {asked.seed} at step {step}."
        shown = Figure(images, math.ceil(math.sqrt(len(images))), caption)
    else:
        name = f"{asked.show}-{name}"
        shown = system.shows[asked.show](state, key, asked.number, asked.label)
    if isinstance(shown, Film):
        say(f"Film: {workdir.add_film(name, shown, about)}")
    else:
        workdir.add_figure(name, shown, about)
        say(f"Grid: {workdir.path / 'samples' / f'{name}.png'}")
    return 0


def read_input(system: System, config: RunConfig, workdir: Workdir, path: pathlib.Path) -> int:
    """Writes what the newest checkpoint makes of a user's photographs or videos into the workdir.

    readings/<file>/*.png, readings.csv and the page readings.html. Files that cannot be read are named
    there and on the terminal.

    Raises:
      UserError: the system reads nothing, `path` holds nothing to read, or none of it could be read.
    """
    if not system.readings:
        raise UserError("--input: this system reads no photographs.")
    wanted, kinds = files_in(path, system.reads), KINDS[system.reads]
    if not wanted:
        raise UserError(f"--input={path}: no {system.reads} in it ({kinds}).")
    state, digest = newest(system, config, workdir)
    if system.release:
        system.release(workdir.path, digest)
    about = provenance(config, int(state.step)) | {"checkpoint_sha256": digest}
    # Pixels of a real person are in these pictures: they are not what `provenance` says of samples.
    about |= {
        "synthetic": f"made by a network from a {system.reads}: a research estimate, no diagnosis"
    }
    entries, taken = [], set()

    def refuse(name: str, reason: str) -> None:
        stem = readings.unique_stem(name, taken)
        workdir.add_reading(stem, {}, about)
        entries.append(readings.Entry(name, stem, error=reason))
        say(f"  not read: {name}: {reason}")

    with Progress("reading", len(wanted), unit=system.reads) as progress:
        for name, found in system.readings(state, path):
            if isinstance(found, UserError):
                # A page that may be handed on says which file, not where on this disk.
                refuse(name, getattr(found, "reason", str(found)))
            else:
                stem = readings.unique_stem(name, taken)
                workdir.add_reading(stem, found.pictures, about)
                entries.append(readings.entry(name, stem, found))
            progress.update(len(entries))
    known = {one.name for one in entries}
    for name in wanted:
        if name not in known:
            refuse(name, f"this kind of {system.reads} is not read: save it as {kinds}")
    broken = sum(bool(one.error) for one in entries)
    if broken == len(entries):
        raise UserError(
            f"--input={path}: none of {broken} file(s) could be read.\n  "
            + "\n  ".join(f"{one.name}: {one.error}" for one in entries)
        )
    readings.write_table(workdir.path / "readings.csv", entries)
    readings.write_page(workdir.path / "readings.html", entries, about, system.reads)
    if broken:
        say(f"{broken} of {len(entries)} files could not be read: see above and the page's end.")
    say(f"{len(entries) - broken} read: {workdir.path / 'readings.html'}")
    return 0


def export(system: System, config: RunConfig, workdir: Workdir) -> int:
    """Writes the newest checkpoint as files for other programs into <workdir>/export."""
    if not system.export:
        raise UserError("--mode=export: this system has nothing to export.")
    state, digest = newest(system, config, workdir)
    about = provenance(config, int(state.step)) | {"checkpoint_sha256": digest}
    lineage.keep_list(workdir.path, workdir.gate.lineage, digest)
    about["lineage"] = json.dumps(lineage.summary(workdir.gate.lineage or {}))
    files.write(workdir.path / "export", system.export(state), about, say)
    return 0


def checkpoints_of(config: RunConfig, workdir: Workdir) -> Checkpoints:
    """Of a run, behind its workdir's gate."""
    folder = workdir.path / "checkpoints"
    return Checkpoints(folder, keep=config.keep, log=say, gate=workdir.gate)


def num_steps(system: System, config: RunConfig) -> int:
    """Of the whole run: the config says, or where it cannot, the system that knows its data."""
    return system.num_steps() if system.num_steps else config.num_steps


def newest(system: System, config: RunConfig, workdir: Workdir):
    """The newest good state of a workdir, on the host, and the sha256 of its checkpoint."""
    checkpoints = checkpoints_of(config, workdir)
    nothing = UserError(f"--workdir={workdir.path} has no checkpoint to read: train it first.")
    if checkpoints.newest() is None:
        raise nothing
    checkpoints.ask_gate()
    # Where the data tell a state's shapes, they are built here: nothing can be while a program is traced.
    parallel.first_process_first(lambda: num_steps(system, config))
    restored = checkpoints.restore(jax.eval_shape(system.init, jax.random.key(config.seed)))
    if restored is None:
        raise nothing
    if workdir.gate.allowed:
        workdir.note_lineage()
    return parallel.to_host(restored[0]), checkpoints.digest(restored[2])


def dry_run(system: System, config: RunConfig, workdir: Workdir) -> int:
    """Prints what a run would be, without compiling, reading a picture or writing a file."""
    parallel.check_batch(config.batch, config.accumulate)
    for name, value in as_dict(config).items():
        say(f"  config.{name} = {value!r}")
    reads = (
        f"Reads: {config.data}{' from ' + config.data_dir if config.data_dir else ''}"
        f"{', networks of ' + config.init_from if config.init_from else ''}; no other picture."
    )
    if system.num_steps:
        say(
            "How many models are trained, in how many steps, only the data tell; they are not read here."
        )
        say(reads)
        say(f"Writes: {workdir.path} and {config.build_dir}.")
        return 0
    shapes = jax.eval_shape(system.init, jax.random.key(config.seed))
    overview = parameter_overview.get_parameter_overview(shapes.params, include_stats=False)
    say(overview)
    state, params = estimate_bytes(shapes), estimate_bytes(shapes.params)
    picture = getattr(config, "resolution", 0) ** 2 * getattr(config, "channels", 0)
    per_device = config.batch // jax.device_count()
    mib = lambda size: f"{size / 2**20:.1f} MiB"
    say(
        f"Memory on each of {jax.device_count()} {jax.default_backend()} device(s): state "
        f"{mib(state)}, gradients {mib(params)}, batch of {per_device}: {mib(per_device * picture)}; "
        "the training set and the activations come on top."
    )
    say(f"Steps: {config.num_steps} of {config.batch} examples.")
    say(reads)
    disk = (config.keep + 1) * state
    say(f"Writes: {workdir.path} (checkpoints up to {mib(disk)}) and {config.build_dir}.")
    return 0


# ---- the small print ------------------------------------------------------------------------


def files_in(path: pathlib.Path, what: str) -> list[str]:
    """Names relative to a folder, or to its own, of what is called a photograph (or a video), readable or
    not."""
    if not path.is_dir():
        return [path.name]
    found = []
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        kind = mimetypes.guess_type(file.name)[0] or ""
        fits = kind.startswith("image/" if what == "photograph" else "video/")
        fits |= what == "photograph" and file.suffix.lower() in PHONE
        if fits and file.is_file() and not any(part.startswith(".") for part in name.parts):
            found.append(name.as_posix())
    return found


def run_evals(
    evals, state, key, workdir: Workdir, about: dict, digest: str = "", prefix: str = ""
) -> dict[str, Result]:
    """Runs evaluations on a host copy of the state; figures go to samples/, results come back."""
    state, results = parallel.to_host(state), {}
    for function in evals.values():
        for name, value in function(state, jax.random.fold_in(key, 2)).items():
            if isinstance(value, Figure):
                workdir.add_figure(prefix + name, value, about)
            elif isinstance(value, Record):
                value.write(workdir.path, digest)
            else:
                results[prefix + name] = value
    return results


def stop_if_diverged(numbers: dict[str, float], config: RunConfig, step: int) -> None:
    """Raises Diverged where the step counts too many skipped updates in a row."""
    in_a_row = numbers.get("skipped/in_a_row", 0)
    if in_a_row >= config.max_skipped:
        counts = {k: int(v) for k, v in numbers.items() if k.startswith("skipped/") and v}
        raise Diverged(
            f"step {step}: {in_a_row:.0f} updates in a row had a loss or gradient that is not a finite "
            f"number and were skipped ({counts}). The last good checkpoint is kept. Lower the learning "
            "rates or raise gamma, then continue in a new workdir with --init_from."
        )


def table(results: dict[str, Result]) -> None:
    for name, result in sorted(results.items()):
        interval = "" if result.low is None else f"  [{result.low:.4g}, {result.high:.4g}]"
        people = "" if result.n is None else f"  n={result.n}"
        say(f"  {name:28s} {result.value:.4g}{interval}{people}")


def write_grid(metrics_log, step: int, figure: Figure) -> None:
    grid, buffer = make_grid(figure.images, figure.columns), io.BytesIO()
    Image.fromarray(grid).save(buffer, format="PNG")
    metrics_log.write_images(step, "samples", buffer.getvalue(), *grid.shape[:2])


def provenance(config: RunConfig, step: int) -> dict[str, str]:
    return {
        "synthetic": "made by a generator, shows no real person",
        "seed": str(config.seed),
        "checkpoint": f"step {step}",
        "data": config.data,
    }


def write_lineage(workdir: Workdir, config: RunConfig, restored, about: dict) -> None:
    """Adds this start to lineage.json: what was read, with which versions, from which parent."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")
    note_lineage(
        workdir,
        start={
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "from_step": 0 if restored is None else int(restored[0].step),
            "data": config.data,
            "data_dir": config.data_dir,
            "init_from": config.init_from,
            "start": about.get("start"),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
            "processes": jax.process_count(),
        },
    )


def note_lineage(workdir: Workdir, **what: dict) -> None:
    """`Workdir.note_lineage` of a run under way, which is not to be lost over a file beside it.

    The checkpoints hold what it says as well.
    """
    try:
        workdir.note_lineage(**what)
    except UserError as error:
        say(f"{error} Training goes on without it.")
