"""`penchant recommend` against a running server, as a person types it."""

from tests.serving.processes import Served, penchant


def test_a_slate_with_reasons(value_server: Served) -> None:
    done = penchant(
        *("recommend", "user-011", "--address", value_server.address, "-k", "8"),
        *("--objective", "direct"),
        *("--weight", "order=20", "--diversity", "0.5", "--cap", "craft=2", "--share", "live=0.25"),
    )
    assert done.returncode == 0, done.stderr
    for word in ("For user-011", "watch", "order", "by value", "here for", "diversity", "题 "):
        assert word in done.stdout, word
    assert done.stdout.count("item-") == 8 and done.stdout.count("live") >= 2


def test_a_narrow_terminal_gets_two_tables(value_server: Served) -> None:
    asked = ("recommend", "user-011", "--address", value_server.address, "-k", "3")
    wide = penchant(*asked, columns=200).stdout
    narrow = penchant(*asked, columns=80).stdout
    for word in ("title", "here for", "circle", "retrieved", "by value", "watch", "order"):
        assert wide.count(f" {word} ") == narrow.count(f" {word} ") == 1, narrow
    assert wide.count(" id ") == 1 and narrow.count(" id ") == 2
    assert max(map(len, narrow.splitlines())) <= 80


def test_a_narrow_terminal_cuts_nothing_off_a_query(value_server: Served) -> None:
    asked = ("query", "user-011", "--address", value_server.address, "-k", "3")
    filters = ("--filter", "price=0..1000000", "--filter", "craft!=none")
    narrow = penchant(*asked, *filters, columns=80).stdout
    for word in ("score", "circle", "interest"):
        assert narrow.count(f" {word} ") == 1, narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_what_a_slate_keeps_and_why_in_words(value_server: Served) -> None:
    done = penchant(
        *("recommend", "user-011", "--address", value_server.address, "-k", "8"),
        *("--objective", "direct"),
        *("--floor", "new=0.5", "--new-events", "99", "--floor", "kind:live=0.25", "--paced"),
        *("--origin", "exploratory=0.25", "--exploration", "0.5", "--seed", "3"),
        *("--diversity", "0.3", "--method", "dpp", "--explain", "--language", "zh"),
    )
    assert done.returncode == 0, done.stderr
    for word in ("from", "exploratory", "why", "看过", "Shares of paced floors lately"):
        assert word in done.stdout, word
    assert done.stdout.count("exploratory") >= 2


def test_some_user_and_no_value_model(server: Served) -> None:
    done = penchant("recommend", "--any", "--address", server.address, "-k", "3")
    assert done.returncode == 0 and "no value model" in done.stdout


def test_what_cannot_be_read(value_server: Served) -> None:
    where = ("--address", value_server.address)
    for arguments, message in (
        (("user-011", "--cap", "craft"), "write NAME=WHOLE NUMBER"),
        (("user-011", "--share", "live=much"), "write NAME=NUMBER"),
        ((), "give one of USER and --any"),
        (("user-011", "--weight", "ghost=1"), "no head 'ghost'; this bundle has: watch, order"),
        (("user-011", "--cap", "craft=0"), "allowed: 1 or more"),
        (("user-011", "--share", "lives=0.1"), "no kind 'lives'; kinds: product"),
        (("user-011", "--floor", "new=0.1", "--floor", "new=0.2"), "--floor: the floor's group is"),
        (("user-011", "--floor", "old=0.1"), "write new=NUMBER, small=NUMBER or COLUMN:VALUE"),
        (("user-011", "--floor", "small=0.1"), "no creators can be told by 'creator'; by: circle"),
        (("user-011", "--origin", "new=0.1"), "no origin 'new'; origins: known, forgotten"),
        (("user-011", "--objective", "sales"), "no objective 'sales'"),
        (("user-011", "--method", "best"), "no method 'best'; methods: mmr, dpp"),
        (("user-011", "--filter", "price=cheap"), "--filter price=cheap: "),
    ):
        done = penchant("recommend", *arguments, *where)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_limits_are_set_by_name(start_server: object) -> None:
    done = penchant("serve", "nowhere", "--state", "nowhere", "--limit", "max_kk=5")
    assert done.returncode == 2 and "limit 'max_kk=5' cannot be read" in done.stderr
    assert "max_ranked" in done.stderr
