"""Small folders in KuaiRand's two layouts, for tests to import or to break first."""

from pathlib import Path

SIGNALS = ("click", "like", "follow", "comment", "forward", "hate", "long")
RELEASE_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)
PARTIAL_HEADER = RELEASE_HEADER.replace("date,hourmin,", "").replace("is_rand,", "")
T0 = 1_650_000_000_000
"""2022-04-15 05:20 UTC, in milliseconds."""

VIDEOS = """\
video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,\
server_height,music_id,music_type,tag
0,73,NORMAL,2022-04-10,LongImport,0.0,87433.0,720.0,1280.0,91,9.0,"39,12"
1,74,AD,2022-04-09,UNKNOWN,0.0,,720.0,1280.0,0,,unknown
2,73,NORMAL,,Web,0.0,5000.0,720.0,1280.0,92,4.0,2
5,75,NORMAL,2022-04-11,Web,0.0,9000.0,720.0,1280.0,92,4.0,
"""

_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_RANGES = tuple(f"{number}_range" for number in _NUMBERS)
USER_HEADER = ",".join(
    (
        "user_id",
        "user_active_degree",
        "is_lowactive_period",
        "is_live_streamer",
        "is_video_author",
        *(name for pair in zip(_NUMBERS, _RANGES, strict=True) for name in pair),
        *(f"onehot_feat{n}" for n in range(18)),
    )
)


def user_line(user: int) -> str:
    ranges = ',"(50,100]",12,"[10,100)",,0,3624,730+,'
    return f"{user},full_active,0,-124,1,60{ranges}" + ",".join(["1.0"] * 17) + ","


USERS = "\n".join([USER_HEADER, *(user_line(u) for u in (1, 2, 3, 9))]) + "\n"


def exposure(
    user: int | str,
    video: int | str,
    time: int | str,
    *signals: str,
    played: int | str = 4000,
    random: int = 0,
    partial: bool = False,
) -> str:
    """One line of a log; time in milliseconds after T0, or any text."""
    at = T0 + time if isinstance(time, int) else time
    click, like, follow, comment, forward, hate, long = (int(s in signals) for s in SIGNALS)
    flags = f"{click},{like},{follow},{comment},{forward},{hate},{long},{played},9000,0,0,0"
    if partial:
        return f"{user},{video},{at},{flags},1".replace(",", "\t")
    return f"{user},{video},20220415,1320,{at},{flags},{random},1"


def release(folder: Path, name: str = "pure") -> Path:
    """Three exposures of user 1, two of user 2 (a random one), one line twice, one bare video."""
    data = folder / "data"
    data.mkdir(parents=True)
    parts = ("_part1", "_part2") if name == "27k" else ("",)
    early = [
        exposure(1, 0, 200, "click", "long", "like", played=61_802),
        exposure(2, 1, 100),
        exposure(1, 2, 100, "hate", played=0),
    ]
    late = [
        exposure(1, 0, 300, "click", "follow", "comment", "forward", played=""),
        exposure(1, 0, 300, "click", "follow", "comment", "forward", played=""),
        exposure(1, 7, "", "click"),
        exposure(1, 7, 10**12, "click"),
    ]
    for part in parts:
        lines = {"4_08_to_4_21": early, "4_22_to_5_08": late}
        for span, rows in lines.items():
            text = "\n".join([RELEASE_HEADER, *(rows if part != "_part2" else [])]) + "\n"
            (data / f"log_standard_{span}_{name}{part}.csv").write_text(text)
    random = exposure(2, 7, 400, "click", random=1)
    (data / f"log_random_4_22_to_5_08_{name}.csv").write_text(f"{RELEASE_HEADER}\n{random}\n")
    (data / f"video_features_basic_{name}.csv").write_text(VIDEOS)
    (data / f"video_features_statistic_{name}.csv").write_text("video_id,counts\n0,66\n")
    (data / f"user_features_{name}.csv").write_text(USERS)
    return folder


SEQUENCES = f"""\
user_id\thistory_len\tlast_time_ms\twatch_seq\tlike_seq\tlong_watch_seq
1\t4\t{T0}\t0 1 0 2\t0\t0 2
2\t9\t{T0 + 50}\t2 0\t5 2\t1 5 0
3\t1\t{T0}\t5\t\t
"""


def partial(folder: Path) -> Path:
    """Users 1 (whole), 2 (cut off by the source) and 3 in train, 9 only later."""
    folder.mkdir()
    (folder / "train_user_sequences_last50.tsv").write_text(SEQUENCES)
    val = [
        exposure(2, 0, 50, "click", partial=True),
        exposure(3, 5, 10, partial=True),
        exposure(1, 1, 90, "click", "long", played=9500, partial=True),
        exposure(1, 2, 80, partial=True),
        exposure(1, 2, 80, partial=True),
        exposure(3, 0, -20, partial=True),
    ]
    test = [
        exposure(9, 0, 500, "click", "hate", partial=True),
        exposure(1, 1, 90, "click", "long", played=9500, partial=True),
    ]
    for name, lines in (("val", val), ("test", test)):
        text = "\n".join([PARTIAL_HEADER.replace(",", "\t"), *lines]) + "\n"
        (folder / f"events_{name}.tsv").write_text(text)
    (folder / "items.tsv").write_text(
        VIDEOS.replace('"39,12"', "39;12").replace(",", "\t").replace(";", ",")
    )
    (folder / "users.csv").write_text(USERS)
    return folder
