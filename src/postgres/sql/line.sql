-- The parts of the steps. They take the row of a lock and return it changed; `save` stores it.
-- They have the rights and the search path of the step that calls them.

-- A function that returns nothing is called in an assignment: `PERFORM` is a statement, and takes
-- twenty times as long.

-- The time of the server in microseconds.
CREATE OR REPLACE FUNCTION "@schema@".clock() RETURNS bigint
LANGUAGE plpgsql AS $body$
BEGIN
  RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $body$;

-- The first part of every step: one lock on the name, first come first served, then the row. Its
-- last tick is the time of the step from then on. If the server's clock was set back, time does not
-- advance.
CREATE OR REPLACE FUNCTION "@schema@".begin_step(name_ text, durable_ boolean) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE
  l "@schema@".locks;
  done text;
BEGIN
  -- Applies to the commit of this transaction. A SET clause of the function would end before that.
  IF NOT durable_ THEN
    done := set_config('synchronous_commit', 'off', true);
  ELSIF current_setting('synchronous_commit') = 'off' THEN
    done := set_config('synchronous_commit', 'on', true);
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'locks need transactions that are read committed, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'SL002', HINT = 'ALTER ROLE … SET default_transaction_isolation = ''read committed''';
  END IF;
  done := pg_advisory_xact_lock(hashtextextended('@schema@/' || name_, 0));
  -- Only a step changes this row, and has that lock.
  SELECT * INTO l FROM locks WHERE key = sha256(convert_to(name_, 'UTF8'));
  IF FOUND THEN
    l.last := greatest(l.last, clock());
  END IF;
  RETURN l;
END $body$;

-- The last part of a step: stores the row. Returns the answer.
CREATE OR REPLACE FUNCTION "@schema@".save(l "@schema@".locks, answer anyelement) RETURNS anyelement
LANGUAGE plpgsql AS $body$
BEGIN
  UPDATE locks SET kind = l.kind, shares = l.shares, lease = l.lease, run = l.run, last = l.last,
    until = l.until, used = l.used, waiting = l.waiting, due = l.due, crashed = l.crashed,
    drops = l.drops, fenced = l.fenced, token = l.token, sole = l.sole
  WHERE number = l.number;
  RETURN answer;
END $body$;

CREATE OR REPLACE FUNCTION "@schema@".find(l "@schema@".locks, id_ text) RETURNS "@schema@".entries
LANGUAGE plpgsql AS $body$
DECLARE r "@schema@".entries;
BEGIN
  IF (l.sole).id = id_ THEN
    RETURN l.sole;
  END IF;
  SELECT * INTO r FROM entries WHERE lock = l.number AND id = id_;
  RETURN r;
END $body$;

-- An entry as text: '<number> <turn> <token> <offered> <crashed> <cost> <mode> <drops> <patience>
-- <claim window> <delay> <inbox> <owner>'.
CREATE OR REPLACE FUNCTION "@schema@".shown(r "@schema@".entries) RETURNS text
LANGUAGE plpgsql AS $body$
BEGIN
  RETURN concat_ws(' ', r.number, r.turn, r.token, r.offered::int, r.crashed::int, r.cost, r.mode,
    r.drops::int, r.patience, r.claim, r.delay, r.inbox, r.owner);
END $body$;

-- '<id> <expiry> <entry>' of the holder of all shares, or nothing.
CREATE OR REPLACE FUNCTION "@schema@".shown_sole(l "@schema@".locks) RETURNS text
LANGUAGE plpgsql AS $body$
BEGIN
  IF (l.sole).id IS NULL THEN
    RETURN '';
  END IF;
  RETURN concat_ws(' ', (l.sole).id, (l.sole).expiry, shown(l.sole));
END $body$;

-- The advisory lock that a session holds, shared, as long as it listens on this inbox.
CREATE OR REPLACE FUNCTION "@schema@".session_key(inbox_ text) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $body$ SELECT hashtextextended('@schema@ session ' || inbox_, 0) $body$;

-- Whether the session that listened on this inbox has ended.
CREATE OR REPLACE FUNCTION "@schema@".is_gone(inbox_ text) RETURNS boolean
LANGUAGE plpgsql AS $body$
BEGIN
  RETURN NOT starts_with(inbox_, '-')
    AND pg_try_advisory_xact_lock(hashtextextended('@schema@ session ' || inbox_, 0));
END $body$;

-- Sends a message to an inbox, unless no session listens on it.
CREATE OR REPLACE FUNCTION "@schema@".tell(inbox_ text, message text) RETURNS text
LANGUAGE plpgsql AS $body$
BEGIN
  IF starts_with(inbox_, '-') THEN
    RETURN NULL;
  END IF;
  RETURN pg_notify(inbox_, message);
END $body$;

-- Adds a holder, or renews it.
CREATE OR REPLACE FUNCTION "@schema@".hold(l "@schema@".locks, r "@schema@".entries, expiry_ bigint)
RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE was "char" := r.state;
BEGIN
  r.state := 'h';
  r.expiry := expiry_;
  IF was = 'w' THEN
    l.waiting := l.waiting - 1;
  END IF;
  IF r.cost = l.shares THEN
    l.sole := r;
    IF was IN ('w', 'b') THEN
      DELETE FROM entries WHERE lock = r.lock AND id = r.id;
    END IF;
  ELSIF was IS NULL THEN
    INSERT INTO entries SELECT r.*;
  ELSE
    -- A writer that was forgotten comes back as a reader with another cost and mode.
    UPDATE entries SET state = 'h', turn = r.turn, token = r.token, offered = r.offered,
      crashed = r.crashed, expiry = r.expiry, cost = r.cost, mode = r.mode
    WHERE lock = r.lock AND id = r.id;
  END IF;
  l.due := least(l.due, expiry_);
  RETURN l;
END $body$;

-- Removes a holder. In `entries`, its row stays.
CREATE OR REPLACE FUNCTION "@schema@".end_hold(l "@schema@".locks, r "@schema@".entries) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
BEGIN
  IF r.cost = l.shares THEN
    l.sole := NULL;
  END IF;
  l.used := l.used - r.cost;
  RETURN l;
END $body$;

-- Takes back an unclaimed offer. The waiter keeps its number, and is first again when it is polled.
CREATE OR REPLACE FUNCTION "@schema@".take_back(l "@schema@".locks, r "@schema@".entries) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
BEGIN
  l := end_hold(l, r);
  l.crashed := l.crashed OR r.crashed;
  IF r.cost < l.shares THEN
    DELETE FROM entries WHERE lock = r.lock AND id = r.id;
  END IF;
  IF r.deadline IS NOT NULL THEN
    r.state := 'b';
    r.turn := 0;
    r.token := 0;
    r.offered := false;
    r.crashed := false;
    r.expiry := NULL;
    INSERT INTO entries SELECT r.*;
  END IF;
  RETURN l;
END $body$;

-- Ends a hold that was not released. Its holder and the next holder are informed.
CREATE OR REPLACE FUNCTION "@schema@".expire(l "@schema@".locks, r "@schema@".entries) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE done text := tell(r.inbox, 'lost ' || r.id);
BEGIN
  l := end_hold(l, r);
  IF r.cost < l.shares THEN
    DELETE FROM entries WHERE lock = r.lock AND id = r.id;
  END IF;
  l.crashed := l.crashed OR r.mode = 'x';
  IF r.delay > 0 THEN
    l.until := greatest(l.until, l.last + r.delay);
  END IF;
  RETURN l;
END $body$;

-- Ends what is overdue. `due` is never later than the first deadline.
CREATE OR REPLACE FUNCTION "@schema@".reap(l "@schema@".locks) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE
  r "@schema@".entries;
  t bigint := l.last;
BEGIN
  IF t < l.due THEN
    RETURN l;
  END IF;
  IF (l.sole).expiry <= t THEN
    l := CASE WHEN (l.sole).offered THEN take_back(l, l.sole) ELSE expire(l, l.sole) END;
  END IF;
  FOR r IN SELECT * FROM entries WHERE lock = l.number AND state = 'h' AND expiry <= t ORDER BY expiry LOOP
    l := CASE WHEN r.offered THEN take_back(l, r) ELSE expire(l, r) END;
  END LOOP;
  IF (l.sole).deadline <= t THEN
    l.sole.deadline := NULL;
  END IF;
  UPDATE entries SET deadline = NULL WHERE lock = l.number AND state = 'h' AND deadline <= t;
  WITH gone AS (DELETE FROM entries WHERE lock = l.number AND state <> 'h' AND deadline <= t RETURNING state)
    SELECT l.waiting - count(*) FILTER (WHERE state = 'w') INTO l.waiting FROM gone;
  SELECT least((l.sole).expiry, (l.sole).deadline, min(expiry), min(deadline), 9007199254740991)
    INTO l.due FROM entries WHERE lock = l.number;
  RETURN l;
END $body$;

-- Checks the crash marker. Without it, or if the lock was last used before it was written, the
-- lock grants nothing for one lease: grants may have been lost. Recorded holds may be outdated, so
-- none counts until its holder asserts it with its token.
CREATE OR REPLACE FUNCTION "@schema@".check_server(l "@schema@".locks, quarantine_ boolean) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE
  m "@schema@".marker;
  r "@schema@".entries;
BEGIN
  IF NOT quarantine_ THEN
    RETURN l;
  END IF;
  SELECT * INTO m FROM marker;
  IF NOT FOUND THEN
    INSERT INTO marker (run, born) VALUES (gen_random_uuid(), l.last) ON CONFLICT DO NOTHING;
    SELECT * INTO m FROM marker;
  END IF;
  IF l.run = m.run THEN
    RETURN l;
  END IF;
  IF l.run IS NULL THEN
    l.until := greatest(l.until, least(m.born, l.last) + l.lease);
  ELSE
    l.until := greatest(l.until, l.last + l.lease);
    IF (l.sole).id IS NOT NULL THEN
      l := take_back(l, l.sole);
    END IF;
    FOR r IN SELECT * FROM entries WHERE lock = l.number AND state = 'h' LOOP
      l := take_back(l, r);
    END LOOP;
  END IF;
  l.run := m.run;
  RETURN l;
END $body$;

-- Whether a grant in this mode may happen now. It may not as long as a transaction has asserted a
-- hold: readers put off writers only. Never waits.
CREATE OR REPLACE FUNCTION "@schema@".is_open(l "@schema@".locks, mode_ "char", turn_ bigint) RETURNS boolean
LANGUAGE plpgsql AS $body$
BEGIN
  IF mode_ = 's' THEN
    UPDATE fences SET turn = turn_
      WHERE lock = (SELECT lock FROM fences WHERE lock = l.number FOR NO KEY UPDATE SKIP LOCKED);
  ELSE
    UPDATE fences SET turn = turn_
      WHERE lock = (SELECT lock FROM fences WHERE lock = l.number FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN FOUND;
END $body$;

-- Grants the lock to a request. The caller of the step (`me`) gets the grant in the reply. Another
-- client gets an offer in its inbox, and must claim it. If no session listens on that inbox, the
-- waiter is bypassed and keeps its number.
CREATE OR REPLACE FUNCTION "@schema@".give(l "@schema@".locks, r "@schema@".entries, me text)
RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE
  expiry_ bigint := l.last + l.lease;
  done text;
BEGIN
  r.offered := r.id IS DISTINCT FROM me;
  IF r.offered AND is_gone(r.inbox) THEN
    UPDATE entries SET state = 'b' WHERE lock = r.lock AND id = r.id;
    l.waiting := l.waiting - 1;
    RETURN l;
  END IF;
  l.fenced := NOT is_open(l, r.mode, l.last + 1);
  IF l.fenced THEN
    RETURN l;
  END IF;
  IF r.offered THEN
    -- Not longer than the queue entry lasts. Otherwise each of many dead waiters would cost a
    -- window.
    expiry_ := least(l.last + r.claim, coalesce(r.deadline, l.last + r.patience));
  END IF;
  l.last := l.last + 1;
  r.turn := l.last;
  r.token := CASE WHEN r.mode = 's' AND l.token > 0 THEN l.token ELSE r.turn END;
  r.crashed := l.crashed;
  IF r.offered THEN
    done := tell(r.inbox, concat_ws(' ', 'offer', r.id, r.turn, r.token, r.crashed::int));
  END IF;
  l.token := r.token;
  l.crashed := false;
  l.used := l.used + r.cost;
  RETURN hold(l, r, expiry_);
END $body$;

-- Grants from the head of the queue while shares are left.
CREATE OR REPLACE FUNCTION "@schema@".grant_next(l "@schema@".locks, me text) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE r "@schema@".entries;
BEGIN
  WHILE l.waiting > 0 AND l.used < l.shares AND l.last >= l.until LOOP
    SELECT * INTO r FROM entries WHERE lock = l.number AND state = 'w' ORDER BY number LIMIT 1;
    IF NOT FOUND OR l.used + r.cost > l.shares THEN
      RETURN l;
    END IF;
    l := give(l, r, me);
    IF l.fenced THEN
      RETURN l;
    END IF;
  END LOOP;
  IF l.waiting = 0 THEN
    l.fenced := false;
  END IF;
  RETURN l;
END $body$;

-- Ends holds that end with the session of their client, if it has none.
CREATE OR REPLACE FUNCTION "@schema@".expire_disconnected(l "@schema@".locks) RETURNS "@schema@".locks
LANGUAGE plpgsql AS $body$
DECLARE r "@schema@".entries;
BEGIN
  IF NOT l.drops OR l.used = 0 OR l.waiting = 0 THEN
    RETURN l;
  END IF;
  FOR r IN
    SELECT (l.sole).* WHERE (l.sole).id IS NOT NULL
    UNION ALL (SELECT * FROM entries WHERE lock = l.number AND state = 'h' ORDER BY number LIMIT 16)
  LOOP
    IF r.drops AND NOT r.offered AND is_gone(r.inbox) THEN
      l := expire(l, r);
    END IF;
  END LOOP;
  RETURN l;
END $body$;

-- In how many microseconds the lock may change without a request; 0 for never. A grant that is put
-- off is tried again after a tenth of a second.
CREATE OR REPLACE FUNCTION "@schema@".wake(l "@schema@".locks) RETURNS bigint
LANGUAGE plpgsql AS $body$
DECLARE
  after bigint := l.until - l.last;
  most bigint := CASE WHEN l.fenced THEN 100000 WHEN l.drops THEN 500000 END;
BEGIN
  IF after <= 0 THEN
    after := (l.sole).expiry;
    IF after IS NULL AND l.used > 0 THEN
      SELECT min(expiry) INTO after FROM entries WHERE lock = l.number AND state = 'h';
    END IF;
    after := greatest(after - l.last, CASE WHEN after IS NULL THEN 0 ELSE 1 END);
  END IF;
  IF after = 0 OR after > most THEN
    after := coalesce(most, after);
  END IF;
  RETURN after;
END $body$;
