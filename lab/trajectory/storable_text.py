"""Text that netCDF can hold: no NUL character, and nothing that UTF-8 has no bytes for.

A model may sample any token, so any character may stand in a response; one that cannot be stored must not cost the run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

_NUL, _NUL_SHOWN = "\x00", "\u2400"


def storable(text: str) -> str:
    """Return `text` with U+2400 for every NUL character and U+FFFD for every lone surrogate."""
    kept = text.replace(_NUL, _NUL_SHOWN)
    try:
        kept.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in kept)
    return kept


def with_storable_text(tree: xr.DataTree) -> xr.DataTree:
    """Return `tree` with every text in it, attributes included, made storable; numbers are not copied."""
    return xr.DataTree.from_dict(
        {path: _dataset(node.to_dataset(inherit=False)) for path, node in tree.subtree_with_keys}
    )


def _dataset(dataset: xr.Dataset) -> xr.Dataset:
    texts = {name: values for name, values in dataset.variables.items() if values.dtype.kind in "OU"}
    changed = {name: values.copy(data=_array(values.values)) for name, values in texts.items()}
    result = dataset.assign_coords({name: changed[name] for name in changed if name in dataset.coords})
    result = result.assign({name: changed[name] for name in changed if name in dataset.data_vars})
    return result.assign_attrs(
        {name: storable(value) for name, value in dataset.attrs.items() if isinstance(value, str)}
    )


def _array(values: np.ndarray) -> np.ndarray:
    """The same array, each different text looked at once."""
    flat: list[Any] = values.ravel().tolist()
    known = {text: storable(text) if isinstance(text, str) else text for text in set(flat)}
    result = np.empty(len(flat), dtype=object)
    result[:] = [known[text] for text in flat]
    return result.reshape(values.shape)
