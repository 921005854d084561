"""Metrics of several replicas as one text for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from server.cluster.placement import Load


class _Whole(Collector):
    def __init__(self, texts: Mapping[str, str], loads: Mapping[str, Load]) -> None:
        self._texts, self._loads = texts, loads

    def collect(self) -> Iterator[Metric]:
        """Each family once, its samples with the label of their replica."""
        yield GaugeMetricFamily("portraittalk_replicas", "Replicas that answer", len(self._loads))
        free = GaugeMetricFamily(
            "portraittalk_places_free", "Places that nobody has", labels=["replica"]
        )
        families: dict[str, Metric] = {}
        for name, load in self._loads.items():
            free.add_metric([name], 0 if load.draining else max(0, load.free))
        for name, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                whole = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "replica": name}
                    whole.add_sample(sample.name, labels, sample.value)
        yield free
        yield from families.values()


def merged(texts: Mapping[str, str], loads: Mapping[str, Load]) -> bytes:
    """Replicas' expositions by name → one exposition, each sample with `replica="NAME"`."""
    registry = CollectorRegistry()
    registry.register(_Whole(texts, loads))
    return generate_latest(registry)
