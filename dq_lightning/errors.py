"""A failed command ends with one sentence that says what to write instead."""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

FULL_ERROR = "HYDRA_FULL_ERROR"
# Says to child processes (ranks, sweep jobs) that HYDRA_FULL_ERROR=1 is ours, not the user's.
OURS = "DQ_LIGHTNING_ONE_SENTENCE_ERRORS"
HINT = f"Set {FULL_ERROR}=1 for the full traceback."
MAX_CHARACTERS = 1000


@contextlib.contextmanager
def one_sentence_errors(config_dir: Path, config_name: str) -> Generator[None, None, None]:
    """Around ``hydra.main``: an exception becomes one sentence on stderr and exit code 1.

    Ctrl-C becomes "interrupted" and 130. ``config_dir`` and ``config_name`` name the tree whose
    keys are offered for a misspelt one. With HYDRA_FULL_ERROR=1 set by the user nothing changes.
    """
    if os.environ.get(FULL_ERROR) == "1" and OURS not in os.environ:
        yield
        return
    with _hydra_reraises():
        try:
            yield
        except KeyboardInterrupt:
            _leave("interrupted", 130)
        except SystemExit as leaving:
            # Lightning turns Ctrl-C into SystemExit(1).
            if isinstance(leaving.__context__, KeyboardInterrupt):
                _leave("interrupted", 130)
            raise
        except (_JobError, Exception) as error:
            cause = error.__cause__ if isinstance(error, _JobError) else error
            assert cause is not None
            _leave(f"{sentence(cause, config_dir, config_name)}\n{HINT}", 1)


class _JobError(BaseException):
    """A job's error on its way past Hydra, which prints all overrides before it raises one."""


@contextlib.contextmanager
def past_hydra(of_the_sweep: bool = False) -> Generator[None, None, None]:
    """Around the body of a job: its error reaches ``one_sentence_errors`` without Hydra's line.

    A sweep's job fails as ever: Hydra runs the others first, and its line says which one failed.
    of_the_sweep: around a callback's check of a whole sweep, whose error Hydra would only warn of.
    """
    try:
        yield
    except Exception as error:
        if not of_the_sweep and (
            OURS not in os.environ or HydraConfig.get().mode == RunMode.MULTIRUN
        ):
            raise
        raise _JobError from error


def sentence(error: BaseException, config_dir: Path, config_name: str) -> str:
    """What went wrong, in one line; config mistakes name the nearest valid key or option."""
    cause = error.__cause__
    if isinstance(error, InstantiationException) and cause is not None:
        return _instantiation(error, cause, config_dir, config_name)
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _one_line(f"Cannot read the override '{error.override}': {error.message}")
    if isinstance(error, ConfigCompositionException):
        return _composition(error, config_dir, config_name)
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key or "a key"
        return f"The config key {key} has no value: give one with {key}=..."
    if isinstance(error, OmegaConfBaseException):
        return _config_value(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, (ValueError, OSError, HydraException)) and str(error):
        text = _one_line(str(error))
        return text if text.endswith((".", "?", "!")) else f"{text}."
    return _unexpected(error)


def nearest_keys(
    key: str, config_dir: Path, config_name: str, overrides: Sequence[str] = ()
) -> list[str]:
    """The dotted keys and groups of the composed config that ``key`` may have meant, best first."""
    keys = _valid_keys(config_dir, config_name, overrides)
    close = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
    if close:
        best = _likeness(key, close[0])
        return [match for match in close if _likeness(key, match) > best - 0.05]
    # The last part may be right where the path is missing: bits -> quant.bits.
    tails = {valid.rpartition(".")[2] for valid in keys}
    tail = difflib.get_close_matches(key.rpartition(".")[2], sorted(tails), n=1, cutoff=0.75)
    found = [valid for valid in keys if tail and valid.rpartition(".")[2] == tail[0]]
    return sorted(found, key=lambda valid: (valid.count("."), valid))[:3]


def _valid_keys(config_dir: Path, config_name: str, overrides: Sequence[str]) -> list[str]:
    groups = (path for path in config_dir.rglob("*") if path.is_dir())
    keys = {group.relative_to(config_dir).as_posix() for group in groups}
    # Overrides choose groups and so decide which keys exist; a second mistake or a sweep's list
    # among them must not cost the suggestion.
    for attempt in (list(overrides), []):
        with contextlib.suppress(Exception):
            with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
                keys |= set(_dotted(OmegaConf.to_container(compose(config_name, attempt))))
            break
    return sorted(keys)


def _dotted(node: object, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("_"):  # _target_ and the like: nobody means them
                yield f"{prefix}{key}"
                yield from _dotted(value, f"{prefix}{key}.")


def _composition(error: ConfigCompositionException, config_dir: Path, config_name: str) -> str:
    found = re.search(r"Could not (?:override|delete)[^']*'([^'=]+)", str(error))
    if found is None:
        detail = f": {error.__cause__}".splitlines()[0] if error.__cause__ else ""
        return _one_line(f"{error}{detail}")
    key = found[1].partition("@")[0]
    others = [
        argument
        for argument in sys.argv[1:]
        if "=" in argument
        and not argument.startswith("-")
        and argument.lstrip("+~").partition("=")[0].partition("@")[0] != key
    ]
    close = nearest_keys(key, config_dir, config_name, others)
    if close:
        return f"There is no config key or group '{key}'. Did you mean {' or '.join(close)}?"
    return (
        f"There is no config key or group '{key}'; --cfg job lists every key, "
        f"and +{key}=... adds a new one."
    )


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group or not error.options:
        return _one_line(str(error).partition("\nConfig search path")[0])
    options = sorted(error.options, key=lambda name: -_likeness(option, name))
    text = f"There is no {group}={option}; the options, nearest first: {', '.join(options)}."
    if group == "teacher":
        text += f" A folder or a hub name without a slash is written teacher.path={option}."
    return text


def _instantiation(
    error: InstantiationException, cause: BaseException, config_dir: Path, config_name: str
) -> str:
    """Our own ValueErrors already name the key; for any other cause the config key helps."""
    reason = sentence(cause, config_dir, config_name)
    key = re.search(r"full_key: (\S+)", str(error))
    own = isinstance(cause, (ValueError, OSError, InstantiationException))
    return reason if own or key is None else f"{reason} (while building the config key {key[1]})"


def _config_value(error: OmegaConfBaseException) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{first} (config key {error.full_key})" if error.full_key else first


def _unexpected(error: BaseException) -> str:
    name = type(error).__name__
    text = f"{name}: {_one_line(str(error))}" if str(error) else name
    run_dir = getattr(error, "run_dir", None)  # set by Artifact.running
    return f"{text} (traceback in {run_dir}/status.json)" if run_dir else text


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 4] + " ..."


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


@contextlib.contextmanager
def _hydra_reraises() -> Generator[None, None, None]:
    """Hydra prints its own trimmed text and exits unless HYDRA_FULL_ERROR=1: set it, then undo."""
    before = {name: os.environ.get(name) for name in (FULL_ERROR, OURS)}
    os.environ.update({FULL_ERROR: "1", OURS: "1"})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave(text: str, code: int) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    raise SystemExit(code) from None
