"""The `songgen` command: sing, batch, convert, download, encode, decode, info, check-model.

Parsing imports nothing heavy; each command is a module with `run(args) -> exit code`, loaded when chosen.
Exit codes: 0 done, 1 a mistake that the user can mend, 2 a wrong call, 130 stopped by Ctrl-C.
"""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ..errors import Cancelled, UserError
from .options import Interrupted, UsageError, build_parser

USER_ERROR, USAGE_ERROR, INTERRUPTED = 1, 2, 130
STOPPED = "stopped; nothing was written"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Anything that is not the user's mistake is raised."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        args = build_parser().parse_args(arguments)
        return int(import_module(f".{args.command}", __name__).run(args))
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except UsageError as error:
        return _fail(str(error), USAGE_ERROR, as_json)
    except UserError as error:
        return _fail(str(error), USER_ERROR, as_json)
    except (KeyboardInterrupt, Cancelled):
        return _fail(STOPPED, INTERRUPTED, as_json)
    except Interrupted as stop:
        return _fail(str(stop), INTERRUPTED, as_json)
    except OSError as error:
        return _fail(_advice(error), USER_ERROR, as_json)
    except MemoryError as error:
        what = str(error) or "not enough memory"
        return _fail(f"{what}; close other programs or use a smaller model", USER_ERROR, as_json)


def _fail(message: str, code: int, as_json: bool) -> int:
    """One line on stderr, and the same as the result object where one was asked for."""
    label = "" if code == INTERRUPTED else "error: "
    print(f"songgen: {label}{message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message}, ensure_ascii=False))
    return code


def _advice(error: OSError) -> str:
    """What the operating system refused, with the file and a remedy."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return f"{reason}; check free space and permissions"
    return f"{Path(str(error.filename))}: {reason}; check the path, free space and permissions"
