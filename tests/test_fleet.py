"""Several exporters and one store: quantiles of all are those of the merged histograms."""

from __future__ import annotations

import math
import random
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lblatency import HistogramSnapshot, LatencyTracker
from lblatency.exporter.otlp import Push, endpoint
from tests.support.fetched import fetched
from tests.support.prometheus import KEEP_CLASSIC, ask, prometheus
from tests.support.readme import blocks
from tests.support.rig import TARGET, wait_until
from tests.support.victoria import PATH, victoria_metrics
from tests.support.web import exporter
from tests.test_collector import HOSTILE
from tests.test_render_prometheus import BOUND, LATENCY, NATIVE, labels_of, value

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = TARGET.partition(":")[0]
QUANTILES = (0.1, 0.5, 0.9, 0.99, 0.999)
# A value and the one that is asked for may be at the two ends of a bucket, and a snapshot's
# percentile is 0.55 % off by itself.
NEAR = 2 * BOUND + 0.0055


def balancers() -> list[LatencyTracker]:
    """Three which see different latencies, so that no quantile of one is that of all."""
    generator = random.Random(7)
    trackers = []
    for n, mu, sigma in ((6000, -4.0, 0.3), (3000, -1.5, 1.2), (1000, 1.0, 0.5)):
        tracker = LatencyTracker(max_backends=100)
        tracker.record_many("web", TARGET, [generator.lognormvariate(mu, sigma) for _ in range(n)])
        tracker.record_many("web", "10.0.0.2:80", [generator.uniform(0, 3) for _ in range(n // 10)])
        trackers.append(tracker)
    return trackers


def merged(trackers: list[LatencyTracker]) -> HistogramSnapshot:
    """The histogram of all backends of all trackers."""
    first, *others = (each for one in trackers for each in one.get_all_histograms().values())
    assert isinstance(first, HistogramSnapshot)
    for each in others:
        first = first + each
    return first


def serve_all(stack: ExitStack, trackers: list[LatencyTracker]) -> list[str]:
    """The addresses of exporters, one for each."""
    return [f"127.0.0.1:{stack.enter_context(exporter(each)).port}" for each in trackers]


def classic_counts(address: str) -> dict[float, float]:
    """The cumulative counts of all, by bound."""
    found = ask(address, f"sum by (le) ({LATENCY}_bucket)")
    return {float(each["metric"]["le"]): float(each["value"][1]) for each in found}


def assert_classic(address: str, expected: HistogramSnapshot) -> None:
    """Counts and the sum are exact."""
    counts = dict(
        zip([*expected.buckets, math.inf], [*expected.counts, expected.count], strict=True)
    )
    assert classic_counts(address) == counts
    assert value(address, f"sum({LATENCY}_sum)") == pytest.approx(expected.sum, rel=1e-12)


def assert_native(address: str, expected: HistogramSnapshot) -> None:
    """The count is exact, and quantiles are within a bucket of the schema."""
    assert value(address, f"histogram_count(sum({LATENCY}))") == expected.count
    assert value(address, f"histogram_sum(sum({LATENCY}))") == pytest.approx(expected.sum)
    for q in QUANTILES:
        found = value(address, f"histogram_quantile({q}, sum({LATENCY}))")
        assert found == pytest.approx(expected.percentile(q), rel=NEAR)


def numbers_of(address: str, query: str) -> list[float]:
    """What a query answers, but for NaN, which is the quantile of nothing."""
    found = (float(each["value"][1]) for each in ask(address, query))
    return [each for each in found if not math.isnan(each)]


def until_answered(address: str, query: str, count: int) -> None:
    """Wait until a query has so many answers."""
    wait_until(lambda: len(numbers_of(address, query)) == count, query)


def until_scraped(address: str) -> None:
    """Wait until there are all three."""
    wait_until(lambda: value(address, "count(lblatency_running)") == 3, "three instances")


def test_classic_counts_of_three_exporters_add_up(tmp_path: Path) -> None:
    """As Debian's Prometheus scrapes without flags."""
    trackers = balancers()
    with ExitStack() as stack:
        address = stack.enter_context(prometheus(tmp_path, serve_all(stack, trackers)))
        until_scraped(address)
        assert_classic(address, merged(trackers))


def test_native_quantiles_of_three_exporters_are_those_of_all(tmp_path: Path) -> None:
    """By Debian's Prometheus, whose quantile of one instance is far from that of all."""
    trackers = balancers()
    with ExitStack() as stack:
        address = stack.enter_context(prometheus(tmp_path, serve_all(stack, trackers), NATIVE))
        until_scraped(address)
        assert_native(address, merged(trackers))
        of_each = ask(address, f"histogram_quantile(0.5, sum by (instance) ({LATENCY}))")
        medians = sorted(float(each["value"][1]) for each in of_each)
    expected = [merged([each]).percentile(0.5) for each in trackers]
    assert medians == pytest.approx(expected, rel=NEAR)
    assert all(abs(each / merged(trackers).percentile(0.5) - 1) > 2 * NEAR for each in medians)


def test_a_newer_prometheus_has_both(tmp_path: Path) -> None:
    """Classic and native from the same scrapes, and zeroes where each series says it began."""
    trackers = balancers()
    program = fetched("prometheus")
    features = f"{NATIVE},created-timestamp-zero-ingestion"
    with ExitStack() as stack:
        targets = serve_all(stack, trackers)
        running = prometheus(tmp_path, targets, features, program=program, options=KEEP_CLASSIC)
        address = stack.enter_context(running)
        until_scraped(address)
        assert_classic(address, merged(trackers))
        assert_native(address, merged(trackers))
        # More than before: by the counts alone, nobody could tell that there was a reset.
        trackers[0].reset_histograms()
        trackers[0].record_many("web", TARGET, [0.02] * 7000)
        count = f'{LATENCY}_count{{target_ip="{ADDRESS}", instance="{targets[0]}"}}'
        wait_until(lambda: value(address, count) == 7000, "a scrape after the reset")
        assert value(address, f"resets({count}[5m])") == 1
        assert value(address, f"sum(resets({LATENCY}_count[5m]))") == 1


@pytest.mark.parametrize("flags", [(), (NATIVE,)])
def test_a_rate_goes_on_over_a_reset(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Counts that go down are a restart: what came since then counts, and nothing is negative."""
    trackers = balancers()
    with ExitStack() as stack:
        targets = serve_all(stack, trackers)
        address = stack.enter_context(prometheus(tmp_path, targets, *flags))

        def count(target: str, of: str = "{}") -> float | None:
            name = LATENCY if flags else f"{LATENCY}_count"
            query = of.format(f'{name}{{target_ip="{ADDRESS}", instance="{target}"}}')
            return value(address, f"histogram_count({query})" if flags else query)

        until_scraped(address)
        trackers[0].reset_histograms()
        trackers[0].record_many("web", TARGET, [0.02] * 100)
        wait_until(lambda: count(targets[0]) == 100, "a scrape after the reset")
        # What came since, extrapolated by at most half an interval on each side.
        found = count(targets[0], "increase({}[5m])")
        assert found is not None
        assert 100 <= found <= 200
        wait_until(
            lambda: [count(each, "increase({}[5m])") for each in targets[1:]] == [0, 0],
            "two scrapes of the others, which agree",
        )


def test_the_queries_in_readme_have_answers(tmp_path: Path) -> None:
    """Each of them, of a fleet that goes on recording."""
    trackers = balancers()
    (block,) = (each for each in blocks() if each.kind == "promql")
    queries = [line.partition("#")[0].strip() for line in block.text.splitlines()]
    with ExitStack() as stack:
        running = prometheus(
            tmp_path,
            serve_all(stack, trackers),
            NATIVE,
            program=fetched("prometheus"),
            options=KEEP_CLASSIC,
        )
        address = stack.enter_context(running)
        until_scraped(address)
        for each in trackers:
            each.record_many("web", TARGET, [0.02] * 1000)
        for query, count in zip(queries, (1, 3, 1, 1), strict=True):
            until_answered(address, query, count)
        fleet, each_balancer, share, classic = (numbers_of(address, query) for query in queries)
    assert fleet == pytest.approx([0.02], rel=NEAR)
    assert each_balancer == pytest.approx([0.02] * 3, rel=NEAR)
    assert share == [1]
    # A rate over few scrapes is extrapolated for each bucket by itself, so this one can be far off.
    assert all(each > 0.01 for each in classic)


# ---- VictoriaMetrics ----


def eighths() -> list[float]:
    """Classic bounds that are those of native schema 3, so both kinds err alike."""
    return [2 ** (i / 8) for i in range(-60, 20)]


def numbers(address: str, bucket: str, series: str) -> list[float | None]:
    """The count, the sum and quantiles of what some series have together."""
    of_buckets = f"sum by ({bucket}) ({LATENCY}_bucket{{{series}}})"
    queries = [f"sum({LATENCY}_count{{{series}}})", f"sum({LATENCY}_sum{{{series}}})"]
    queries += [f"histogram_quantile({q}, {of_buckets})" for q in QUANTILES]
    return [value(address, query) for query in queries]


def until_stored(address: str, series: str, count: int) -> None:
    """Wait until there are so many histograms."""
    query = f"count({LATENCY}_count{{{series}}})"
    wait_until(lambda: value(address, query) == count, f"{count} of {query}")


def test_victoria_metrics_has_the_same_from_a_scrape_and_a_push(tmp_path: Path) -> None:
    """Text by scrape and OTLP by push: counts and sums are equal, and quantiles within a bucket."""
    generator = random.Random(5)
    tracker = LatencyTracker(max_backends=100, buckets=eighths())
    tracker.record_many("web", TARGET, [generator.lognormvariate(-1.5, 1.0) for _ in range(5000)])
    for name in HOSTILE:
        tracker.record_latency(name, "10.0.0.9:80", 0.5)
    scraped, pushed = 'job="demo"', '"service.name"="lblatency"'
    with ExitStack() as stack:
        port = stack.enter_context(exporter(tracker)).port
        address = stack.enter_context(victoria_metrics(tmp_path, f"127.0.0.1:{port}"))
        push = Push.of(endpoint(f"http://{address}{PATH}"), 0.5, {})
        told = stack.enter_context(exporter(tracker, push=push)).told
        for series in (scraped, pushed):
            until_stored(address, series, 1 + len(HOSTILE))
            assert labels_of(address, f"{LATENCY}_count{{{series}}}") == {"web", *HOSTILE}
        by_text = numbers(address, "le", f'{scraped}, proxy_name="web"')
        by_otlp = numbers(address, "vmrange", f'{pushed}, proxy_name="web"')
    assert told == []
    assert by_text[:2] == by_otlp[:2]
    histogram = tracker.get_histogram("web", TARGET)
    assert histogram is not None
    exact = [histogram.percentile(q) for q in QUANTILES]
    assert by_text[2:] == pytest.approx(exact, rel=NEAR)
    assert by_otlp[2:] == pytest.approx(exact, rel=NEAR)


def test_three_exporters_of_one_host_push_series_of_their_own(tmp_path: Path) -> None:
    """Told apart by `service.instance.id`; together they are the merged histograms."""
    trackers = balancers()
    with ExitStack() as stack:
        address = stack.enter_context(victoria_metrics(tmp_path))
        push = Push.of(endpoint(f"http://{address}{PATH}"), 0.5, {})
        running = [stack.enter_context(exporter(each, push=push)) for each in trackers]
        until_stored(address, '"service.name"="lblatency"', 6)
        found = ask(address, f'count by ("service.instance.id") ({LATENCY}_count)')
        instances = {each["metric"]["service.instance.id"] for each in found}
        count, total, *quantiles = numbers(address, "vmrange", "")
    assert instances == {f"{socket.gethostname()}:{each.port}" for each in running}
    expected = merged(trackers)
    assert count == expected.count
    assert total == pytest.approx(expected.sum)
    assert quantiles == pytest.approx([expected.percentile(q) for q in QUANTILES], rel=NEAR)
