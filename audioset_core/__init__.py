"""AudioSet labelling without a workflow engine or a database: audio, models, ontology.

Importing this package loads nothing heavy; import the module that you need. `label_dataset`
is the one exception: it is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audioset_core.datasets.label_dataset import label_dataset

__all__ = ["label_dataset"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from audioset_core.datasets import label_dataset as dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
