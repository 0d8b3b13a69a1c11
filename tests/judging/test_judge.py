"""The judging process: limits, replacement after death, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.errors import Interrupted, RunFailed
from lab.interrupt import interruptible
from lab.judging import Judge, JudgeSettings
from lab.judging.judge import tail
from lab.judging.protocol import encode, receive
from lab.settings import Invalid

VERIFIER = textwrap.dedent(
    """
    import ctypes, os, signal, sys

    def warm_up():
        pass

    def verify(answer, completion):
        if completion == "loop":
            while True:
                pass
        if completion == "tower":
            return 10 ** (10 ** 9)
        if completion == "exit":
            os._exit(0)
        if completion == "abort":
            os.abort()
        if completion == "memory":
            return len(bytearray(4 * 2**30))
        if completion == "raise":
            raise RecursionError
        if completion == "unknown":
            return None
        if completion == "print":
            print("\\x01\\x00\\x00\\x00\\x01" * 100, flush=True)
            os.write(1, b"junk")
        if completion == "read":
            return int(sys.stdin.read() == "")
        if completion == "write":
            with open(answer, "w") as file:
                file.write("x" * 100)
        if completion == "end the first process":
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(1)
        return int(completion == answer)
    """
)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Judge]]:
    """Make judges of the verifier above, and close them."""
    (tmp_path / "odd_verifier.py").write_text(VERIFIER)
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[Judge] = []

    def build(seconds: float = 30.0, characters: int = 4096, verifier: str = "odd_verifier") -> Judge:
        made.append(Judge(verifier, JudgeSettings(seconds, 512, characters)))
        return made[-1]

    yield build
    for judge in made:
        judge.close()


def process_of(judge: Judge) -> subprocess.Popen[bytes]:
    assert judge._worker is not None
    return judge._worker._process


def is_gone(group: int) -> bool:
    """Whether no process, zombies included, is left in a process group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_batch_is_judged_in_order_by_one_process(make: Callable[..., Judge]) -> None:
    judge = make()
    pairs = [(str(i % 7), str(i % 3)) for i in range(300)]
    assert judge.judge(pairs) == [int(i % 7 == i % 3) for i in range(300)]
    first = process_of(judge).pid
    assert judge.judge([("a", "a"), ("a", "b")]) == [1, 0]
    assert process_of(judge).pid == first
    assert judge.counts.judged == 302
    assert (judge.counts.timeouts, judge.counts.crashes, judge.counts.unreadable) == (0, 0, 0)


def test_what_takes_too_long_is_not_judged_and_the_rest_is(make: Callable[..., Judge]) -> None:
    judge = make(seconds=0.5)
    texts = ["1", "loop", "2", "tower", "loop", "1"]
    assert judge.judge([("1", text) for text in texts]) == [1, None, 0, None, None, 1]
    assert (judge.counts.timeouts, judge.counts.crashes) == (3, 0)


def test_what_ends_the_process_is_not_judged_and_the_rest_is(make: Callable[..., Judge]) -> None:
    judge = make()
    texts = ["1", "abort", "1", "memory", "2", "end the first process", "1"]
    assert judge.judge([("1", text) for text in texts]) == [1, None, 1, None, 0, None, 1]
    assert (judge.counts.timeouts, judge.counts.crashes) == (0, 3)


def test_an_exception_and_a_verifier_that_cannot_tell_give_none(make: Callable[..., Judge]) -> None:
    judge = make()
    assert judge.judge([("1", "raise"), ("1", "unknown"), ("1", "1")]) == [None, None, 1]
    assert judge.counts.unreadable == 2


def test_standard_streams_are_apart_from_replies(make: Callable[..., Judge]) -> None:
    judge = make()
    assert judge.judge([("2", "print"), ("1", "read"), ("1", "1")]) == [0, 1, 1]


def test_the_judging_process_writes_no_file(make: Callable[..., Judge], tmp_path: Path) -> None:
    target = tmp_path / "written"
    judge = make()
    assert judge.judge([(str(target), "write"), ("1", "1")]) == [None, 1]
    assert not target.exists() or target.stat().st_size == 0


def test_any_text_arrives_as_it_is(make: Callable[..., Judge]) -> None:
    texts = ["", "\x00", "a\x00b\n", "\ud800", "𝟠𝟚", "\u2028" * 1000]
    assert make().judge([(text, text) for text in texts]) == [1] * len(texts)
    assert make().judge([(text, text + "x") for text in texts]) == [0] * len(texts)


def test_a_request_is_read_and_what_follows_it_is_not() -> None:
    out, into = os.pipe()
    os.write(into, encode(1, "a", "b\ud800") + encode(2, "c", "d"))
    os.close(into)
    assert [receive(out), receive(out), receive(out)] == [(1, "a", "b\ud800"), (2, "c", "d"), None]
    os.close(out)


def test_closing_leaves_no_process_and_the_next_judgement_starts_one(make: Callable[..., Judge]) -> None:
    judge = make()
    judge.judge([("1", "1")])
    process = process_of(judge)
    judge.close()
    assert process.returncode == 0
    assert is_gone(process.pid)
    assert judge.judge([("1", "1")]) == [1]
    assert process_of(judge).pid != process.pid


def test_a_judge_that_nobody_holds_ends_its_process(make: Callable[..., Judge], tmp_path: Path) -> None:
    judge = Judge("odd_verifier", JudgeSettings(30.0, 512, 4096))
    judge.judge([("1", "1")])
    process = process_of(judge)
    del judge
    assert process.poll() == 0
    assert is_gone(process.pid)


def test_it_ends_with_the_process_that_started_it(make: Callable[..., Judge], tmp_path: Path) -> None:
    code = (
        "from lab.judging import Judge, JudgeSettings\n"
        "judge = Judge('odd_verifier', JudgeSettings(30.0, 512, 4096))\n"
        "assert judge.judge([('1', '1')]) == [1]\n"
        "print(judge._worker._process.pid)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert is_gone(int(ran.stdout))


def test_an_interruption_in_the_middle_leaves_no_process(make: Callable[..., Judge]) -> None:
    judge = make(seconds=600.0)
    judge.judge([("1", "1")])
    process = process_of(judge)
    timer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -TERM {os.getpid()}"])
    with interruptible(), pytest.raises(Interrupted):
        judge.judge([("1", "loop")])
    timer.wait()
    assert process.returncode is not None
    assert is_gone(process.pid)
    assert judge.judge([("1", "1"), ("1", "2")]) == [1, 0]


def test_copies_start_a_process_of_their_own(make: Callable[..., Judge]) -> None:
    judge = make()
    judge.judge([("1", "1")])
    for other in (copy.deepcopy(judge), pickle.loads(pickle.dumps(judge))):
        assert other.counts.judged == 0
        assert other.judge([("1", "1")]) == [1]
        assert process_of(other).pid != process_of(judge).pid
        other.close()
    assert judge.judge([("1", "1")]) == [1]


def test_a_fork_starts_a_process_of_its_own_and_leaves_the_first_alone(make: Callable[..., Judge]) -> None:
    judge = make()
    judge.judge([("1", "1")])
    first = process_of(judge)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            judged = judge.judge([("1", "1"), ("1", "2")])
            status = 0 if judged == [1, 0] and process_of(judge).pid != first.pid else 2
            judge.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert judge.judge([("1", "1")]) == [1]
    assert process_of(judge).pid == first.pid


def test_a_process_killed_between_judgements_is_replaced(make: Callable[..., Judge]) -> None:
    judge = make()
    judge.judge([("1", "1")])
    os.killpg(process_of(judge).pid, signal.SIGKILL)
    process_of(judge).wait()
    assert judge.judge([("1", "1"), ("1", "1")]) == [None, 1]


def test_a_verifier_that_cannot_be_loaded_says_why(make: Callable[..., Judge]) -> None:
    with pytest.raises(
        RunFailed, match=r"no_such_verifier could not start: ModuleNotFoundError: No module named"
    ):
        make(verifier="no_such_verifier").judge([("1", "1")])


def test_a_process_that_only_ever_dies_is_given_up(make: Callable[..., Judge]) -> None:
    judge = make()
    assert judge.judge([("1", "end the first process")] * 2) == [None, None]
    with pytest.raises(RunFailed, match="died 3 times in a row"):
        judge.judge([("1", "end the first process")])


@pytest.mark.parametrize(
    ("text", "judged"),
    [
        ("short", "short"),
        ("x" * 64, "x" * 64),
        ("1" + "0" * 100 + "82", ""),  # a number is never cut to another
        ("1 " * 100 + "\n82", ("1 " * 100 + "\n82")[-64:].removeprefix("1")),
        ("y" * 100 + r"\boxed{82}", r"\boxed{82}"),
        ("7.5,25e-3" * 20 + " 82", " 82"),
    ],
)
def test_of_a_long_completion_the_end_is_judged(text: str, judged: str) -> None:
    assert tail(text, 64) == judged


def test_truncation_is_counted(make: Callable[..., Judge]) -> None:
    judge = make(characters=64)
    assert judge.judge([(" 1", "x" * 2**20 + " 1"), ("1", "1")]) == [1, 1]
    assert judge.counts.truncated == 1


@pytest.mark.parametrize(
    ("values", "field"),
    [((0.0, 512, 4096), "seconds"), ((1.0, 100, 4096), "memory_mb"), ((1.0, 512, 10), "characters")],
)
def test_impossible_limits_are_refused(values: tuple[float, int, int], field: str) -> None:
    with pytest.raises(Invalid, match=field):
        JudgeSettings(*values)
