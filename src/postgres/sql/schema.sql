-- The locks of Stanchion: tables and functions, version 1. Running this script again changes
-- nothing. Times and durations are in microseconds; times are the server's.
--
-- To let a role use the locks: GRANT USAGE ON SCHEMA "@schema@" TO role;
DO $install$
DECLARE found int;
BEGIN
  IF to_regnamespace('"@schema@"') IS NULL THEN
    CREATE SCHEMA "@schema@";
  END IF;
  IF to_regclass('"@schema@".version') IS NOT NULL THEN
    SELECT max(version) INTO found FROM "@schema@".version;
    IF found <> 1 THEN
      RAISE EXCEPTION 'schema "@schema@" has the locks of version %, not 1', found USING ERRCODE = 'SL003';
    END IF;
  END IF;
END $install$;

CREATE TABLE IF NOT EXISTS "@schema@".version (version int PRIMARY KEY);

-- What an id requested, and what it was granted. A holder of all shares is not here, but in
-- `locks.sole`.
CREATE TABLE IF NOT EXISTS "@schema@".entries (
  lock bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  number bigint NOT NULL,             -- the arrival number: a tick
  state "char" NOT NULL,              -- 'w' waits, 'b' was bypassed, 'h' holds
  turn bigint NOT NULL,               -- the tick of the grant; 0 for a waiter
  token bigint NOT NULL,
  offered boolean NOT NULL,           -- whether the grant is still an offer
  crashed boolean NOT NULL,           -- whether the holder before crashed
  cost bigint NOT NULL,               -- how many shares
  mode "char" NOT NULL,               -- 'x' exclusive, 's' shared, 'p' permits
  drops boolean NOT NULL,             -- whether the hold ends with the session of its client
  patience bigint NOT NULL,
  claim bigint NOT NULL,
  delay bigint NOT NULL,
  inbox text COLLATE "C" NOT NULL,    -- the channel; a dash before it if no session listens
  owner text NOT NULL,                -- '<pid> <host> <label>'
  deadline bigint,                    -- when its queue entry ends
  expiry bigint,                      -- when its hold ends
  PRIMARY KEY (lock, id)
) WITH (fillfactor = 50);
-- The queue in order, and the holders.
CREATE INDEX IF NOT EXISTS entries_line ON "@schema@".entries (lock, state, number);

-- One row for each lock that is in use, or was within the last day.
CREATE TABLE IF NOT EXISTS "@schema@".locks (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key bytea NOT NULL UNIQUE,          -- SHA-256 of the name: names have any length
  name text NOT NULL,
  kind text NOT NULL,                 -- 'lock', 'rwlock' or 'semaphore'
  shares bigint NOT NULL,             -- 1, 1,000,000,000 or n
  lease bigint NOT NULL,
  run uuid,                           -- the run of the server that used it last
  last bigint NOT NULL,               -- the last tick: max(last + 1, time of the server)
  until bigint NOT NULL DEFAULT 0,    -- no grants before this time
  used bigint NOT NULL DEFAULT 0,     -- shares given out
  waiting bigint NOT NULL DEFAULT 0,  -- entries in state 'w'
  due bigint NOT NULL DEFAULT 9007199254740991, -- no hold, offer or wait ends before this time
  crashed boolean NOT NULL DEFAULT false, -- the next grant reports a crash
  drops boolean NOT NULL DEFAULT false,   -- some hold may end with its session
  fenced boolean NOT NULL DEFAULT false,  -- a grant is put off by a transaction that asserted the hold
  token bigint NOT NULL DEFAULT 0,    -- the last token
  sole "@schema@".entries             -- the holder of all shares
) WITH (fillfactor = 50);

-- One row for each lock. Every grant updates it, and nothing else does. A transaction that has
-- called `assert_held` holds a share lock on it, and so puts off the next grant.
CREATE TABLE IF NOT EXISTS "@schema@".fences (
  lock bigint PRIMARY KEY,
  turn bigint NOT NULL                -- the tick of the last grant
) WITH (fillfactor = 50);

-- Rows of `locks` that were removed had no tick above this.
CREATE TABLE IF NOT EXISTS "@schema@".floor (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  tick bigint NOT NULL
);

-- The crash marker: one row. A clean shutdown keeps it. Crash recovery and the promotion of a
-- standby empty the table, because it is not logged. The next step writes a new row.
CREATE UNLOGGED TABLE IF NOT EXISTS "@schema@".marker (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  run uuid NOT NULL,
  born bigint NOT NULL                -- since when no grant can have been lost; 0: no grant is older
);

WITH fresh AS (INSERT INTO "@schema@".version VALUES (1) ON CONFLICT DO NOTHING RETURNING 1),
  floored AS (INSERT INTO "@schema@".floor (tick) SELECT 0 FROM fresh ON CONFLICT DO NOTHING)
INSERT INTO "@schema@".marker (run, born) SELECT gen_random_uuid(), 0 FROM fresh ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION "@schema@".protocol() RETURNS int
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = "@schema@", pg_temp
AS $body$ SELECT max(version) FROM version $body$;
