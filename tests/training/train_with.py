"""A training process of its own, under torchrun or alone.

python tests/training/train_with.py DATASET RUN CONFIG_JSON
"""

import json
import sys
from pathlib import Path

from tests.training.tiny import Silent
from training.config import run_from_json
from training.distributed import join
from training.run import start_run


def main() -> None:
    """Train and leave the process group."""
    dataset, out, config = sys.argv[1:]
    rank = join("cpu")
    reporter = Silent()
    start_run(
        Path(dataset), Path(out), run_from_json(json.loads(config)), rank=rank, reporter=reporter
    )
    assert bool(reporter.metrics) == rank.leads, "only rank 0 reports"
    rank.close()


if __name__ == "__main__":
    main()
