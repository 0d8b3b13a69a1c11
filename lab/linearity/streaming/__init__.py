"""Statistics of all the weights of a series of checkpoints, in one pass and bounded memory.

Accumulators (`accumulator.py`) see blocks of a few thousand elements over all checkpoints; `scan` reads the blocks on
a few threads and merges what they found. What pools over elements is a function of the increments' inner products
(`lab.linearity.products`), what is a distribution over elements is a histogram, and what needs whole paths gets those
of a fixed sample. To add a statistic: a file with an accumulator, and its place in the list given to `scan`. The
accumulators that every measurement has are also computed straight from files of plain numbers (`direct.py`), with
the same results and several times as fast.
"""

from lab.linearity.streaming.accumulator import Accumulator, State
from lab.linearity.streaming.block import Block, NotFinite
from lab.linearity.streaming.histogram import BINS, COARSE_BINS, quantiles, share_above, summarise_counts
from lab.linearity.streaming.increment_products import IncrementProducts, equivalent_path, neighbour_cosine
from lab.linearity.streaming.low_rank import RankOneShare, rank_one_share
from lab.linearity.streaming.one_pass import scan
from lab.linearity.streaming.r_squared_counts import RSquaredCounts
from lab.linearity.streaming.sample import Sample
from lab.linearity.streaming.selection import Selection
from lab.linearity.streaming.tensor_statistics import LEVELS, NUMBERS, P_VALUES, TensorStatistics

__all__ = [
    "BINS",
    "COARSE_BINS",
    "LEVELS",
    "NUMBERS",
    "P_VALUES",
    "Accumulator",
    "Block",
    "IncrementProducts",
    "NotFinite",
    "RSquaredCounts",
    "RankOneShare",
    "Sample",
    "Selection",
    "State",
    "TensorStatistics",
    "equivalent_path",
    "neighbour_cosine",
    "quantiles",
    "rank_one_share",
    "scan",
    "share_above",
    "summarise_counts",
]
