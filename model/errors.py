"""The root of Penchant's exceptions, and those that data and bundles cause. Imports nothing.

PenchantError
 ├─ DatasetError       a dataset breaks its contract: names file, column, row, and the remedy
 ├─ ConfigError        a config value is not allowed: names the field and what is allowed
 ├─ CheckpointError    a checkpoint does not belong to this run, or is damaged
 ├─ NoVector           a tower gives no finite vector for an item or a user: names it
 └─ BundleRejected     a bundle or snapshot is damaged, incomplete or of an unknown format
                       (the serving tree continues in serving/errors.py)
"""


class PenchantError(Exception):
    """Anything that Penchant refuses, with a message for the person who can mend it."""


class DatasetError(PenchantError):
    """A dataset breaks its contract.

    file: the file, relative to the dataset. column, row: where, if it is one place (row counts
    from 0 in file order). remedy: what to do next, one sentence.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str,
        column: str | None = None,
        row: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.file, self.column, self.row = problem, file, column, row
        self.remedy = remedy
        place = file
        if column is not None:
            place += f", column {column!r}"
        if row is not None:
            place += f", row {row}"
        super().__init__(f"{place}: {problem}" + (f" {remedy}" if remedy else ""))


class ConfigError(PenchantError):
    """A config value is not allowed; the message names the field, the value and what is allowed."""


class CheckpointError(PenchantError):
    """A checkpoint is damaged or belongs to another run."""


class NoVector(PenchantError):
    """A tower gives NaN or infinity for an item or a user; the message names it."""


class BundleRejected(PenchantError):
    """A bundle or a snapshot is damaged, incomplete, or of a format this version cannot read."""
