"""The status page in headless Chromium: what a person waits for, by the number of backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from statistics import median

import pytest

from tests.support.chromium import Chromium, Page, chromium
from tests.support.fake_api import FakeExporter

from ..harness import interleave, same, unpin
from ..replay import Publish

SIZES = {f"{n} backends": n for n in (3, 300, 10_000)}
ROUNDS = 11
SHOWN = "document.querySelector('.body .line:not(.totals)') && document.querySelector('.uplot')"
# Each resolves in ms, after the frame that shows what was done.
PAINTED = """new Promise((resolve) => {
  const look = () => requestAnimationFrame(() => (%s)
    ? setTimeout(() => resolve(performance.now())) : look());
  look();
})"""
DONE = """new Promise((resolve) => {
  const begin = performance.now();
  %s;
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - begin)));
})"""
SORT = "document.querySelector('[data-column=p99] button').click()"
FILTER = """const filter = document.getElementById('filter');
  filter.value = filter.value ? '' : 'ip:10.0.0.0/8 p99>1ms';
  filter.dispatchEvent(new Event('input'))"""
SCROLL = """new Promise((resolve) => {
  const grid = document.getElementById('grid');
  const frames = [];
  let last = null;
  grid.scrollTop = 0;
  const step = (now) => {
    if (last !== null) frames.push(now - last);
    last = now;
    grid.scrollTop += 777;
    if (frames.length < 60) requestAnimationFrame(step);
    else resolve(Math.max(...frames));
  };
  requestAnimationFrame(step);
})"""
# What is shown again after the next poll, without waiting for the poll itself.
UPDATE = "document.dispatchEvent(new Event('visibilitychange'))"
LONGEST = """new Promise((resolve) => {
  let last = performance.now(), longest = 0;
  const end = last + 400;
  const step = (now) => {
    longest = Math.max(longest, now - last);
    last = now;
    if (now < end) requestAnimationFrame(step);
    else resolve(longest);
  };
  %s;
  requestAnimationFrame(step);
})"""


def _first_paint(page: Page, url: str) -> float:
    page.go(url)
    return float(page.evaluate(PAINTED % SHOWN))


def _update(page: Page, fake: FakeExporter) -> float:
    fake.tick()
    return float(page.evaluate(LONGEST % UPDATE))


def _does(page: Page, script: str) -> Callable[[], float]:
    return lambda: float(page.evaluate(script))


def _ns(measure: Callable[[], float]) -> Callable[[int], float]:
    return same(lambda: measure() * 1e6)


def _cases(
    stack: ExitStack, browser: Chromium, count: int
) -> Iterator[tuple[str, Callable[[], float]]]:
    fake = FakeExporter.of(count)
    url = stack.enter_context(fake.serving())
    opening = stack.enter_context(browser.page(url))
    page = stack.enter_context(browser.page(url))
    page.until(SHOWN)
    yield "first paint", lambda: _first_paint(opening, url)
    yield "sort", _does(page, DONE % SORT)
    yield "filter", _does(page, DONE % FILTER)
    yield "scroll, longest of 60 frames", _does(page, SCROLL)
    yield "update, longest frame", lambda: _update(page, fake)


CASES = ("first paint", "sort", "filter", "scroll, longest of 60 frames", "update, longest frame")


@pytest.fixture(scope="module")
def samples(
    rounds: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[tuple[str, str], list[float]]]:
    """Ns, by case and size."""
    unpin()
    with ExitStack() as stack:
        browser = stack.enter_context(chromium(tmp_path_factory.mktemp("chromium")))
        turns = {
            (case, size): _ns(measure)
            for size, count in SIZES.items()
            for case, measure in _cases(stack, browser, count)
        }
        yield interleave(turns, min(rounds, ROUNDS))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_page(
    case: str, size: str, samples: Mapping[tuple[str, str], list[float]], publish: Publish
) -> None:
    """Each thing that a person does, with few backends and with many."""
    mine = {other: samples[case, other] for other in SIZES}
    publish("page", case, size, mine, ms=median(mine[size]) / 1e6)
