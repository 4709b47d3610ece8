import itertools
import threading
import time

import pytest

from rainmer.background import End, consume, interleave, ordered_map, prefetch
from rainmer.errors import ImageError


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def failing_after(items):
    yield from items
    raise ImageError("broke off")


def test_prefetch_reads_ahead_but_not_further():
    read = []
    items = prefetch((read.append(i) or i for i in range(100)), ahead=3)

    assert next(items) == 0
    wait_until(lambda: len(read) == 5)  # one given, three waiting, one in hand
    time.sleep(0.05)

    assert len(read) == 5
    items.close()


def test_errors_arrive_after_the_items_before_them():
    items = prefetch(failing_after([1, 2]), ahead=8)

    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ImageError, match="broke off"):
        next(items)


def test_closing_ends_the_threads_of_all_stages_and_closes_their_sources():
    closed = []

    def decode():
        try:
            yield from range(10**9)
        finally:
            closed.append(threading.current_thread().name)

    before = threading.active_count()
    items = prefetch((2 * item for item in prefetch(decode(), ahead=2)), ahead=2)
    assert next(items) == 0
    assert threading.active_count() == before + 2
    items.close()

    assert threading.active_count() == before
    assert closed == ["prefetch"]


def test_stages_run_beside_each_other():
    meeting = threading.Barrier(2, timeout=5)

    def decode():
        for i in range(3):
            if i == 1:
                meeting.wait()  # passes only while the first item is in use
            yield i

    items = prefetch(decode(), ahead=1)
    assert next(items) == 0
    meeting.wait()

    assert list(items) == [1, 2]


def test_what_is_consumed_is_used_in_order_in_a_thread_while_items_are_made():
    meeting = threading.Barrier(2, timeout=5)
    used = []

    def items():
        yield 0
        meeting.wait()  # passes only while the first item is in use
        yield from (1, 2)

    def use(item):
        if item == 0:
            meeting.wait()
        used.append((item, threading.current_thread().name))

    consume(items(), use, ahead=1)

    assert used == [(0, "consume"), (1, "consume"), (2, "consume")]


@pytest.mark.parametrize("error", [ImageError("broke off"), KeyboardInterrupt()])
def test_what_came_before_an_error_is_used(error):
    def items():
        yield from range(5)
        raise error

    used = []
    with pytest.raises(type(error)):
        consume(items(), used.append, ahead=8)

    assert used == list(range(5))


def test_an_error_of_the_use_ends_it():
    made, used, closed = [], [], []

    def items():
        try:
            for i in range(10**9):
                made.append(i)
                yield i
        finally:
            closed.append(True)

    def use(item):
        used.append(item)
        if item == 2:
            raise ImageError("disk full")

    with pytest.raises(ImageError, match="disk full"):
        consume(items(), use, ahead=3)

    assert used == [0, 1, 2]
    assert len(made) <= 3 + 3 + 1
    assert closed


def test_no_more_items_wait_than_allowed():
    made = []
    go_on = threading.Event()
    consuming = threading.Thread(
        target=consume,
        args=((made.append(i) or i for i in range(9)), lambda _: go_on.wait(5), 2),
    )
    consuming.start()
    wait_until(lambda: len(made) == 4)  # one in use, two waiting, one in hand
    time.sleep(0.05)

    assert len(made) == 4
    go_on.set()
    consuming.join()
    assert len(made) == 9


def test_streams_take_turns_in_full_chunks():
    chunks = list(interleave({"a": "012", "b": "5"}, 2, ahead=4))

    assert chunks == [
        [("a", "0"), ("b", "5")],
        [("a", "1"), ("b", End()), ("a", "2")],
        [("a", End())],
    ]


def test_a_stream_that_fails_stops_no_other():
    events = [e for c in interleave({"a": failing_after("0"), "b": "123"}, 2, ahead=1) for e in c]

    assert [item for name, item in events if name == "b"] == ["1", "2", "3", End()]
    (first, end) = (item for name, item in events if name == "a")
    assert first == "0"
    assert str(end.error) == "broke off"


def test_so_many_streams_are_open_at_once():
    opened = []

    def stream(name):
        opened.append(name)
        yield from (name, name)

    chunks = interleave({name: stream(name) for name in "abcd"}, 1, ahead=1, at_once=2)
    assert next(chunks) == [("a", "a")]
    wait_until(lambda: sorted(opened) == ["a", "b"])
    events = [event for chunk in chunks for event in chunk]

    assert opened[2:] == ["c", "d"]
    assert {name for name, item in events if isinstance(item, End)} == set("abcd")


def test_a_slow_live_stream_holds_up_no_other():
    go_on = threading.Event()

    def slow():
        go_on.wait(5)
        yield "late"

    chunks = interleave({"slow": slow(), "fast": range(5)}, 4, ahead=8, live=True)
    got = []
    while ("fast", End()) not in got:
        got += next(chunks)
    assert [name for name, _ in got] == ["fast"] * 6
    go_on.set()
    rest = [event for chunk in chunks for event in chunk]

    assert rest == [("slow", "late"), ("slow", End())]


def test_live_chunks_hold_what_is_there_and_no_more_than_asked_for():
    chunks = interleave({"a": range(10)}, 4, ahead=16, live=True)
    sizes = [sum(not isinstance(item, End) for _, item in chunk) for chunk in chunks]

    assert sum(sizes) == 10
    assert max(sizes) <= 4


def test_a_map_keeps_the_order_and_stays_few_items_ahead():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    def work(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    for item, result in ordered_map(work, items(), 3, 4):
        assert result == item**2
        assert len(taken) <= item + 4
    assert taken == list(range(20))


def test_a_map_raises_errors_in_turn_unless_they_are_results():
    def work(number):
        return 6 // (2 - number)

    squares = ordered_map(work, range(4), 2)
    assert [next(squares)[1], next(squares)[1]] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(squares)
    results = [result for _, result in ordered_map(work, range(4), 2, errors=(ZeroDivisionError,))]
    assert isinstance(results.pop(2), ZeroDivisionError)
    assert results == [3, 6, -6]


def test_a_map_that_is_left_early_ends_its_threads():
    before = threading.active_count()
    done = []
    mapped = ordered_map(done.append, itertools.count(), 2, 4)
    next(mapped)
    mapped.close()
    assert threading.active_count() == before
    assert sorted(done) == list(range(4))


def test_a_map_whose_items_are_interrupted_finishes_those_it_has():
    done = []

    def items():
        yield from range(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(ordered_map(done.append, items(), 2, 8))
    assert sorted(done) == [0, 1, 2]
