"""Entry point of every command: Hydra composes the configuration; a user's mistake prints a sentence, no traceback.

Exit status:
    0    the work is done
    1    an unexpected error, with a traceback
    2    the request cannot be met; the message says what to do
    75   training stopped by Ctrl-C or another signal, state saved (see StopReason)
    79   training stopped before the wall time ends, state saved
    80   training stopped by `touch RUN/stop`, state saved
    81   a rank that hung ended itself (see Watchdog)
    82   another start owns the run folder, nothing saved (see engine.lease)
    130  interrupted
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lediflow.caches import keep_compiled
from lediflow.config.composition.compose import conf_folder, register_schemas
from lediflow.config.composition.explanations import explain, explain_missing
from lediflow.config.composition.help import FLAGS, help_page
from lediflow.config.composition.idle_options import idle_options
from lediflow.config.composition.literal import MULTIRUN, is_multirun, literal_arguments
from lediflow.config.composition.schema import COMMANDS, TrainCommand
from lediflow.config.composition.sweep import exclusion, separate_jobs
from lediflow.engine.ranks import find_share
from lediflow.errors import BAD_REQUEST, INTERRUPTED, UserError, lasting_fault
from lediflow.flow.solvers import UnsolvedError
from lediflow.nn.neighborhood import RouteUnavailableError

_typed: list[str] = []  # the command line as typed, before conversion to Hydra's grammar


def run_command(
    config_name: str,
    task: Callable[[DictConfig], None],
    register_launchers: Callable[[Path], None],
    *,
    dashed: Mapping[str, str] = MappingProxyType({}),
    flags: Iterable[str] = (),
) -> None:
    """Compose `config_name` with the command line, then run the task.

    `register_launchers` gets the folder of SLURM presets; it is called only if the command line names a launcher.
    Options in `dashed` may also be written as `--name value`, where messages call the value as `dashed` does. Options
    in `flags` may be written as `--name` for true.
    """
    _typed[:] = sys.argv[1:]
    try:
        plain = unflagged(undashed(sys.argv[1:], dashed), flags)
        check_dashes(plain, [*dashed, *flags])
        sys.argv[1:] = hydra_arguments(plain, COMMANDS[config_name])
    except UserError as error:
        _refuse(str(error))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # pass exceptions on instead of printing them
    keep_compiled()
    register_schemas()
    if any("hydra/launcher" in argument for argument in sys.argv[1:]):
        register_launchers(conf_folder() / "slurm")
    task = warning_of_idle_options(config_name, task)
    main = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(
        exiting_with_status(in_own_folder(task) if COMMANDS[config_name] is TrainCommand else task)
    )
    try:
        if {*FLAGS} & {*sys.argv[1:]}:
            print(help_page(config_name, sys.argv[1:]))
            return
        main()
    except UserError as error:  # raised by a launcher
        _refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _refuse(explain(error, config_name))


def hydra_arguments(arguments: list[str], command: type) -> list[str]:
    """Convert the arguments to Hydra's grammar (see literal_arguments); a multirun gets its flag first."""
    written = literal_arguments(arguments, [command])
    if not is_multirun(written):
        return written
    others = [argument for argument in written if argument not in MULTIRUN]
    # argparse accepts overrides only as one contiguous group: the flag goes first
    return [MULTIRUN[-1], *others, *(exclusion(others) if command is TrainCommand else [])]


def undashed(arguments: list[str], names: Mapping[str, str]) -> list[str]:
    """Rewrite `--name value` and `--name=value` as the override `name=value`."""
    known, left = {f"--{name}": name for name in names}, iter(arguments)
    overrides = []
    for argument in left:
        flag, equals, value = argument.partition("=")
        if flag in known:
            value = value if equals else next(left, "")
            if not value:
                raise UserError(f"{flag} has no value; give it one: {flag} {names[known[flag]]}")
            argument = f"{known[flag]}={value}"
        overrides.append(argument)
    return overrides


def unflagged(arguments: list[str], names: Iterable[str]) -> list[str]:
    """Rewrite `--some-name` as the override `some_name=true`, and `--some-name=value` as `some_name=value`."""
    known = {f"--{name.replace('_', '-')}": name for name in names}
    parts = [(argument, *argument.partition("=")) for argument in arguments]
    return [
        f"{known[flag]}={value if equals else 'true'}" if flag in known else argument
        for argument, flag, equals, value in parts
    ]


def check_dashes(arguments: Iterable[str], names: Iterable[str] = ()) -> None:
    """UserError for an argument such as `--size`, or `--size=64`, that neither Hydra nor this command has.

    `names` are the options that this command also takes as flags.
    """
    known = get_args_parser()._option_string_actions
    own = [f"--{name.replace('_', '-')}" for name in names]
    for argument in arguments:
        name, _, value = argument.partition("=")
        if not name.startswith("--") or len(name) == 2 or name in known:
            continue
        if near := get_close_matches(name, [*own, *known], n=1, cutoff=0.8):
            raise UserError(f"{name} is not a flag of this command; did you mean {near[0]}?")
        raise UserError(
            f"{name} is not a flag of this command; options are written key=value, as in "
            f"{name[2:].replace('-', '_')}={value or '...'}, and --help lists them"
        )


def this_command() -> str:
    """The command line of this process, quoted for a shell, with torchrun if that started it."""
    package = sys.modules["__main__"].__spec__
    module = package.name.removesuffix(".__main__") if package else "lediflow.train"
    is_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    launcher = f"torchrun --nproc_per_node={os.environ['LOCAL_WORLD_SIZE']}" if is_torchrun else "python"
    return f"{launcher} {shlex.join(['-m', module, *(_typed or sys.argv[1:])])}"


def exiting_with_status(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap the task so that a user's mistake ends the process with a message and an exit status.

    The wrapper is inside the Hydra job because a launcher would treat an exception of the job as its result.
    """

    @functools.wraps(task)
    def run(config: DictConfig) -> None:
        try:
            task(config)
        except KeyboardInterrupt:
            print("interrupted; the same command continues", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except (UserError, RouteUnavailableError) as error:
            _refuse(str(error))
        except UnsolvedError as error:
            _refuse(
                f"{error}. The options: solver= and steps= of the flow, latent_solver= and latent_steps= of z"
            )
        except MissingMandatoryValue as error:
            _refuse(explain_missing(error))
        except OSError as error:
            if (fault := lasting_fault(error)) is None:
                raise
            _refuse(fault)

    return run


def warning_of_idle_options(
    config_name: str, task: Callable[[DictConfig], None]
) -> Callable[[DictConfig], None]:
    """Wrap the task so that options of the command line without an effect are named first, by one of the processes."""

    @functools.wraps(task)
    def run(config: DictConfig) -> None:
        if find_share().rank == 0:
            for sentence in idle_options(config_name, config, HydraConfig.get().overrides.task):
                print(f"warning: {sentence}", file=sys.stderr, flush=True)
        task(config)

    return run


def in_own_folder(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap the task of a training so that each job of a sweep gets a run folder of its own."""

    @functools.wraps(task)
    def run(config: DictConfig) -> None:
        separate_jobs(config)
        task(config)

    return run


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(BAD_REQUEST)
