-- Ends a hold or a wait. Replies whether the id held the lock.
--   'release': ends a hold.
--   'leave': ends a wait, or a grant that was not taken.
--   'pass': gives back this turn for a future that is not polled. Its queue entry stays.
CREATE OR REPLACE FUNCTION "@schema@".release(name_ text, action_ text, id_ text, turn_ bigint, quarantine_ boolean, durable_ boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
DECLARE
  l "@schema@".locks := begin_step(name_, durable_);
  r "@schema@".entries;
  held boolean;
  done text;
BEGIN
  IF l.number IS NULL THEN
    RETURN false;
  END IF;
  -- The usual case in few statements: the holder of a plain lock leaves, and nothing is overdue. All
  -- other cases follow below.
  IF action_ = 'release' AND l.shares = 1 AND (l.sole).id = id_ AND l.last < l.due AND l.last >= l.until THEN
    IF l.waiting = 0 THEN
      UPDATE locks SET last = l.last, used = 0, fenced = false, sole = NULL
        WHERE number = l.number AND (NOT quarantine_ OR run = (SELECT m.run FROM marker AS m));
      IF FOUND THEN
        RETURN true;
      END IF;
    ELSE
      l.last := l.last + 1;
      UPDATE fences SET turn = l.last
        WHERE lock = (SELECT lock FROM fences WHERE lock = l.number
          AND (NOT quarantine_ OR l.run = (SELECT run FROM marker)) FOR UPDATE SKIP LOCKED);
      IF FOUND THEN
        DELETE FROM entries WHERE lock = l.number AND id = (
            SELECT id FROM entries WHERE lock = l.number AND state = 'w' ORDER BY number LIMIT 1)
          RETURNING lock, id, number, 'h', l.last, l.last, true, l.crashed, cost, mode, drops, patience,
            claim, delay, inbox, owner, deadline, least(l.last + claim, coalesce(deadline, l.last + patience))
          INTO r;
        l.waiting := l.waiting - 1;
        IF is_gone(r.inbox) THEN
          l.sole := r;
          l := take_back(l, r);
          RETURN save(grant_next(l, NULL), true);
        END IF;
        done := tell(r.inbox, concat_ws(' ', 'offer', r.id, r.turn, r.token, r.crashed::int));
        UPDATE locks SET last = l.last, waiting = l.waiting, due = least(l.due, r.expiry),
            crashed = false, fenced = false, token = l.last, sole = r
          WHERE number = l.number;
        RETURN true;
      END IF;
    END IF;
  END IF;
  r := find(l, id_);
  held := coalesce(r.turn > 0, false);
  IF action_ = 'pass' THEN
    IF held AND r.turn = turn_ THEN
      r.deadline := l.last + r.patience;
      l.due := least(l.due, r.deadline);
      l := take_back(l, r);
    END IF;
  ELSIF r.id IS NOT NULL THEN
    IF held THEN
      l := end_hold(l, r);
      -- The next holder learns of the crash.
      l.crashed := l.crashed OR action_ = 'leave' AND r.crashed;
    ELSIF r.state = 'w' THEN
      l.waiting := l.waiting - 1;
    END IF;
    IF NOT held OR r.cost < l.shares THEN
      DELETE FROM entries WHERE lock = l.number AND id = id_;
    END IF;
  END IF;
  l := check_server(l, quarantine_);
  l := reap(l);
  l := grant_next(l, NULL);
  RETURN save(l, held);
END $body$;
