"""The program ``audioset``: it first catches signals, then imports what takes a while.

Exit codes: 0 all done, 1 some files failed, 2 a mistake of the user (told in one line); 130, 143
and 129 after Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import gc
import signal
import sys

TYPE_CHECKING = False  # `typing` would take as long to import as Python to start
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; an expected error is told in one line."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until they are handled
    from flows.stopping import stopper

    # Imported modules stay: the search for garbage among them takes an eighth of the time.
    gc.set_threshold(200_000, 20, 20)
    stop = stopper()
    stop.watch()
    stop.begin_at_once()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        import flows.cli.main  # noqa: F401 (takes a while)

        stop.end_at_once()
        code, message = _run()
        stop.begin_at_once()
    except BaseException:  # while it ends, the terminal or the server may be gone already
        if stop.code is None:
            raise
        code, message = stop.code, ""
    if stop.code is not None:
        code = stop.code
        stop.tell()
    elif message:
        from flows.terminal import note

        note(f"audioset: {' '.join(message.split())}")
    sys.exit(code)


def _run() -> tuple[int, str]:
    """The exit code, and the message to print."""
    from audioset_core.errors import AudiosetError, UserError
    from db.errors import DatabaseError, DatabaseUserError
    from flows.cli.main import app

    try:
        app()
    except (UserError, DatabaseUserError) as error:
        return 2, str(error)
    except (AudiosetError, DatabaseError) as error:
        return 1, str(error)
    except OSError as error:
        # A full or failing disk, or a file that may not be written: no defect of this program.
        return 1, str(error)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None), ""
    return 0, ""


if __name__ == "__main__":
    main()
