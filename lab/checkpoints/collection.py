"""What a pass over checkpoints has found so far: tensor by tensor, and pooled over layers and module kinds.

Everything is arrays, so that an interrupted pass is stored whole in one small file and goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lab.errors import BadInput
from lab.linearity.streaming import BINS, Selection, State
from lab.trajectory.module_labels import module_labels
from lab.trajectory.parts import Arrays, read_arrays, write_arrays

RUN = "run"
"""Name of the sample that stands for the whole model, and of the group of all tensors."""

_STACKED = ("tally", "quantiles", "coarse", "numbers", "p_values", "products")


def group_names(tensor: str) -> tuple[str, ...]:
    """Return the groups that a tensor counts in: all, its layer, its module kind."""
    layer, kind = module_labels(tensor)
    return (RUN, f"layer/{layer}", f"kind/{kind}")


class Collection:
    """Results of tensors, in the order in which they were seen.

    Attributes:
        names: of the tensors.
        sizes: elements of each that were looked at.
        tensors: one list of arrays for each of `tally`, `quantiles`, `coarse`, `numbers`, `p_values`, `products`.
        samples: float32 [checkpoint, element] of each tensor, of the sample that stands for the model.
        groups: `counts` int64 [bin], `tally` int64 [3] and `products` float64 [interval, interval] of each group.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.tensors: dict[str, list[np.ndarray]] = {name: [] for name in _STACKED}
        self.samples: list[np.ndarray] = []
        self.groups: dict[str, State] = {}

    def add(self, selection: Selection, result: State) -> None:
        """Add what `lab.linearity.streaming.TensorStatistics` made of one tensor."""
        self.names.append(selection.name)
        self.sizes.append(selection.count)
        for name, arrays in self.tensors.items():
            arrays.append(result[name])
        self.samples.append(result[RUN])
        for group in group_names(selection.name):
            sums = {key: result[key] for key in ("counts", "tally", "products")}
            known = self.groups.get(group)
            self.groups[group] = (
                {key: array.copy() for key, array in sums.items()}
                if known is None
                else {key: known[key] + array for key, array in sums.items()}
            )

    def write(self, path: Path, fingerprint: str) -> None:
        """Store all of it, atomically; `fingerprint` says what it was measured of and how."""
        arrays: Arrays = {
            "fingerprint": np.array(fingerprint),
            "names": np.array(self.names),
            "sizes": np.array(self.sizes, np.int64),
            "sample": np.concatenate(self.samples, axis=1),
            "sample_sizes": np.array([sample.shape[1] for sample in self.samples], np.int64),
            "groups": np.array(list(self.groups)),
        }
        arrays |= {f"tensor/{name}": np.stack(parts) for name, parts in self.tensors.items()}
        for key in ("tally", "products"):
            arrays[f"group/{key}"] = np.stack([sums[key] for sums in self.groups.values()])
        places, counts = zip(*(_sparse(sums["counts"]) for sums in self.groups.values()), strict=True)
        arrays["group/places"], arrays["group/counts"] = np.concatenate(places), np.concatenate(counts)
        arrays["group/lengths"] = np.array([len(each) for each in places], np.int64)
        write_arrays(path, arrays)

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> Collection:
        """Return what `write` stored.

        Raises:
            BadInput: the file is damaged, or was made of other checkpoints or otherwise.
        """
        arrays = read_arrays(path)
        if str(arrays.get("fingerprint")) != fingerprint:
            raise BadInput(
                f"{path}: the checkpoints, or the lab, have changed since this run was interrupted; "
                "start anew with resume=false"
            )
        found = cls()
        found.names = [str(name) for name in arrays["names"]]
        found.sizes = [int(size) for size in arrays["sizes"]]
        found.tensors = {name: list(arrays[f"tensor/{name}"]) for name in _STACKED}
        found.samples = np.split(arrays["sample"], np.cumsum(arrays["sample_sizes"])[:-1], axis=1)
        ends = np.cumsum(arrays["group/lengths"])
        for index, name in enumerate(arrays["groups"]):
            span = slice(int(ends[index] - arrays["group/lengths"][index]), int(ends[index]))
            counts = np.zeros(BINS, np.int64)
            counts[arrays["group/places"][span]] = arrays["group/counts"][span]
            found.groups[str(name)] = {
                "counts": counts,
                "tally": arrays["group/tally"][index],
                "products": arrays["group/products"][index],
            }
        return found


def groups_of(groups: Mapping[str, State], prefix: str) -> dict[str, State]:
    """Return the groups whose name starts with `prefix`, without it: layers by number, kinds by name."""
    found = {name.removeprefix(prefix): sums for name, sums in groups.items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda item: (_number(item[0]), item[0])))


def _number(name: str) -> int:
    return int(name) if name.lstrip("-").isdecimal() else 0


def _sparse(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = np.flatnonzero(counts)
    return places, counts[places]
