"""The partial layout of KuaiRand-Pure: each user's last 50 exposures in order, then timed logs.

`train_user_sequences_last50.tsv` has for each user `watch_seq`, the videos in order, without times
but for the last one's. What `watch_seq` holds was found out from the figures: its `history_len`
and the lines of both logs add up to 1,436,609, KuaiRand-Pure's published number of standard
*exposures*, and videos that are clicked at a sixth of their exposures are in it nearly as often as
those that are clicked at two thirds. So it holds exposures (`show`), not clicks; no click is known
of this part. `long_watch_seq` and `like_seq` are the user's last 50 long views and likes, which may
reach further back than the last 50 exposures. `events_val.tsv` and `events_test.tsv` are logs with
milliseconds. So time = "order": times stand where they are known.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from training.importers.behaviours import WHOLE_NUMBER, Period
from training.importers.delimited import LINE, DelimitedFile, refuse_nothing_left
from training.importers.grouping import without_repeats
from training.importers.kuairand_features import (
    USER_COLUMNS,
    VIDEO_COLUMNS,
    bare_videos,
    kuairand_schema,
    read_users,
    read_videos,
)
from training.importers.kuairand_log import (
    COLUMNS,
    EVENTS,
    EVENTS_PER_EXPOSURE,
    RANDOM_SHOW,
    SHOW,
    ExposureLog,
    exposure_events,
    timed_events,
)
from training.importers.writer import ImportReport, Progress, new_dataset

SEQUENCES = "train_user_sequences_last50.tsv"
VALIDATION, TEST, VIDEOS, USERS = "events_val.tsv", "events_test.tsv", "items.tsv", "users.csv"

_PARTS = {VALIDATION: "validation", TEST: "test"}
_PLACES = {event: place for place, event in enumerate(EVENTS)}
_LISTS = ("watch_seq", "like_seq", "long_watch_seq")
_ORIGIN = f"{SEQUENCES}, {VALIDATION}, {TEST}, {VIDEOS} and {USERS} belong together."


def import_sequences(source: Path, out: Path, *, period: Period, tell: Progress) -> ImportReport:
    """Import the partial layout.

    Raises DatasetError for a missing file, a malformed line, or lists that contradict each other.
    """
    train = _Train()
    sequences = DelimitedFile(
        source / SEQUENCES,
        ["user_id", "history_len", "last_time_ms", *_LISTS],
        separator="\t",
        origin=_ORIGIN,
    )
    logs = [
        DelimitedFile(source / name, COLUMNS, separator="\t", origin=_ORIGIN) for name in _PARTS
    ]
    log = ExposureLog(logs, COLUMNS, period)
    videos = read_videos(
        DelimitedFile(source / VIDEOS, VIDEO_COLUMNS, separator="\t", origin=_ORIGIN)
    )
    people = read_users(DelimitedFile(source / USERS, USER_COLUMNS, quoted=True, origin=_ORIGIN))
    tell(0.05, f"reading {SEQUENCES}")
    train.read(sequences)
    exposures = _later_exposures(log, train, lambda part, what: tell(0.3 + 0.2 * part, what))
    later = timed_events(exposure_events(exposures)).join(
        exposures.select("exposure_id", "split"), on="exposure_id", maintain_order="left"
    )
    events = pl.concat([timed_events(train.events()).with_columns(split=pl.lit("train")), later])
    # Random exposures are not in this layout.
    schema = kuairand_schema(
        "kuairand-pure-partial",
        time="order",
        events={name: event for name, event in EVENTS.items() if name != RANDOM_SHOW},
    )
    active = events.select("user_id").unique()
    known = people.join(active, on="user_id", how="semi", maintain_order="left")
    bare = events["item_id"].unique().sort()
    bare = bare.filter(~bare.is_in(videos["item_id"].implode()))
    with new_dataset(
        out, schema, progress=lambda part, what: tell(0.6 + 0.4 * part, f"checking {what}")
    ) as writer:
        writer.write_items(pl.concat([videos, bare_videos(bare)]))
        writer.write_users(known)
        writer.append_events(events)
    dropped = {
        f"{SEQUENCES}: likes before the exposures, whose place is unknown": train.num_early_likes,
        **log.dropped,
        "users without an event": people.height - known.height,
    }
    return ImportReport(
        out=out,
        layout="partial: last 50 exposures in order, then logs",
        read={
            f"{SEQUENCES}: exposures": train.num_exposures,
            f"{SEQUENCES}: long views": train.num_long_views,
            f"{SEQUENCES}: likes": train.num_likes,
            **log.num_read,
            VIDEOS: videos.height,
            USERS: people.height,
        },
        written={
            "users": writer.summary.num_users,
            "items": videos.height + len(bare),
            "exposures": train.num_exposures + exposures.height,
            "events": events.height,
        },
        dropped={reason: count for reason, count in dropped.items() if count},
        summary=writer.summary,
        notes=train.notes(),
    )


def _later_exposures(log: ExposureLog, train: "_Train", progress: Progress) -> pl.DataFrame:
    """The exposures of both logs that come after the user's train part; LINE is their place."""
    frames = [
        frame.with_columns(split=pl.lit(_PARTS[name])) for name, frame in log.exposures(progress)
    ]
    refuse_nothing_left(f"{VALIDATION}, {TEST}", sum(f.height for f in frames), log.dropped)
    exposures = pl.concat(frames).sort("user_id", "time", LINE)
    kept = without_repeats(exposures, ["user_id", "item_id", "time", "row"])
    log.drop("exact duplicates of an earlier exposure", exposures.height - kept.height)
    with_last = kept.join(train.last_exposures(), on="user_id", how="left", maintain_order="left")
    before = pl.col("time") < pl.col("last_time")
    again = (pl.col("time") == pl.col("last_time")) & (pl.col("item_id") == pl.col("last_item"))
    log.drop(f"exposures that {SEQUENCES} has as the last", with_last.filter(again).height)
    log.drop("exposures before the user's last of the train part", with_last.filter(before).height)
    after = with_last.filter(~(before | again).fill_null(False)).drop("last_time", "last_item")
    # The order of a user is that of the numbers, and train comes first.
    place = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id") + train.num_places
    return after.with_columns(place.alias(LINE))


@dataclass(slots=True)
class _Train:
    """The events of the sequences, and what was counted on the way."""

    rows: list[tuple[str, str, str, str, int | None, int, str | None]] = field(default_factory=list)
    """event_id, user_id, item_id, event, time (µs or none), sequence, exposure_id"""
    last: list[tuple[str, int, str]] = field(default_factory=list)
    """user_id, time (µs) and item_id of the last exposure of each user"""
    num_places: int = 0
    """The most places that a user's events take."""
    num_exposures: int = 0
    num_long_views: int = 0
    num_likes: int = 0
    num_early_views: int = 0
    num_early_likes: int = 0
    num_absent: int = 0
    num_cut_users: int = 0
    num_alike: int = 0

    def read(self, file: DelimitedFile) -> None:
        """Take in every line. Raises DatasetError."""
        seen = pl.Series("user_id", [], dtype=pl.String)
        for frame in file.batches():
            file.refuse_empty(frame, "user_id", "watch_seq")
            repeated = ~pl.col("user_id").is_first_distinct() | pl.col("user_id").is_in(
                seen.implode()
            )
            allowed = "a user that has no earlier line"
            file.refuse(frame, repeated, column="user_id", allowed=allowed)
            for name in ("history_len", "last_time_ms"):
                wrong = ~pl.col(name).str.contains(WHOLE_NUMBER)
                file.refuse(frame, wrong, column=name, allowed="a whole number")
            seen = pl.concat([seen, frame["user_id"]])
            frame = frame.with_columns(pl.col("history_len", "last_time_ms").cast(pl.Int64))
            for name in _LISTS:
                wrong = ~pl.col(name).str.contains(r"^(\d+( \d+)*)?$")
                file.refuse(frame, wrong, column=name, allowed="video ids parted by one space")
            watched = pl.col("watch_seq").str.count_matches(" ") + 1
            file.refuse(
                frame,
                pl.col("history_len") < watched,
                column="history_len",
                allowed="at least the number of videos in watch_seq",
            )
            self._read_users(file, frame)

    def _read_users(self, file: DelimitedFile, frame: pl.DataFrame) -> None:
        columns = (LINE, "user_id", "history_len", "last_time_ms", *_LISTS)
        for line, user, history_len, last_ms, *texts in frame.select(columns).iter_rows():
            watched, liked, viewed = (text.split() for text in texts)
            num_absent = history_len - len(watched)
            views, likes = _places(viewed, watched), _places(liked, watched)
            num_early = len(viewed) - len(views)
            if not num_absent and (num_early or len(likes) < len(liked)):
                name = "long_watch_seq" if num_early else "like_seq"
                file.refuse(
                    frame,
                    pl.col(LINE) == line,
                    column=name,
                    allowed="videos of watch_seq in their order, for history_len is its length",
                )
            self._add(line, user, watched, viewed[:num_early], views, likes, last_ms * 1000)
            self.num_exposures += len(watched)
            self.num_long_views += len(viewed)
            self.num_likes += len(liked)
            self.num_early_views += num_early
            self.num_early_likes += len(liked) - len(likes)
            self.num_absent += num_absent
            self.num_cut_users += num_absent > 0
            pairs = itertools.pairwise(watched)
            self.num_alike += sum(one == other for one, other in pairs)

    def _add(
        self,
        line: int,
        user: str,
        watched: Sequence[str],
        early_views: Sequence[str],
        views: set[int],
        likes: set[int],
        last_time: int,
    ) -> None:
        def event(name: str, item: str, place: int, exposure: str | None, at: int | None) -> None:
            event_id = f"{exposure or f'train-{line}-early-{place}'}-{name}"
            sequence = place * EVENTS_PER_EXPOSURE + _PLACES[name]
            self.rows.append((event_id, user, item, name, at, sequence, exposure))

        # The showing of an early long view is not in the file, so it has no exposure.
        for place, item in enumerate(early_views):
            event("long_view", item, place, None, None)
        for number, item in enumerate(watched):
            place, exposure = len(early_views) + number, f"train-{line}-{number}"
            at = last_time if number == len(watched) - 1 else None
            event(SHOW, item, place, exposure, at)
            if number in views:
                event("long_view", item, place, exposure, at)
            if number in likes:
                event("like", item, place, exposure, at)
        self.last.append((user, last_time, watched[-1]))
        self.num_places = max(self.num_places, len(early_views) + len(watched))

    def events(self) -> pl.DataFrame:
        """As exposure_events gives them; `value`, the seconds watched, is unknown."""
        rows = pl.DataFrame(
            self.rows,
            schema={
                "event_id": pl.String,
                "user_id": pl.String,
                "item_id": pl.String,
                "event": pl.String,
                "time": pl.Int64,
                "sequence": pl.Int64,
                "exposure_id": pl.String,
            },
            orient="row",
        )
        columns = [c for c in rows.columns if c != "exposure_id"]
        return rows.select(*columns, pl.lit(None, pl.Float64).alias("value"), "exposure_id")

    def last_exposures(self) -> pl.DataFrame:
        """user_id, last_time (µs), last_item."""
        schema = {"user_id": pl.String, "last_time": pl.Int64, "last_item": pl.String}
        return pl.DataFrame(self.last, schema=schema, orient="row")

    def notes(self) -> tuple[str, ...]:
        """What the counts do not say."""
        return (
            "watch_seq holds exposures, not clicks: the train part has no clicks, and its targets "
            "are long views and likes.",
            f"The source itself had cut off {self.num_absent:,} exposures of {self.num_cut_users:,}"
            f" users; {self.num_early_views:,} long views of before are known and kept, without "
            "their exposure.",
            f"{self.num_alike:,} exposures of the train part are of the same video as the one "
            "before. In the logs most such are exact duplicates, and dropped; here nothing tells, "
            "and they are kept.",
        )


def _places(chosen: Sequence[str], watched: Sequence[str]) -> set[int]:
    """Where the end of `chosen` stands in `watched`, matched from the last backwards.

    As many as can be matched in order; the rest of `chosen`, its beginning, came before `watched`.
    """
    places: set[int] = set()
    position = len(watched) - 1
    for item in reversed(chosen):
        while position >= 0 and watched[position] != item:
            position -= 1
        if position < 0:
            break
        places.add(position)
        position -= 1
    return places
