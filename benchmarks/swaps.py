"""Bundles that change under load: does a call fail, or is an answer of two bundles?

    python benchmarks/swaps.py --work DIR [--bundle BUNDLE] [--swaps 50]

Two bundles that differ in their vectors' sign (so that no answer of one can be taken for the
other's) are activated by turns on a server of two workers, while callers ask without a pause.
Without --bundle, a small simulated world is trained in DIR first (benchmarks/restarts.py).
"""

import argparse
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from live import served
from restarts import prepare
from results import write_result

from model import ann
from model.bundle import INDEX, VECTORS, open_bundle
from model.manifest import open_verified, write_folder
from serving.client import Client
from serving.domain import UserQuery

NUM_CALLERS = 4


def turned(bundle: Path, out: Path) -> Path:
    """The bundle with all item vectors turned round, and an exact index of them."""
    if out.exists():
        return out
    manifest, opened = open_verified(bundle, kind="bundle"), open_bundle(bundle)
    body = {**manifest.body, "ann": {"kind": "exact", "recall@100": 1.0}}
    with write_folder(
        out, kind="bundle", schema=manifest.schema, as_of=manifest.as_of, body=body
    ) as folder:
        left_out = {"manifest.json", "MANIFEST.sha256", VECTORS, INDEX, "index.lists"}
        shutil.copytree(
            bundle, folder, dirs_exist_ok=True, ignore=lambda _, names: left_out & set(names)
        )
        vectors = -np.asarray(opened.vectors)
        np.save(folder / VECTORS, vectors)
        ann.write_index(ann.build_exact(vectors[: opened.items.num_active]), folder / INDEX)
    return out


def main() -> None:
    """Swap, count, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--swaps", type=int, default=50)
    args = parser.parse_args()
    if args.bundle is None:
        prepare(args.work)
        args.bundle = args.work / "bundle"
    args.work.mkdir(parents=True, exist_ok=True)
    home = args.work / "swaps"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    shutil.copytree(args.bundle, home / "bundle")
    bundles = [home / "bundle", turned(args.bundle, home / "turned")]
    query = UserQuery(vectors=np.ones((1, open_bundle(args.bundle).dim), np.float32))
    answers: dict[str, set[str]] = {}
    failures: list[str] = []
    spent: list[float] = []
    over = threading.Event()

    def ask(client: Client) -> None:
        while not over.is_set():
            began = time.perf_counter()
            try:
                found = client.retrieve(query, k=20)
            except Exception as error:
                failures.append(repr(error))
                continue
            spent.append(time.perf_counter() - began)
            said = json.dumps([found.item_ids, found.scores.round(4).tolist()])
            answers.setdefault(found.source.bundle_version, set()).add(said)

    seconds: list[float] = []
    with served(home, home / "state") as server, Client(server.address, num_channels=8) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(NUM_CALLERS)]
        for thread in threads:
            thread.start()
        for number in range(args.swaps):
            began = time.perf_counter()
            asked = client.activate(str(bundles[(number + 1) % 2].absolute()), skips_gate=True)
            while (state := client.generations()[0].state) in ("preparing", "prepared"):
                time.sleep(0.05)
            if state != "active" or client.generations()[0].number != asked.number:
                raise SystemExit(f"not activated: {client.generations()[0]}")
            seconds.append(time.perf_counter() - began)
            time.sleep(0.2)
        over.set()
        for thread in threads:
            thread.join()
    figures: dict[str, Any] = {
        "swaps": args.swaps,
        "calls": len(spent),
        "failed_calls": len(failures),
        "bundles_that_answered": len(answers),
        "answers_of_neither_bundle": sum(len(said) - 1 for said in answers.values()),
        "seconds_a_swap_p50": float(np.median(seconds)),
        "call_p50_ms": 1000 * float(np.percentile(spent, 50)),
        "call_p99_ms": 1000 * float(np.percentile(spent, 99)),
    }
    write_result(
        "swaps",
        title="Bundles that change under load",
        figures=figures,
        table=[
            ["what", "number"],
            *[[name.replace("_", " "), f"{value:,.6g}"] for name, value in figures.items()],
        ],
        notes=(
            f"Two workers, {NUM_CALLERS} callers without a pause, all on two cores. Each bundle "
            "has one right answer to the one question; whatever else is said counts as of neither."
        ),
        command="python benchmarks/swaps.py --work DIR",
    )
    if failures or figures["answers_of_neither_bundle"]:
        raise SystemExit(f"failed: {failures[:3]}")


if __name__ == "__main__":
    main()
