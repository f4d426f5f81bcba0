"""What a run tells people while it goes: a progress bar, metrics by epoch, TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from training.loop import Progress as RunProgress


class RunReporter:
    """Progress bar, metrics.jsonl and TensorBoard of one run; give it to the training loop.

    quiet: a process that does not lead; the loop calls nothing of it.
    """

    def __init__(self, path: Path, *, epochs: int, console: Console, quiet: bool = False) -> None:
        self._path, self._epochs, self._console, self._quiet = path, epochs, console, quiet
        self._writer = None if quiet else SummaryWriter(str(path / "tensorboard"))
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} real tokens/s"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("epoch 1", total=1.0, loss=float("nan"), speed=0.0)
        self._speed = 0.0

    def __enter__(self) -> "RunReporter":
        if not self._quiet:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def step(
        self, progress: RunProgress, *, done: float, loss: float, tokens_per_second: float
    ) -> None:
        """Move the bar."""
        self._speed = tokens_per_second
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch + 1} of {self._epochs}",
            completed=done,
            loss=loss,
            speed=tokens_per_second,
        )

    def epoch(
        self, progress: RunProgress, *, loss: float, metrics: Mapping[str, float] | None
    ) -> None:
        """Print a line, append to metrics.jsonl, write to TensorBoard."""
        scalars = {"loss": loss, "tokens_per_second": self._speed, **(metrics or {})}
        line = {"epoch": progress.epoch, "minutes": progress.seconds / 60, **scalars}
        with (self._path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name.replace("@", "_at_"), value, progress.epoch)
            self._writer.flush()
        shown = f"epoch {progress.epoch:3d}  loss {loss:.4f}  {self._speed:7,.0f} tokens/s"
        if metrics is not None:
            best = "  (best)" if progress.best_epoch == progress.epoch else ""
            shown += f"  HR@10 {metrics['hr@10']:.4f}  NDCG@10 {metrics['ndcg@10']:.4f}{best}"
        self._console.print(shown, highlight=False)
