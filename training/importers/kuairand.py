"""KuaiRand becomes a dataset: short videos as they were shown, and what each user did at each.

Full release (Pure, 1K or 27K; zenodo.org/records/10439422): the logs `log_standard_*.csv` and
`log_random_*.csv`, `user_features_*.csv` and `video_features_basic_*.csv`, in the release's folder
`data`. Every exposure has milliseconds: time = "exact". See training/importers/kuairand_log.py for
what an exposure becomes. Logs are streamed; the tables of videos and users are held in memory.

Partial layout: training/importers/kuairand_sequences.py.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from model.errors import DatasetError
from training.importers.behaviours import Period
from training.importers.delimited import DelimitedFile, refuse_nothing_left, unknown_layout
from training.importers.grouping import (
    SLICE_ROWS,
    Distinct,
    grouped_by_user,
    without_repeats,
)
from training.importers.kuairand_features import (
    USER_COLUMNS,
    VIDEO_COLUMNS,
    bare_videos,
    kuairand_schema,
    read_users,
    read_videos,
)
from training.importers.kuairand_log import (
    EVENTS,
    RANDOM_SHOW,
    RELEASE_COLUMNS,
    SHOW,
    ExposureLog,
    exposure_events,
    timed_events,
)
from training.importers.kuairand_sequences import SEQUENCES, import_sequences
from training.importers.writer import ImportReport, Progress, new_dataset, refuse_taken

ORIGIN = "The releases are at https://zenodo.org/records/10439422: unpack one of them."

_SPANS = ("4_08_to_4_21", "4_22_to_5_08")
_LOGS = {
    "pure": tuple(f"log_standard_{span}_pure.csv" for span in _SPANS),
    "1k": tuple(f"log_standard_{span}_1k.csv" for span in _SPANS),
    "27k": tuple(f"log_standard_{span}_27k_part{n}.csv" for span in _SPANS for n in (1, 2)),
}
"""The standard logs of each release; log_random_4_22_to_5_08_*.csv comes last."""

_PERIOD = Period(
    start=datetime(2022, 4, 7, tzinfo=UTC),
    end=datetime(2022, 5, 10, tzinfo=UTC),
    label="2022-04-07 to 2022-05-09",
)
"""The days that the release names, with a day to spare at either end."""


def import_kuairand(source: Path, out: Path, *, progress: Progress | None = None) -> ImportReport:
    """Write KuaiRand from the folder `source` as a dataset under `out`.

    source: a release's folder, or its folder `data`, or that of the partial layout.

    Raises DatasetError if no layout is there, a file of a release is missing, a line is malformed,
    or `out` is taken. `out` appears whole or not at all.
    """
    refuse_taken(out)
    tell = progress or (lambda fraction, message: None)
    if (source / SEQUENCES).is_file():
        return import_sequences(source, out, period=_PERIOD, tell=tell)
    folder = source / "data" if (source / "data").is_dir() else source
    found = sorted({m[1] for p in folder.glob("log_*.csv") if (m := _RELEASE.fullmatch(p.name))})
    if not found:
        raise unknown_layout(
            source,
            expected="log_standard_*.csv, log_random_*.csv, user_features_*.csv and "
            "video_features_basic_*.csv (of pure, 1k or 27k), in this folder or its folder data.",
            origin=ORIGIN,
        )
    if len(found) > 1:
        raise DatasetError(
            f"files of several releases are here: {', '.join(found)}.",
            file=str(folder),
            remedy="They number users and videos differently: keep one release a folder.",
        )
    return _import_release(folder, found[0], out, tell=tell)


_RELEASE = re.compile(r"log_(?:standard|random)_.*_(pure|1k|27k)(?:_part\d)?\.csv")


def _import_release(folder: Path, release: str, out: Path, *, tell: Progress) -> ImportReport:
    names = (*_LOGS[release], f"log_random_4_22_to_5_08_{release}.csv")
    logs = [DelimitedFile(folder / name, RELEASE_COLUMNS, origin=ORIGIN) for name in names]
    log = ExposureLog(logs, RELEASE_COLUMNS, _PERIOD)
    video_file = DelimitedFile(
        folder / f"video_features_basic_{release}.csv", VIDEO_COLUMNS, quoted=True, origin=ORIGIN
    )
    user_file = DelimitedFile(
        folder / f"user_features_{release}.csv", USER_COLUMNS, quoted=True, origin=ORIGIN
    )
    schema = kuairand_schema(f"kuairand-{release}", time="exact", events=EVENTS)
    shown, active = Distinct("item_id"), Distinct("user_id")
    num_exposures = num_events = 0
    with new_dataset(
        out, schema, progress=lambda part, what: tell(0.7 + 0.3 * part, f"checking {what}")
    ) as writer:
        with grouped_by_user(out, num_bytes=log.num_bytes) as groups:
            for _, exposures in log.exposures(lambda part, what: tell(0.35 * part, what)):
                groups.add(exposures)
                shown.add(exposures)
                active.add(exposures)
            for users in groups.read(lambda part, what: tell(0.35 + 0.25 * part, what)):
                kept = without_repeats(users, ["user_id", "item_id", "time", "row"])
                log.drop("exact duplicates of an earlier exposure", users.height - kept.height)
                num_exposures += kept.height
                for rows in kept.iter_slices(SLICE_ROWS):
                    events = timed_events(exposure_events(rows))
                    writer.append_events(events)
                    num_events += events.height
        refuse_nothing_left("log_*.csv", num_exposures, log.dropped)
        tell(0.6, "reading videos and users")
        videos, people = read_videos(video_file), read_users(user_file)
        bare = shown.rows()["item_id"]
        bare = bare.filter(~bare.is_in(videos["item_id"].implode()))
        writer.write_items(pl.concat([videos, bare_videos(bare)]))
        known = people.join(active.rows(), on="user_id", how="semi", maintain_order="left")
        writer.write_users(known)
    idle = people.height - known.height
    return ImportReport(
        out=out,
        layout=f"full release KuaiRand-{release}",
        read={**log.num_read, video_file.name: videos.height, user_file.name: people.height},
        written={
            "users": writer.summary.num_users,
            "items": videos.height + len(bare),
            "exposures": num_exposures,
            "events": num_events,
        },
        dropped=log.dropped | ({"users without an event": idle} if idle else {}),
        summary=writer.summary,
        notes=tuple(_notes(folder, len(bare))),
    )


def _notes(folder: Path, num_bare: int) -> list[str]:
    notes = [
        f"The random exposures (is_rand = 1) are the event {RANDOM_SHOW!r}, all others {SHOW!r}."
    ]
    if num_bare:
        notes.append(f"{num_bare:,} videos of the logs have no row of features: only their id.")
    unread = sorted(path.name for path in folder.glob("video_features_statistic_*.csv"))
    if unread:
        notes.append(
            f"Not read: {', '.join(unread)}; averages over the whole month tell of the future."
        )
    return notes
