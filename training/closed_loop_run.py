"""A closed loop on disk: one warm-up, then each policy in a twin of its world; kept as they end.

    OUT/loop.json                 what was asked for
    OUT/warm-up/                  the dataset that every policy begins with
    OUT/policies/NAME/            what a policy left, and measured.json once it is done
    OUT/report.json, report.html  all policies that are done, side by side

A run that was interrupted, or asked for more policies, goes on: a policy that is done is not run
again. Knows nothing of servers: who can start one hands in how (penchant.py).
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from model.atomic import write_text
from model.errors import ConfigError
from training.closed_loop import Policy, run_days
from training.loop_policies import ALONE, SERVED, Chance, Popularity, RequestPolicy
from training.world.config import WorldConfig
from training.world.economy import Economy
from training.world.measures import Measured, measure
from training.world.oracle import Oracle
from training.world.tables import write_dataset

WARM_UP, POLICIES, MEASURED = "warm-up", "policies", "measured.json"
_ASKED = "loop.json"

OpenServer = Callable[[RequestPolicy, Path, Path, Sequence[str]], Policy]
"""Makes a policy that is a server: what it is asked for, the folder to keep it in, the folder that
servers of one warm-up share, and further arguments of `penchant train`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a closed loop is to do."""

    world: WorldConfig
    """num_days: of warm-up and loop together."""
    loop_days: int = 10
    """Days under the policies, after the warm-up."""
    retrain_every: int = 5
    """Days after which a policy learns anew; 0: never."""
    training: tuple[str, ...] = ()
    """Further arguments of `penchant train`, where a server learns."""

    def __post_init__(self) -> None:
        """Raises ConfigError for what cannot be."""
        if not 1 <= self.loop_days <= self.world.num_days - 2:
            raise ConfigError(
                f"loop_days = {self.loop_days} is not allowed: give 1 or more, and a warm-up "
                "(--days) of 2 or more before it."
            )
        if self.retrain_every < 0:
            raise ConfigError(
                f"retrain_every = {self.retrain_every} is not allowed: give 1 or more days, or 0 "
                "for never."
            )

    @property
    def warm_up_days(self) -> int:
        """Days under the logging policy."""
        return self.world.num_days - self.loop_days


def until_today(world: WorldConfig) -> WorldConfig:
    """The same world in the days before today: a server takes no events of the future."""
    begin = datetime.now(UTC).date() - timedelta(days=world.num_days)
    return replace(world, start=begin.isoformat())


def refuse_unknown(policies: Sequence[str]) -> None:
    """Raises ConfigError for a name that is no policy, and for one that is given twice."""
    for name in policies:
        if name not in SERVED and name not in ALONE:
            known = ", ".join([*ALONE, *SERVED])
            raise ConfigError(f"no policy is called {name!r}; there are: {known}.")
        if policies.count(name) > 1:
            raise ConfigError(f"the policy {name!r} is given twice; give each once.")


def run_closed_loop(
    plan: Plan,
    out: Path,
    policies: Sequence[str],
    *,
    open_server: OpenServer | None,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> dict[str, Measured]:
    """Run the policies that are not done yet; returns all that were asked for, by name.

    Raises ConfigError for unknown policies, for one that needs a server where there is none, and
    where `out` holds a loop of another plan; and what a policy raises.
    """
    refuse_unknown(policies)
    served = [name for name in policies if name in SERVED]
    if served and open_server is None:
        raise ConfigError(
            f"the policy {served[0]!r} needs a server: run it by `penchant simulate`."
        )
    plan = _settled(plan, out)
    economy = Economy(plan.world)
    economy.warm_up(
        plan.warm_up_days,
        progress=lambda day: progress(0.02 * day / plan.warm_up_days, f"warm-up, day {day}"),
    )
    since = economy.today
    dataset = out / WARM_UP
    if not dataset.exists():
        _write_warm_up(economy, dataset)
    found = {}
    for number, name in enumerate(policies):
        folder = out / POLICIES / name

        def tell(day: int, what: str, number: int = number, name: str = name) -> None:
            share = (number + day / plan.loop_days) / len(policies)
            progress(0.02 + 0.98 * share, f"{name}: {what}")

        if (done := read_measured(folder)) is None:
            shutil.rmtree(folder, ignore_errors=True)
            twin = economy.twin()
            policy = _opened(name, twin, plan, folder, out, open_server)
            tell(0, "the warm-up")
            try:
                policy.begin(dataset)
                run_days(
                    twin,
                    policy,
                    num_days=plan.loop_days,
                    retrain_every=plan.retrain_every,
                    progress=tell,
                )
            finally:
                policy.close()
            done = measure(twin, since=since, notes=getattr(policy, "notes", ()))
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / MEASURED, json.dumps(asdict(done), indent=1) + "\n")
        found[name] = done
    return found


def read_measured(folder: Path) -> Measured | None:
    """How a policy did; None where it is not done."""
    path = folder / MEASURED
    if not path.exists():
        return None
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Measured(**body)


def _settled(plan: Plan, out: Path) -> Plan:
    """The plan with the start that `out` began with; writes it where `out` is new.

    Raises ConfigError where `out` holds something else, or a loop of another plan.
    """
    path = out / _ASKED
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(
                f"{out} is no closed loop; name a folder that does not exist yet, or one that "
                "`penchant simulate --policy` made."
            )
        plan = replace(plan, world=until_today(plan.world))
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(plan), indent=1) + "\n")
        return plan
    before = json.loads(path.read_text(encoding="utf-8"))
    plan = replace(plan, world=replace(plan.world, start=before["world"]["start"]))
    now = json.loads(json.dumps(asdict(plan)))
    for old, new, where in ((before["world"], now["world"], "world."), (before, now, "")):
        for name, value in new.items():
            if not isinstance(value, dict) and old.get(name) != value:
                raise ConfigError(
                    f"{out} was begun with {where}{name} = {old.get(name)!r}, and is now asked for "
                    f"{value!r}. Give the same, or another folder."
                )
    return plan


def _write_warm_up(economy: Economy, dataset: Path) -> None:
    """The dataset as of now, whole or not at all."""
    partial = dataset.with_name(f".{dataset.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_dataset(
        economy.config,
        partial,
        catalogue=economy.catalogue,
        people=economy.people,
        log=economy.log,
        until=economy.today,
    )
    partial.rename(dataset)


def _opened(
    name: str,
    twin: Economy,
    plan: Plan,
    folder: Path,
    out: Path,
    open_server: OpenServer | None,
) -> Policy:
    if name in SERVED:
        assert open_server is not None
        return open_server(SERVED[name], folder, out / "made", plan.training)
    alone: dict[str, Callable[[], Policy]] = {
        "popularity": Popularity,
        "random": lambda: Chance(twin.config.seed),
        "oracle": lambda: Oracle(twin),
    }
    return alone[name]()
