"""KuaiRand's log: one line is one exposure of a video, with what the user did at it.

One exposure becomes several events that share an `exposure_id`: `show`, or `random_show` where the
video was put in at random (the unbiased part of KuaiRand), and one event for each feedback signal
that is set. Knows the log's columns; which files there are is told.
"""

from collections.abc import Iterator, Sequence

import polars as pl

from model.schema import Event
from training.importers.behaviours import WHOLE_NUMBER, Period
from training.importers.delimited import LINE, DelimitedFile
from training.importers.writer import Progress

SHOW, RANDOM_SHOW = "show", "random_show"

SIGNALS = {
    "is_click": "click",
    "long_view": "long_view",
    "is_like": "like",
    "is_follow": "follow",
    "is_comment": "comment",
    "is_forward": "forward",
    "is_hate": "hate",
}
"""Which event each signal is, in the order that they have within an exposure."""

EVENTS = {
    SHOW: Event(role="exposure"),
    RANDOM_SHOW: Event(role="exposure"),
    "click": Event(role="engagement", unit="seconds"),
    "long_view": Event(role="engagement", unit="seconds"),
    "like": Event(role="engagement"),
    "follow": Event(role="engagement"),
    "comment": Event(role="engagement"),
    "forward": Event(role="engagement"),
    "hate": Event(role="negative"),
}

EVENTS_PER_EXPOSURE = 10
"""Sequence numbers are place × this + the event's own place: room for one show and all signals."""

_PLAYED = "play_time_ms"
_REST = ("duration_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter", "tab")
COLUMNS = ("user_id", "video_id", "time_ms", *SIGNALS, _PLAYED, *_REST)
"""What every layout of the log has."""
RELEASE_COLUMNS = (*COLUMNS, "date", "hourmin", "is_rand")
"""What the logs of the full release have."""


class ExposureLog:
    """Several files of one log, read in order; counts what it reads and what it drops."""

    def __init__(self, files: Sequence[DelimitedFile], columns: Sequence[str], period: Period):
        """columns: COLUMNS or RELEASE_COLUMNS."""
        self.files, self._columns, self._period = list(files), list(columns), period
        self.num_read = {file.name: 0 for file in self.files}
        self.num_bytes = sum(file.num_bytes for file in self.files)
        self.dropped: dict[str, int] = {}

    def drop(self, reason: str, count: int) -> None:
        """Count lines that are not written."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def exposures(self, progress: Progress) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield (file name, frame): exposure_id, user_id, item_id, time (Int64 µs), LINE (counted
        on from file to file), seconds (played; null where unknown), one Boolean a signal, random
        (Boolean), and row (a 64-bit hash of the whole line).

        Raises DatasetError for an empty id, a signal that is neither 0 nor 1, or a time that is no
        number. Lines without a time, or with one outside the period, are dropped and counted.
        """
        done_bytes, first_place = 0, 0
        for file in self.files:

            def told(part: float, file: DelimitedFile = file, before: int = done_bytes) -> None:
                done = before + part * file.num_bytes
                progress(done / self.num_bytes, f"reading {file.name}")

            for frame in file.batches(told):
                self.num_read[file.name] += frame.height
                self._check(file, frame)
                yield file.name, self._parse(file, frame, first_place)
            done_bytes += file.num_bytes
            first_place += self.num_read[file.name] + 1

    def _check(self, file: DelimitedFile, frame: pl.DataFrame) -> None:
        file.refuse_empty(frame, "user_id", "video_id")
        for name in (*SIGNALS, *(["is_rand"] if "is_rand" in self._columns else [])):
            file.refuse(frame, ~pl.col(name).is_in(["0", "1"]), column=name, allowed="0 or 1")
        for name in ("time_ms", _PLAYED):
            wrong = ~pl.col(name).str.contains(WHOLE_NUMBER) & (pl.col(name) != "")
            file.refuse(frame, wrong, column=name, allowed="a whole number of milliseconds")

    def _parse(self, file: DelimitedFile, frame: pl.DataFrame, first_place: int) -> pl.DataFrame:
        tag = file.name.removesuffix(".csv").removesuffix(".tsv")
        millis = pl.col("time_ms").cast(pl.Int64, strict=False)
        random = pl.col("is_rand") == "1" if "is_rand" in self._columns else pl.lit(False)
        rows = frame.select(
            pl.format(f"{tag}-{{}}", LINE).alias("exposure_id"),
            "user_id",
            pl.col("video_id").alias("item_id"),
            millis.alias("time"),
            pl.col(LINE) + first_place,
            (pl.col(_PLAYED).cast(pl.Float64, strict=False) / 1000).alias("seconds"),
            *((pl.col(name) == "1").alias(name) for name in SIGNALS),
            random.alias("random"),
            pl.struct(self._columns).hash().alias("row"),
        )
        timed = rows.filter(pl.col("time").is_not_null())
        self.drop("exposures without a time", rows.height - timed.height)
        low, high = (round(t.timestamp() * 1000) for t in (self._period.start, self._period.end))
        kept = timed.filter((pl.col("time") >= low) & (pl.col("time") < high))
        self.drop(f"exposures at times outside {self._period.label}", timed.height - kept.height)
        return kept.with_columns(pl.col("time") * 1000)


def exposure_events(exposures: pl.DataFrame) -> pl.DataFrame:
    """The events of exposures: event_id, user_id, item_id, event, time, sequence, value,
    exposure_id; by user, oldest first. exposures: as ExposureLog yields them."""
    occurs = {
        SHOW: ~pl.col("random"),
        RANDOM_SHOW: pl.col("random"),
        **{event: pl.col(signal) for signal, event in SIGNALS.items()},
    }
    timed = [name for name, event in EVENTS.items() if event.unit == "seconds"]
    parts = [
        exposures.filter(condition).select(
            pl.format(f"{{}}-{event}", "exposure_id").alias("event_id"),
            "user_id",
            "item_id",
            pl.lit(event).alias("event"),
            "time",
            (pl.col(LINE) * EVENTS_PER_EXPOSURE + place).alias("sequence"),
            (pl.col("seconds") if event in timed else pl.lit(None, pl.Float64)).alias("value"),
            "exposure_id",
        )
        for place, (event, condition) in enumerate(occurs.items())
    ]
    return pl.concat(parts).sort("user_id", "time", "sequence")


def timed_events(events: pl.DataFrame) -> pl.DataFrame:
    """Events with `timestamp` in place of `time`."""
    time = pl.from_epoch("time", time_unit="us").dt.replace_time_zone("UTC")
    return events.with_columns(time.alias("timestamp")).drop("time")
