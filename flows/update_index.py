"""Flow update-index: keep the indexes of `audioset similar` up to date, on a schedule."""

# No `from __future__ import annotations`: Prefect reads the parameters' types at run time,
# also where it loads this file by its path.

from pathlib import Path

from prefect import flow, get_run_logger
from pydantic import SecretStr

from audioset_core.storage.index_files import all_stored
from flows.asking import open_database
from flows.options import database_url, default_home
from flows.run_options import stated_url
from tasks.update_index import update_index as update_index_task


@flow(name="update-index", persist_result=False)
def update_index(
    home: Path | None = None,
    model: str | None = None,
    moments: bool = False,
    only_if_there: bool = False,
    database: SecretStr | None = None,
) -> int:
    """Add to the indexes what was labelled since; make those that are missing or damaged.

    Returns the number of recordings that were added. Files that cannot be read are left out, and
    named in the log.

    Args:
        home: The folder of labels.db and scores/. Empty: AUDIOSET_HOME.
        model: Only this model's: NAME or NAME@VERSION. Empty: all.
        moments: Also an index of every moment. One that is there is kept up to date in any case.
        only_if_there: Do nothing in a home that has no index, as the nightly deployment does.
        database: The database's URL, or secret:NAME for one that is in a Secret block. Empty:
            AUDIOSET_DB, or SQLite in the home folder.

    Raises:
        UserError, DatabaseUserError: a parameter is off; the message says which and why.
    """
    home = (home or default_home()).absolute()
    url = database_url(home, stated_url(database))
    with open_database(home, url):  # refused in one line before a task begins
        pass
    if only_if_there and not all_stored(home / "index"):
        get_run_logger().info("%s has no index to keep up to date: audioset index build", home)
        return 0
    return sum(each.n_new for each in update_index_task(url, home, model, moments))
