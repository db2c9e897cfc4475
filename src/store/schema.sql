-- The tables of a varved file, on the device and at the fleet. Stock tools read all of this as plain SQL; `body` is the
-- one column that needs varved. Changes within a major format version only add.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- A store is one line of sequence numbers. `variant` is 0 but for what the fleet keeps apart: a range that arrived twice
-- with different content, each variant the copy of one device.
CREATE TABLE store (
    id      INTEGER PRIMARY KEY,
    uuid    TEXT NOT NULL,
    variant INTEGER NOT NULL DEFAULT 0,
    created INTEGER,                       -- UTC ns by the clock of the time, trusted or not
    UNIQUE (uuid, variant)
) STRICT;

CREATE TABLE series (
    store INTEGER NOT NULL REFERENCES store (id),
    id    INTEGER NOT NULL,                -- append-only, never reused
    name  TEXT NOT NULL,                   -- measurement/field[,tag=value…]
    unit  TEXT NOT NULL,                   -- SenML symbol, '' where unknown
    kind  TEXT NOT NULL,                   -- int float bool text
    scale TEXT NOT NULL,                   -- decimal factor, such as 1e-3
    PRIMARY KEY (store, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE boot (
    store     INTEGER NOT NULL REFERENCES store (id),
    id        INTEGER NOT NULL,            -- in the order in which the store met them
    boot_uuid TEXT NOT NULL,               -- /proc/sys/kernel/random/boot_id
    PRIMARY KEY (store, id)
) STRICT, WITHOUT ROWID;

-- boottime ↔ UTC at moments when both were read together.
CREATE TABLE anchor (
    store    INTEGER NOT NULL,
    boot     INTEGER NOT NULL,
    boottime INTEGER NOT NULL,             -- CLOCK_BOOTTIME, ns
    utc      INTEGER NOT NULL,             -- ns since 1970
    trusted  INTEGER NOT NULL,             -- 1 where the wall clock was synchronised
    PRIMARY KEY (store, boot, boottime)
) STRICT, WITHOUT ROWID;

-- Ranges of one store are disjoint or nested, never crossing. The bounds are for finding, not for computing: UTC of boot
-- time is derived from anchors at each reading, since anchors are learnt later.
-- `id` is store × 2^48 + first_seq: one key in one tree, so that a commit appends to its right edge and dirties one
-- leaf; a composite key would cost a second tree, and WITHOUT ROWID would push every body out to overflow pages.
CREATE TABLE segment (
    id           INTEGER PRIMARY KEY,
    store        INTEGER GENERATED ALWAYS AS (id >> 48) VIRTUAL,
    first_seq    INTEGER GENERATED ALWAYS AS (id & 0xFFFFFFFFFFFF) VIRTUAL,
    last_seq     INTEGER NOT NULL,
    kind         INTEGER NOT NULL,         -- 0 data, 1 loss
    boot_min     INTEGER,                  -- lowest boot cited, NULL if none
    boot_max     INTEGER,                  -- highest
    boottime_min INTEGER,                  -- earliest boottime stamp in boot_min, ns
    boottime_max INTEGER,                  -- latest boottime stamp in boot_max, ns
    utc_min      INTEGER,                  -- earliest stamp that readings brought themselves, ns
    utc_max      INTEGER,
    n            INTEGER NOT NULL,         -- readings
    body         BLOB NOT NULL             -- last, so that a scan of the bounds skips its overflow pages
) STRICT;

-- What the fleet has durably committed, as it last said.
CREATE TABLE ack (
    store     INTEGER NOT NULL REFERENCES store (id),
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    PRIMARY KEY (store, first_seq)
) STRICT, WITHOUT ROWID;

-- Hourly figures of readings whose UTC is known; they outlive the readings. An hour's figures are those of all its rows
-- together. By hour first, so that an hour's rows are added at one place: by series first, each row would dirty a page of
-- its own.
CREATE TABLE rollup (
    store     INTEGER NOT NULL,
    series    INTEGER NOT NULL,
    hour      INTEGER NOT NULL,            -- UTC hours since 1970
    first_seq INTEGER NOT NULL,            -- a segment that these figures are from
    n         INTEGER NOT NULL,            -- readings with a finite value
    min       REAL,
    mean      REAL,
    max       REAL,
    last      REAL,
    PRIMARY KEY (store, hour, series, first_seq)
) STRICT, WITHOUT ROWID;

-- What an operator should know happened: quarantine, salvage, fresh store id, rot, rollback.
CREATE TABLE event (
    id     INTEGER PRIMARY KEY,
    utc    INTEGER NOT NULL,               -- ns, by the clock of the time
    kind   TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

-- What became of the oldest hours when they had to make room: the same by day. A reading is in an hour or in a day, never in
-- both. Since format 1.1; a file that has it not is given it.
CREATE TABLE IF NOT EXISTS rollup_day (
    store  INTEGER NOT NULL,
    series INTEGER NOT NULL,
    day    INTEGER NOT NULL,               -- UTC days since 1970
    n      INTEGER NOT NULL,               -- readings with a finite value
    min    REAL,
    mean   REAL,
    max    REAL,
    last   REAL,
    PRIMARY KEY (store, day, series)
) STRICT, WITHOUT ROWID;
