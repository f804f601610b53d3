"""The program ``audioset``: catches signals first, and only then imports what takes a while.

Exit codes: 0 all done, 1 some files failed, 2 the person's mistake (one clear line); 130, 143 and
129 after Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import gc
import signal
import sys

TYPE_CHECKING = False  # `typing` would take as long to import as Python to start
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; every error that is not a defect becomes one line."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # they wait until they are watched
    from flows.stopping import stopper

    # What is imported stays: to look through it for garbage takes an eighth of the time.
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
    except BaseException:  # what ends in good order may meet a terminal or a server that is gone
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
    """The exit code, and what there is to say."""
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
        # A full or failing disk, a file that may not be written: not our defect either.
        return 1, str(error)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None), ""
    return 0, ""


if __name__ == "__main__":
    main()
