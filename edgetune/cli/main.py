"""The `edgetune` command: parses, runs one command, turns every error into one line and a code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from edgetune.cli import (
    calibrate_command,
    delta_command,
    devices_command,
    doctor_command,
    evaluate_command,
    export_command,
    merge_command,
    plan_command,
    profile_command,
    replan_command,
    train_command,
    verify_command,
)
from edgetune.errors import EdgetuneError, UsageError
from edgetune.runtime.huge_pages import use_huge_pages

_EXIT_CODES = """\
exit codes:
  0  done
  1  an error edgetune has no better word for, or `doctor` found a problem
  2  usage: a command, pattern or option that cannot be understood
  3  data: wrong shape, type or value
  4  device: unknown, or a profile that is not sound
  5  budget: nothing fits, or `profile` measured more than a budget
  6  bundle, delta or checkpoint: missing, damaged, newer, or of something else
  7  export: a model that cannot be captured, lowered or verified
  8  set-up: the installed packages cannot do what is asked
  9  training: the loss or a gradient stopped being a finite number
 10  storage: a file cannot be written
a budget ended the training; a checkpoint was written first, --resume continues:
 20  memory
 21  energy
 22  time
 23  temperature: an hour of pause did not cool it, or it cannot be read any more
 24  power: at rest the device draws more than the cap allows
 25  battery
130  interrupted; a checkpoint was written first
"""

_COMMANDS = (
    doctor_command,
    devices_command,
    calibrate_command,
    plan_command,
    export_command,
    verify_command,
    replan_command,
    profile_command,
    train_command,
    evaluate_command,
    merge_command,
    delta_command,
)

_RUNS_STEPS = {"train", "profile", "calibrate", "evaluate"}


class _Parser(argparse.ArgumentParser):
    """Says what it cannot parse the way every other error is said."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. It raises UsageError for what it cannot parse."""
    parser = _Parser(
        prog="edgetune",
        description="Plan, compile and run sparse fine-tuning on edge devices, inside a memory and "
        "an energy budget, on stock ONNX Runtime.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        options = build_parser().parse_args(arguments)
        code: int | None = options.run(options)  # None is 0: most commands succeed or raise
    except EdgetuneError as error:
        print(f"edgetune: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print(f"edgetune: interrupted: {interrupt}".removesuffix(": "), file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1  # whoever read the output is gone
    return code or 0


def program() -> int:
    """What the shell starts: `main`, with huge pages for the commands that run steps."""
    if set(sys.argv[1:2]) & _RUNS_STEPS:
        use_huge_pages()
    return main()


if __name__ == "__main__":
    sys.exit(program())
