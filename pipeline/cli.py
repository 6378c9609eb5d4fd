"""The command `fauve`: finds the verb, prints its errors in one line.

Imports nothing heavy: each verb loads what it needs when it runs.
"""

import atexit
import contextlib
import errno
import importlib
import io
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

import click

FAILED = 2
"""Exit code after bad input, a failure that has a cause, or Ctrl-C."""

COMMANDS = {
    "run": ("pipeline.commands.run:run", "Paint video files into video files."),
    "live": ("pipeline.commands.live:live", "Paint a camera or a stream while it happens."),
    "devices": ("pipeline.commands.devices:devices", "List cameras, screens, displays and MIDI inputs."),
    "obs": ("pipeline.commands.obs:obs", "Show the painted picture in OBS Studio."),
    "farm": ("pipeline.commands.farm:command", "Paint video files on the machines of a Ray cluster."),
    "verify": ("pipeline.commands.verify:verify", "Compare a painted file with its video, frame by frame."),
    "preview": ("pipeline.commands.preview:preview", "Show frames in styles and strengths on one sheet."),
    "styles": ("pipeline.commands.styles:styles", "List the bundled styles and their paintings."),
    "engine": ("pipeline.commands.engine:engine", "Build, list and remove TensorRT's plans."),
    "doctor": ("pipeline.commands.doctor:doctor", "Tell which engines run here, and why others do not."),
    "learn": ("training.cli:learn", "Make a style pack of a painting, in one go."),
    "train": ("training.cli:train", "Train a style from photographs and a painting."),
    "tune": ("training.cli:tune", "Search the weights and rates of a recipe."),
    "inspect": ("training.cli:inspect", "See inside a training: scores, features, fingerprint."),
    "export": ("training.cli:export", "Make a style pack of a training's checkpoint."),
    "evaluate": ("training.cli:evaluate", "Judge a style pack: flicker, style, content, robustness."),
}
"""Where each verb lives and what `fauve --help` says about it."""


LIVE = ("live", "obs")
"""Verbs that run for an evening."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command `name`, imported."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, context: click.Context) -> Any:
        """Run the command; one that makes styles says which extra brings what is not installed."""
        try:
            return super().invoke(context)
        except ModuleNotFoundError as error:
            verb = context.invoked_subcommand
            if verb is None or not COMMANDS[verb][0].startswith("training."):
                raise
            raise click.ClickException(f'fauve {verb} needs pip install "fauve[train]" ({error})') from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


class Once(logging.Filter):
    """Lets each message pass once: a video is opened several times, and would be warned of each time."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is new."""
        message = record.getMessage()
        new = message not in self._said
        self._said.add(message)
        return new


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fauve")
@click.option("-v", "--verbose", is_flag=True, help="Tell what is chosen and why.")
@click.pass_context
def fauve(context: click.Context, verbose: bool) -> None:
    """Turn video into abstract art: every frame is repainted, and holds still."""
    logging.basicConfig(level=logging.WARNING, format="fauve: %(message)s", stream=sys.stderr)
    log = logging.getLogger("fauve")
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    # What happens twice in an evening is told twice.
    if context.invoked_subcommand not in LIVE:
        log.addFilter(Once())


def main() -> None:
    """Run the command line; errors with a cause are one line and exit code 2, others keep their traceback."""
    code: Any = 1

    def leave() -> None:
        # A runtime's thread that comes back to a Python that has ended would abort: "terminate called".
        if any(thread.daemon for thread in threading.enumerate()):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    # Called after what others register from now on.
    atexit.register(leave)
    try:
        _run()
        code = 0
    except SystemExit as exit:
        code = exit.code
        raise


def _run() -> None:
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be UTF-8, nor any text what the terminal shows.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Where fauve was started in the background by a shell, Ctrl-C is ignored unless asked for.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A polite kill leaves no more behind than Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Nor does a closed terminal; where it is ignored, as nohup(1) has it, the run goes on without one.
    if os.name != "nt" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hang_up)
    try:
        with fauve.make_context("fauve", sys.argv[1:]) as context:
            fauve.invoke(context)
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(FAILED)
    except click.ClickException as error:
        _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort) as error:
        _fail(str(error) or "stopped; no output was written")
    except BrokenPipeError:
        # Who read our output has gone.
        _drop_output()
        sys.exit(1)
    except Exception as error:
        if isinstance(error, PermissionError) and error.filename:
            # Whether something is there cannot even be asked in a folder that may not be entered.
            _fail(f"{error.filename}: {error.strerror}")
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            if not error.filename:
                _drop_output()
            _fail(f"{error.filename or 'its output'} cannot be written: {error.strerror}")
        if not _has_cause(error):
            raise
        _fail(str(error))


def _drop_output() -> None:
    """Let what could not be written go nowhere: Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hang_up(number: int, frame: Any) -> None:
    """Stop as at Ctrl-C, but once: a shell that ends tells its jobs, and the kernel tells them again."""
    signal.signal(number, signal.SIG_IGN)
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            # What is said to a terminal that is gone would fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    raise KeyboardInterrupt


def _replace_closed_streams() -> None:
    """Let what is said go nowhere where the caller has closed its stream, which Python takes for an error."""
    # Files that are opened later would get its number, and with it what libraries print. For reading only: a
    # film that is to go to a closed standard output must fail.
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.write(number, b"")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open to the end)


def _has_cause(error: Exception) -> bool:
    from engines.errors import EngineError, StyleError
    from pipeline.errors import SinkError, SourceError

    return isinstance(error, SourceError | SinkError | StyleError | EngineError)


def _fail(message: str) -> None:
    if "--json" in sys.argv:
        click.echo(json.dumps({"event": "error", "message": message}))
    click.echo(f"fauve: {message}", err=True)
    sys.exit(FAILED)


if __name__ == "__main__":
    main()
