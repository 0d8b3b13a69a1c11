"""The pieces of work of `lab check`, one for each law, over processes; finished ones are kept and not done again."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

from lab.checks.rows import Check, NullRow
from lab.checks.run import check_law
from lab.checks.store import is_kept, write_rows
from lab.errors import LabError, RunFailed

NULLS = "nulls"
Rows = list[Check] | list[NullRow]
_How = tuple[int, float, int | None]  # Seed, effort and most points.


@dataclass(frozen=True)
class Piece:
    """A law of a prediction, or with neither the table of nulls."""

    prediction: str = ""
    law: str = ""

    @property
    def name(self) -> str:
        """`prediction.law`, or `nulls`."""
        return f"{self.prediction}.{self.law}" if self.prediction else NULLS


def pieces_of(laws: Sequence[tuple[str, str]], nulls: bool) -> list[Piece]:
    """One piece for each law; the table of nulls comes first, since it takes longest."""
    has_nulls = nulls and importlib.util.find_spec(f"lab.checks.{NULLS}") is not None
    return [*([Piece()] if has_nulls else []), *(Piece(*law) for law in laws)]


def carry_out(
    pieces: Sequence[Piece],
    directory: Path,
    seed: int,
    effort: float,
    most_points: int | None,
    workers: int,
    advance: Callable[[str], None],
) -> None:
    """Do what has not been done, and keep each result as soon as it is there.

    Args:
        pieces: of work.
        directory: the run.
        seed: root of all randomness.
        effort: factor on the samples.
        most_points: of a law; None for all.
        workers: processes; with one, everything happens in this one.
        advance: called with the name of each piece once it is kept.

    Raises:
        RunFailed: a simulation raised an error, or a process died; the message names the law.
    """
    waiting = [piece for piece in pieces if not is_kept(directory, piece.name)]
    for piece in pieces:
        if piece not in waiting:
            advance(piece.name)
    how = (seed, effort, most_points)
    results = _here(waiting, how) if workers == 1 else _spread(waiting, how, workers)
    for piece, rows, seconds in results:
        write_rows(directory, piece.name, rows, seconds)
        advance(piece.name)


def do(piece: Piece, seed: int, effort: float, most_points: int | None) -> tuple[Rows, float]:
    """Rows of one piece, and the processor seconds that it took: comparable however busy the machine is.

    Raises:
        RunFailed: as `carry_out`.
    """
    started = time.process_time()
    try:
        rows: Rows
        if piece.prediction:
            rows = check_law(piece.prediction, piece.law, seed, effort, most_points)
        else:
            rows = importlib.import_module(f"lab.checks.{NULLS}").null_table(seed, effort)
    except (LabError, MemoryError, OSError):
        raise
    except Exception as error:
        raise RunFailed(f"{piece.name}: {type(error).__name__}: {error}") from error
    return rows, time.process_time() - started


def _here(pieces: Sequence[Piece], how: _How) -> Iterator[tuple[Piece, Rows, float]]:
    for piece in pieces:
        yield piece, *do(piece, *how)


def _spread(pieces: Sequence[Piece], how: _How, workers: int) -> Iterator[tuple[Piece, Rows, float]]:
    others = set(active_children())
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_signals)
    complete = False
    try:
        futures = {executor.submit(do, piece, *how): piece for piece in pieces}
        for future in as_completed(futures):
            yield futures[future], *future.result()
        complete = True
    except BrokenProcessPool as error:
        raise RunFailed(
            f"a worker process died ({error}); lower workers or effort if memory is short"
        ) from None
    finally:
        if not complete:  # stopped or failed: what is still being simulated would only keep a person waiting
            for worker in set(active_children()) - others:
                worker.terminate()
        executor.shutdown(wait=True, cancel_futures=True)


def _leave_signals() -> None:
    """Ctrl-C reaches every process of the terminal: the first one reacts to it, and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
