"""Runs one experiment: python launch.py --experiment=cleftgan

--experiment=NAME[:SCALE]  what to run; the scale is demo (default), paper or tiny
--mode=MODE                train (default), evaluate, sample, export or report
--workdir=DIR              where the run's files go (default runs/NAME-SCALE); a run found there
                           is continued
--data_dir=DIR             your folder of photographs, for data sets that read one
--purpose=CODE             what the people must have consented to: a code of the Data Use Ontology
                           (HMB, "GRU NPU") or a word of the manifest's (default research)
--ledger=DIR               the consent ledger that says so (default DATA_DIR/consent, if it is there)
--init_from=FILE           start from the networks of a workdir, a checkpoint, a pack, an export, a
                           StyleGAN3 snapshot or a shipped base (its name); "none": random weights
--config.FIELD=VALUE       change any field of the config
--allow_withdrawn          use a checkpoint that owes to people who have withdrawn; it is recorded
--dry_run                  print what would be run, read and written, and stop
--num=N, --seed=S          for --mode=sample: how many pictures (64), of which seed (0)
--images=DIR               for --mode=evaluate: judge these pictures instead of a checkpoint
--show=NAME, --label=NAME  for --mode=sample: instead of single pictures a system's other shows, for
                           a style generator mixing, interpolation, translation or rotation; and one
                           class of a conditional generator
--input=FILE_OR_FOLDER     for --mode=sample: what the network makes of your photographs, where a
                           system reads any; pictures, a table and a page go into the workdir
--coordinator=HOST:PORT --process_id=I --process_count=N
                           join a run over several hosts; TPU pods and Slurm need none of these
"""

import errno
import os
import shlex
import sys

# The first thing that happens: from here on SIGTERM is answered, even while JAX is being imported.
from jaxface.preemption import Preemption

MODES = ("train", "evaluate", "sample", "export", "report")
SCALES = ("demo", "paper", "tiny")


def experiments() -> dict[str, str]:
    """Names of the files in experiments/ with the first line of what they say of themselves."""
    import ast
    import pathlib

    folder = pathlib.Path(__file__).parent / "experiments"
    return {
        file.stem: (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]
        for file in sorted(folder.glob("*.py"))
        if not file.stem.startswith("_")
    }


def usage() -> str:
    lines = [f"  {name:18s} {line}" for name, line in experiments().items()]
    return (
        f"{__doc__}\nExperiments:\n" + "\n".join(lines) + "\n\nFields of a config: "
        "python launch.py --experiment=NAME --dry_run"
    )


def define_flags():
    from absl import flags

    values = flags.FlagValues()
    texts = {
        "experiment": (None, "NAME or NAME:SCALE"),
        "mode": ("train", ", ".join(MODES)),
        "workdir": (None, "folder of the run"),
        "data_dir": ("", "a user's folder of photographs"),
        "purpose": (None, "what the people must have consented to"),
        "ledger": (None, "folder of a consent ledger"),
        "init_from": (None, "workdir, checkpoint, .npz, shipped base, or none"),
        "images": ("", "folder of pictures to evaluate"),
        "show": ("", "what to sample instead of single pictures"),
        "label": ("", "class to sample from"),
        "input": ("", "photograph or folder of photographs to read"),
        "coordinator": (None, "HOST:PORT of process 0"),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "print what would be run and stop", flag_values=values)
    text = "use checkpoints that owe to people who have withdrawn"
    flags.DEFINE_bool("allow_withdrawn", False, text, flag_values=values)
    flags.DEFINE_integer("num", None, "pictures to sample", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "seed of --mode=sample", flag_values=values)
    flags.DEFINE_integer("process_id", None, "number of this process", flag_values=values)
    flags.DEFINE_integer("process_count", None, "number of processes", flag_values=values)
    return values


def read_config(module, scale: str, stored: dict, overrides: list[str]):
    """The scale's config, the one a workdir has stored, the command line's: the later one wins."""
    import dataclasses

    from absl import flags
    from ml_collections import config_flags

    from jaxface.errors import UserError, nearest

    config = dataclasses.replace(module.SCALES[scale])
    names = [field.name for field in dataclasses.fields(config)]
    config = dataclasses.replace(config, **{k: v for k, v in stored.items() if k in names})
    for argument in overrides:
        name, equals, _ = argument.lstrip("-").partition("=")
        field = name.removeprefix("config.")
        if not name.startswith("config.") or field not in names:
            known = [f"config.{n}" for n in names] + ["experiment", "mode", "workdir", "data_dir"]
            raise UserError(f"--{name} is no flag of this program.{nearest(name, known)}")
        if not equals:
            raise UserError(f"--{name} needs a value: --{name}=VALUE.")
    values, argv = flags.FlagValues(), ["launch.py", *overrides]
    try:
        holder = config_flags.DEFINE_config_dataclass(
            "config", config, flag_values=values, sys_argv=argv
        )
        values(argv)
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    return holder.value


def check_input(args) -> None:
    """Raises UserError where --input has no meaning or is not there, before anything is imported."""
    from jaxface.errors import UserError

    if args.mode != "sample":
        raise UserError(f"--input has no meaning with --mode={args.mode}: use --mode=sample.")
    for name in ("show", "label", "num"):
        if getattr(args, name):
            raise UserError(f"--{name} has no meaning beside --input: leave it out.")
    if not os.path.exists(args.input):
        raise UserError(
            f"--input={args.input} is not there: name a photograph or a folder of them."
        )


def join_processes(args) -> None:
    """Starts jax.distributed where this is one process of several."""
    from jaxface import parallel

    on_pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    on_slurm = int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if args.coordinator:
        parallel.initialize(args.coordinator, args.process_id, args.process_count)
    elif on_pod or on_slurm:
        parallel.initialize(None, None, None)


def main(argv: list[str], preemption: Preemption) -> int:
    if len(argv) == 1 or any(a in ("--help", "-h", "-help") for a in argv[1:]):
        print(usage())
        return 0

    from absl import flags

    from jaxface.errors import UserError, nearest

    args = define_flags()
    try:
        rest = args(argv, known_only=True)[1:]
    except flags.Error as error:
        raise UserError(str(error)) from None
    if args.mode not in MODES:
        raise UserError(f"--mode={args.mode}: no such mode.{nearest(args.mode, MODES)}")
    if args.input:
        check_input(args)
    stored = {}
    if args.mode != "train" and args.workdir:
        from jaxface.workdir import Workdir

        # A run is judged and sampled with the config it was trained with.
        stored = Workdir(args.workdir).read_config()
        run = stored.pop("run", {})
        args.experiment = args.experiment or f"{run.get('experiment')}:{run.get('scale')}"
    if not args.experiment:
        raise UserError(f"--experiment is missing.{nearest('', experiments())}")
    name, _, scale = args.experiment.partition(":")
    scale = scale or "demo"
    if name not in experiments():
        raise UserError(f"--experiment={name}: no such experiment.{nearest(name, experiments())}")
    if scale not in SCALES:
        raise UserError(f"--experiment={name}:{scale}: no such scale.{nearest(scale, SCALES)}")

    import gc
    import importlib
    import pathlib

    workdir_path = pathlib.Path(args.workdir or f"runs/{name}-{scale}")
    if args.mode == "report":
        from jaxface.reports import report
        from jaxface.workdir import Workdir

        if rest:
            raise UserError(f"{rest[0]} has no meaning with --mode=report.")
        Workdir(workdir_path).read_config()
        print(f"Report: {report.write(workdir_path)}")
        return 0

    with preemption.phase("import"):
        gc.disable()  # nothing of what is imported is garbage
        module = importlib.import_module(f"experiments.{name}")
        from jaxface import cache, lineage, parallel, start, terminal, train
        from jaxface.data.consent import in_folder
        from jaxface.ops import here
        from jaxface.system import Asked
        from jaxface.workdir import Workdir

        config = read_config(module, scale, stored, rest)
        cache.collect_seldom()
        cache.use_compilation_cache()
        if config.quick:
            cache.compile_quickly()
        parallel.keep_memory()
        join_processes(args)
        import jax

    if args.data_dir:
        config.data_dir = args.data_dir
    for field in ("purpose", "ledger"):
        if getattr(args, field) is not None:
            if not hasattr(config, field):
                raise UserError(f"--{field} has no meaning with --experiment={name}: leave it out.")
            setattr(config, field, getattr(args, field))
    if getattr(config, "ledger", None) == "":
        config.ledger = in_folder(config.data_dir)  # so that config.json and lineage.json name it
    elif getattr(config, "ledger", None):
        # Checkpoints name it, and they are read from other working directories too.
        config.ledger = os.path.abspath(config.ledger)
    if args.init_from is not None:
        config.init_from = "" if args.init_from == "none" else args.init_from
    if not config.build_dir:
        # A user's faces stay with the run; phantoms are shared by all runs of a user.
        local = workdir_path / "data" if config.data_dir else cache.folder() / "data"
        config.build_dir = str(local)
    about = {
        "experiment": name,
        "scale": scale,
        "title": experiments()[name],
        "command": shlex.join(["python", *argv]),
    }
    ledger = getattr(config, "ledger", "")
    gate = lineage.Gate(ledger, args.allow_withdrawn, terminal.say)
    networks, about["start"] = start.read(config.init_from, gate=gate)
    system = module.build(config, networks)
    workdir = Workdir(workdir_path, writes=jax.process_index() == 0, gate=gate)
    with here.in_few_ops(config.quick):
        if args.dry_run:
            return train.dry_run(system, config, workdir)
        if args.mode == "evaluate":
            return train.evaluate(system, config, workdir, preemption, args.images)
        if args.mode == "export":
            return train.export(system, config, workdir)
        if args.input:
            return train.read_input(system, config, workdir, pathlib.Path(args.input))
        if args.mode == "sample":
            asked = Asked(args.show, args.seed, args.num, args.label)
            return train.sample(system, config, workdir, asked)
        status = train.train(system, config, workdir, preemption, about)
        if status == 0:
            next_steps = getattr(module, "NEXT", {}).get(scale)
            if next_steps:
                print(next_steps.format(workdir=workdir_path))
        return status


def guarded(argv: list[str], preemption) -> int:
    """`main`, with what a user can cause told in one message instead of a traceback."""
    from jaxface.errors import UserError

    try:
        return main(argv, preemption)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has gone, `head` for example
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"\nerror: the disk is full ({error.filename or error}). The last good checkpoint stays: "
            "free some space, and the same command continues the run.",
            file=sys.stderr,
        )
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "Diverged":
            raise
        print(f"\nerror: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    with Preemption() as answers_sigterm:
        sys.exit(guarded(sys.argv, answers_sigterm))
