"""What lies in store.db: every table of a state folder, and the number of its format.

Users, items, the log of events and which bundle is active share one file, so that one transaction
covers them all. Ids and raw features only: rows and vectors belong to a bundle. The one exception
is a copy of what the item tower made of an item, stamped with the bundle it was made by.
"""

APPLICATION_ID = 0x50454E43
FORMAT = 2

TABLES = """
-- Which store this is, for whoever keeps parts of it elsewhere.
CREATE TABLE identity (store_id TEXT NOT NULL);
INSERT INTO identity VALUES (lower(hex(randomblob(8))));
-- `rejected`: hashes of every item that the user has a negative event with.
CREATE TABLE users (
    user INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL UNIQUE,
    profile TEXT NOT NULL DEFAULT '',
    rejected BLOB NOT NULL DEFAULT x''
);
-- Who was deleted and when, by a hash of the id: what is older does not come back.
CREATE TABLE deleted_users (
    user_hash BLOB PRIMARY KEY,
    deleted_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE event_names (code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- A user's events in the order of (timestamp, sequence), CHUNK_EVENTS a row: see chunks.py.
CREATE TABLE chunks (
    chunk INTEGER PRIMARY KEY,
    events BLOB NOT NULL,
    timestamps BLOB NOT NULL,
    item_hashes BLOB NOT NULL,
    item_ids TEXT NOT NULL,
    sequences BLOB NOT NULL,
    event_ids TEXT NOT NULL
);
-- What is still known of the events that a bounded history has let go: see summaries.py.
CREATE TABLE summaries (
    user INTEGER PRIMARY KEY,
    num_events INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    counts TEXT NOT NULL,
    seen BLOB NOT NULL
);
-- Events as they came, until they are exported and trimmed: see event_log.py.
CREATE TABLE event_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    user INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX event_log_by_user ON event_log (user);
-- Items as they are now; `sequence` rises with every change, which makes it a feed: item_log.py.
CREATE TABLE items (
    item_id TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    is_whole INTEGER NOT NULL,
    is_deleted INTEGER NOT NULL,
    is_available INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    encoded BLOB,
    encoded_by TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
-- Live items sealed into folders, one line for each bundle: see serving/live/segment.py.
CREATE TABLE segments (
    bundle_version TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    folder TEXT NOT NULL
) WITHOUT ROWID;
-- Bundles that were activated, or are to be: see generations.py.
CREATE TABLE generations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT NOT NULL,
    skips_gate INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    changed_us INTEGER NOT NULL
);
CREATE TABLE workers (
    name TEXT PRIMARY KEY,
    prepared INTEGER NOT NULL,
    serving INTEGER NOT NULL,
    seen_us INTEGER NOT NULL
) WITHOUT ROWID;
"""
