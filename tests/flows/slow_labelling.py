"""Makes runs in other processes slow and finely cut, so that tests can catch them in the middle.

`sitecustomize` in a folder put on PYTHONPATH: small shards, small batches, a pause per commit.
"""

from __future__ import annotations

from pathlib import Path

_SITE = """
import importlib.abc, importlib.machinery, sys, time

def _shards(module):
    module.MIN_SHARD_S = {shard_s}

def _persist(module):
    module._BATCH = 3
    commit = module.commit_labellings
    def slowly(*arguments):
        time.sleep({pause_s})
        return commit(*arguments)
    module.commit_labellings = slowly

_CHANGES = {{"tasks.labelling.shards": _shards, "tasks.persist": _persist}}

class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in _CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            _CHANGES[name](module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, _Finder())
"""


def slow_site(folder: Path, shard_s: float = 4.0, pause_s: float = 0.3) -> Path:
    """A folder for PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE.format(shard_s=shard_s, pause_s=pause_s))
    return folder
