"""What a worker counts, for Prometheus.

With several workers prometheus-client keeps the numbers in files of PROMETHEUS_MULTIPROC_DIR, which
the supervisor sets and sums up; the variable must be set before this module is imported.
"""

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter("penchant_calls_total", "Calls answered, by RPC and outcome.", ["rpc", "code"])
CALL_SECONDS = Histogram(
    "penchant_call_seconds",
    "Time from a call's first line of Python to its answer, by RPC.",
    ["rpc"],
    buckets=(
        *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015),
        *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    ),
)
BATCH_QUERIES = Histogram(
    "penchant_batch_queries",
    "Queries computed together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
CANDIDATES = Counter("penchant_candidates_total", "Candidates returned.")
COLD = Counter("penchant_cold_queries_total", "Queries of users about whom nothing is known.")
BUNDLE = Gauge(
    "penchant_bundle_info",
    "1 for the bundle that is served.",
    ["version", "name"],
    multiprocess_mode="livemax",
)
