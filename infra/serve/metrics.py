"""What Prometheus may ask: one set of numbers per serving process."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()
REQUESTS: Final = Counter("ratchet_requests", "Requests answered.", ("route", "status"), registry=REGISTRY)
LATENCY: Final = Histogram(
    "ratchet_request_seconds",
    "From the request to the end of its answer.",
    ("route",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    registry=REGISTRY,
)
IN_FLIGHT: Final = Gauge("ratchet_requests_in_flight", "Requests under way.", registry=REGISTRY)
UPSTREAM_ERRORS: Final = Counter(
    "ratchet_upstream_errors", "Answers of 400 and above, and none at all.", registry=REGISTRY
)
ON_DISK: Final = Gauge(
    "ratchet_kept", "Traces and labels that this process wrote to disk.", registry=REGISTRY
)
UNSENT: Final = Gauge("ratchet_unsent", "Of these, those that MLflow does not have yet.", registry=REGISTRY)
VERSION: Final = Gauge(
    "ratchet_version",
    "1 for each version that answers.",
    ("alias", "number", "candidate_id"),
    registry=REGISTRY,
)
