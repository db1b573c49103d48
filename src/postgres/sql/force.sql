-- Ends the hold with this token, or all holds with -1, without asking the holders. Replies how
-- many.
CREATE OR REPLACE FUNCTION "@schema@".force_release(name_ text, token_ bigint, quarantine_ boolean, durable_ boolean) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
DECLARE
  l "@schema@".locks := begin_step(name_, durable_);
  r "@schema@".entries;
  ended bigint := 0;
BEGIN
  IF l.number IS NULL THEN
    RETURN 0;
  END IF;
  l := check_server(l, quarantine_);
  l := reap(l);
  FOR r IN
    SELECT (l.sole).* WHERE (l.sole).id IS NOT NULL
    UNION ALL SELECT * FROM entries WHERE lock = l.number AND state = 'h'
  LOOP
    IF token_ = -1 OR r.token = token_ THEN
      l := expire(l, r);
      ended := ended + 1;
    END IF;
  END LOOP;
  l := grant_next(l, NULL);
  RETURN save(l, ended);
END $body$;

-- Deletes a lock without holders and waiters, and raises the floor of ticks. Does not wait for a
-- transaction that has asserted a hold.
CREATE OR REPLACE FUNCTION "@schema@".forget(l "@schema@".locks) RETURNS boolean
LANGUAGE plpgsql AS $body$
BEGIN
  IF l.used > 0 OR EXISTS (SELECT FROM entries WHERE lock = l.number) THEN
    RETURN false;
  END IF;
  DELETE FROM fences WHERE lock = (SELECT lock FROM fences WHERE lock = l.number FOR UPDATE SKIP LOCKED);
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE floor SET tick = greatest(tick, l.last, l.token);
  DELETE FROM locks WHERE number = l.number;
  RETURN true;
END $body$;

-- Removes a lock that is not in use. Replies whether it is gone.
CREATE OR REPLACE FUNCTION "@schema@".remove(name_ text, quarantine_ boolean, durable_ boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
DECLARE
  l "@schema@".locks := begin_step(name_, durable_);
BEGIN
  IF l.number IS NULL THEN
    RETURN true;
  END IF;
  l := check_server(l, quarantine_);
  l := reap(l);
  -- A lock in quarantine may have holders that are not on record.
  IF l.until <= l.last AND forget(l) THEN
    RETURN true;
  END IF;
  l := grant_next(l, NULL);
  RETURN save(l, false);
END $body$;

-- Removes up to 100 locks that were not used for this long. Skips those that are in use now. Never
-- waits. Replies how many.
CREATE OR REPLACE FUNCTION "@schema@".tidy(unused_ bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
DECLARE
  l "@schema@".locks;
  t bigint := clock();
  removed bigint := 0;
  kept boolean;
BEGIN
  FOR l IN
    SELECT * FROM locks
      WHERE last < t - unused_ AND until <= t AND (due <= t OR used = 0 AND waiting = 0)
        AND (run IS NULL OR EXISTS (SELECT FROM marker WHERE marker.run = locks.run OR born < t - unused_))
      LIMIT 100
  LOOP
    CONTINUE WHEN NOT pg_try_advisory_xact_lock(hashtextextended('@schema@/' || l.name, 0));
    SELECT * INTO l FROM locks WHERE number = l.number AND last = l.last FOR UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
    -- What is left of callers that died is overdue.
    l.last := greatest(l.last, t);
    l := reap(l);
    IF l.waiting = 0 AND forget(l) THEN
      removed := removed + 1;
    ELSE
      kept := save(grant_next(l, NULL), true);
    END IF;
  END LOOP;
  RETURN removed;
END $body$;
