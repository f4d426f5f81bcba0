"""`penchant simulate --policy`: a closed loop on the command line."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from training.recipes import find_recipe
from training.settings import with_settings
from training.terminal import progress_bar, say
from training.world.config import WorldConfig

if TYPE_CHECKING:
    from training.closed_loop_run import OpenServer


def run_loop(
    config: WorldConfig,
    out: Path,
    policies: Sequence[str],
    *,
    loop_days: int,
    retrain_every: int,
    settings: Sequence[str],
    open_server: "OpenServer | None",
) -> None:
    """Run the policies, print the table, write the report.

    config: num_days are those of the warm-up. Raises what run_closed_loop does.
    """
    from training.closed_loop_run import Plan, run_closed_loop
    from training.loop_report import loop_table, write_report

    # What is wrong is said now, not after the warm-up.
    replace(with_settings(find_recipe("demo"), settings), objectives=("interest", "direct"))
    # Enough exposures for a value model in the validation part, days enough before it for towers.
    holdout = ("--holdout-days", f"{max(1.0, config.num_days / 6):g}")
    plan = Plan(
        world=replace(config, num_days=config.num_days + loop_days),
        loop_days=loop_days,
        retrain_every=retrain_every,
        training=(*holdout, *(word for setting in settings for word in ("--set", setting))),
    )
    with progress_bar("simulate") as progress:
        found = run_closed_loop(plan, out, policies, open_server=open_server, progress=progress)
    say(loop_table(found))
    for name, one in found.items():
        for note in one.notes:
            say(f"note: {name}: {note}", style="yellow")
    write_report(found, out, title=f"A closed loop of {loop_days} days, world {config.seed}")
    say(f"The days one by one: {out / 'report.html'}")
