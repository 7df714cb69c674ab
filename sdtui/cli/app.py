"""The root of the command line: which commands there are, and what becomes of errors."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import Abort, TyperException

from sdtui import __version__
from sdtui.cli import output
from sdtui.text import safe_text

COMMANDS: Final[dict[str, str]] = {
    "generate": "Make pictures from a prompt.",
    "branch": "Go on from a step of a job with other parameters.",
    "attach": "Show the running job, or another one, to its end.",
    "jobs": "List or watch the jobs, or say what happened in one.",
    "queue": "Pause, cancel, move, edit or repeat jobs.",
    "view": "Show pictures in the terminal.",
    "meta": "Say how a picture was made.",
    "models": "List the models that can be used without a download.",
    "inspect": "Say what a model is made of.",
    "words": "Show where the words of a prompt act in a picture.",
    "timeline": "Look at the steps of a job, or make a video of them.",
    "explain": "Run the sampling function line by line and say what each line makes.",
    "doctor": "Check this installation and say what to do.",
    "server": "Start, stop or look at the server.",
    "settings": "Show the settings in force.",
    "train": "Train the small model that ships.",
    "bench": "Measure speed, as ratios.",
}
"""Each command and its line in the help; its module is `sdtui.cli.<name>`, with the Typer app in `app`."""
DEFAULT_PROMPT: Final = "a red cat in the desert"


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are called: the help of the root needs none of them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (Typer's signature)
        """The commands' names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002
        """The command, its module imported; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command = cast(TyperCommand | TyperGroup, typer.main.get_command(import_module(f"sdtui.cli.{cmd_name}").app))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The list of commands in the help, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a reader that left ends it without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            output.leave_quietly()
            return output.EXIT_READER_LEFT


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    help="Stable Diffusion in the terminal. Without a command it starts the app.",
    epilog="Exit codes: 0 done, 2 bad input, 3 failed, 130 cancelled, 141 whoever read stdout has left. "
    "Example: sdtui generate 'a red cat in the desert'",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.result(f"sdtui {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001  (eager: the callback has answered)
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
    image_protocol: Annotated[
        str | None,
        typer.Option(
            "--image-protocol", metavar="NAME", help="For the app: auto, kitty, iterm2, sixel, sextant, quadrant, half."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,  # noqa: ARG001  (main reads it)
) -> int | None:
    """Stable Diffusion in the terminal. Without a command it starts the app."""
    if ctx.invoked_subcommand is not None:
        return None
    from sdtui.cli.start import check_protocol, start_app

    check_protocol(image_protocol)
    if sys.stdout.isatty() and sys.stdin.isatty():
        return start_app(image_protocol)
    output.note(f"No terminal for the app: making one image of {DEFAULT_PROMPT!r} instead. See sdtui generate --help.")
    from sdtui.cli.generate import generate

    return generate(prompt=DEFAULT_PROMPT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Every error is one line on stderr; `--debug` adds the traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _wants_debug(given)
    try:
        code = typer.main.get_command(app).main(given, prog_name="sdtui", standalone_mode=False)
    except output.CommandError as error:
        return _fail(error, str(error), error.code, debug, error.detail)
    except TyperException as error:
        return _fail(error, _with_usage_hint(error), output.EXIT_BAD_INPUT, debug)
    except (Abort, KeyboardInterrupt):
        return output.EXIT_CANCELLED
    except BrokenPipeError:
        output.leave_quietly()
        return output.EXIT_READER_LEFT
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EIO and error.filename is None:  # the terminal was hung up
            output.leave_quietly(terminal=True)
            return output.EXIT_READER_LEFT
        text = f"Unexpected {type(error).__name__}: {error} (a mistake in sdtui; --debug shows where)"
        return _fail(error, text, output.EXIT_FAILED, debug)
    return code if isinstance(code, int) else output.EXIT_DONE


def _wants_debug(arguments: Sequence[str]) -> bool:
    """Whether `--debug` stands among the options of the root."""
    for argument in arguments:
        if argument in COMMANDS:
            return False
        if argument == "--debug":
            return True
    return False


def _with_usage_hint(error: TyperException) -> str:
    message, context = error.format_message(), getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message}{'' if message.endswith(('.', '?', '!')) else '.'} See {context.command_path} --help."


def _fail(error: BaseException, message: str, code: int, debug: bool, detail: str = "") -> int:
    if debug:
        import traceback

        sys.stderr.write(safe_text("".join(traceback.format_exception(error)), multiline=True))
        if detail:
            sys.stderr.write(safe_text(detail, multiline=True).rstrip() + "\n")
    output.complain(message)
    return code
