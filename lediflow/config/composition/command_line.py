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

import difflib
import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from lediflow.caches import keep_compiled
from lediflow.config.composition.compose import composed, conf_folder, register_schemas
from lediflow.config.composition.literal import (
    MULTIRUN,
    OVERRIDE,
    is_multirun,
    literal_arguments,
    shell_override,
)
from lediflow.config.composition.schema import COMMANDS, TrainCommand
from lediflow.config.composition.sweep import exclusion, separate_jobs
from lediflow.errors import BAD_REQUEST, INTERRUPTED, UserError, lasting_fault
from lediflow.nn.neighborhood import RouteUnavailableError

REFERENCE_HINT = "${...} refers to another option; for a name with these characters write \\${"
REFERENCE_FAULTS = (InterpolationResolutionError, GrammarParseError)
_typed: list[str] = []  # the command line as typed, before conversion to Hydra's grammar

_SCHEMAS = re.compile(r"\n\t\S+_schema\b")  # schemas in Hydra's lists of choices, which users do not choose
_INTERNALS = re.compile(r"\n\s+full_key: (\S+)(?:\n\s+(?:reference|object)_type=.*)*")  # added by OmegaConf
_NO_LIST = re.compile(r"merging override ([^=\s]+)=(.*)\n.* is not a ListConfig")
_OVERRIDE = re.compile(r"Could not override '([^']+)'")
_GROUP = re.compile(r"Could not find '[^']+/([^']+)'\s+Available options in '[^']+':((?:\s*\n\t\S+)+)")


def run_command(
    config_name: str,
    task: Callable[[DictConfig], None],
    register_launchers: Callable[[Path], None],
    *,
    dashed: Iterable[str] = (),
    flags: Iterable[str] = (),
) -> None:
    """Compose `config_name` with the command line, then run the task.

    `register_launchers` gets the folder of SLURM presets; it is called only if the command line names a launcher.
    Options in `dashed` may also be written as `--name value`. Options in `flags` may be written as `--name` for true.
    """
    _typed[:] = sys.argv[1:]
    try:
        plain = unflagged(undashed(sys.argv[1:], dashed), flags)
        sys.argv[1:] = hydra_arguments(plain, COMMANDS[config_name])
    except UserError as error:
        _refuse(str(error))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # pass exceptions on instead of printing them
    keep_compiled()
    register_schemas()
    if any("hydra/launcher" in argument for argument in sys.argv[1:]):
        register_launchers(conf_folder() / "slurm")
    main = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(
        exiting_with_status(in_own_folder(task) if COMMANDS[config_name] is TrainCommand else task)
    )
    try:
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


def undashed(arguments: list[str], names: Iterable[str]) -> list[str]:
    """Rewrite `--name value` and `--name=value` as the override `name=value`."""
    known, left = {f"--{name}": name for name in names}, iter(arguments)
    overrides = []
    for argument in left:
        flag, equals, value = argument.partition("=")
        if flag in known:
            argument = f"{known[flag]}={value if equals else next(left, '')}"
        overrides.append(argument)
    return overrides


def unflagged(arguments: list[str], names: Iterable[str]) -> list[str]:
    """Rewrite `--some-name` as the override `some_name=true`."""
    known = {f"--{name.replace('_', '-')}": f"{name}=true" for name in names}
    return [known.get(argument, argument) for argument in arguments]


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
        except MissingMandatoryValue as error:
            _refuse(_explain_missing(error))
        except OSError as error:
            if (fault := lasting_fault(error)) is None:
                raise
            _refuse(fault)

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


def _explain_missing(error: MissingMandatoryValue) -> str:
    key = getattr(error, "full_key", None) or str(error)
    return f"{key} has no value; give one on the command line: {key}=..."


def explain(error: Exception, config_name: str) -> str:
    """Hydra's message, with the nearest valid names if a name was mistyped."""
    if isinstance(error, OverrideParseException):
        return explain_unreadable(error.override)
    reference = next(
        (fault for fault in (error, error.__cause__) if isinstance(fault, REFERENCE_FAULTS)), None
    )
    if reference is not None:
        key = getattr(reference, "full_key", None)
        return f"{f'{key}: ' if key else ''}{str(reference).partition(chr(10))[0]}; {REFERENCE_HINT}"
    message = str(error) if error.__cause__ is None else f"{error}\n{error.__cause__}"
    message = _SCHEMAS.sub("", message.partition("\nConfig search path:")[0])
    message = _INTERNALS.sub(r" (option \1)", message)
    if match := _NO_LIST.search(message):
        return f"{match[1]}={match[2]} is not a list; write {shlex.quote(f'{match[1]}=[{match[2]}]')}"
    if match := _OVERRIDE.search(message):
        asked, known = match[1], option_names(config_name)
    elif match := _GROUP.search(message):
        asked, known = match[1], match[2].split()
    else:
        return message
    nearest = difflib.get_close_matches(asked, known, n=3, cutoff=0.5)
    return f"{message}\nnearest valid names: {', '.join(nearest)}" if nearest else message


def explain_unreadable(argument: str) -> str:
    """The message for an argument that Hydra cannot parse, with the corrected argument quoted for a shell."""
    if (found := OVERRIDE.fullmatch(argument)) is None:
        return f"{shlex.quote(argument)} is not an option; options are written key=value, --help lists them"
    key, value = f"{found['sign']}{found['key']}", found["value"]
    if value[:1] in ("[", "{"):
        example = {"[": f'{key}=["a b",c]', "{": f'{key}={{a:"b c"}}'}[value[0]]
        return f"{argument} cannot be read as a list or mapping; write it as in {shlex.quote(example)}"
    return f"{argument} cannot be read; a value in quotes is taken literally: {shell_override(key, value)}"


def option_names(config_name: str) -> list[str]:
    """Every dotted option of a command with its default groups."""
    return list(_dotted(OmegaConf.to_container(composed(config_name), resolve=False)))


def _dotted(node: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
