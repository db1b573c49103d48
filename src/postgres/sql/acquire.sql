-- Acquires a lock, queues, or repeats either.
--   most_: the most waiters there may be for a new id, or -1; try_: do not queue;
--   token_: the token of a hold to assert, or 0;
--   returned_: the turn that the waiter gave back last, or 0. The server may not have received that
--   yet.
-- Replies one of:
--   '1 <token> <crashed> <turn>': granted
--   '2 <position> <wake> <now> <blocked> <fenced> <sole>': queued
--   '3': refused
--   '4 <length>': too many waiters
--   '5 <what> <theirs> <ours>': another lock
--   '6': another caller acquired the lock since
CREATE OR REPLACE FUNCTION "@schema@".acquire(
  name_ text, kind_ text, shares_ bigint, lease_ bigint, id_ text, cost_ bigint, mode_ text,
  drops_ boolean, patience_ bigint, claim_ bigint, delay_ bigint, inbox_ text, owner_ text,
  most_ bigint, try_ boolean, token_ bigint, returned_ bigint, quarantine_ boolean, durable_ boolean
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
DECLARE
  l "@schema@".locks;
  r "@schema@".entries;
  fresh boolean;
  shares_it boolean;
BEGIN
  IF cost_ < 1 OR shares_ < 1 OR lease_ < 1 OR patience_ < 1 OR claim_ < 1 OR delay_ < 0 OR mode_ NOT IN ('x', 's', 'p') THEN
    RAISE EXCEPTION 'invalid request for a lock' USING ERRCODE = '22023';
  END IF;
  l := begin_step(name_, durable_);
  IF l.number IS NULL THEN
    INSERT INTO locks (key, name, kind, shares, lease, last)
      SELECT sha256(convert_to(name_, 'UTF8')), name_, kind_, shares_, lease_, greatest(tick, clock()) FROM floor
      RETURNING * INTO l;
    INSERT INTO fences VALUES (l.number, l.last);
  ELSIF l.kind <> kind_ THEN
    RETURN concat_ws(' ', 5, 'kind', l.kind, kind_);
  ELSIF l.shares <> shares_ THEN
    RETURN concat_ws(' ', 5, 'limit', l.shares, shares_);
  ELSIF l.lease <> lease_ AND (l.used > 0 OR l.waiting > 0) THEN
    -- It may only be in use by callers that died.
    l := reap(check_server(l, quarantine_));
    l := grant_next(l, NULL);
    l := save(l, l);
    IF l.used > 0 OR l.waiting > 0 THEN
      RETURN concat_ws(' ', 5, 'lease', l.lease, lease_);
    END IF;
  END IF;
  l.lease := lease_;
  -- The usual case in few statements: a plain lock is free, and nothing is overdue. All other cases
  -- follow below.
  IF l.shares = 1 AND cost_ = 1 AND l.used = 0 AND l.waiting = 0 AND token_ = 0 AND l.last < l.due AND l.last >= l.until THEN
    l.last := l.last + 1;
    UPDATE fences SET turn = l.last
      WHERE lock = (SELECT lock FROM fences WHERE lock = l.number
        AND NOT EXISTS (SELECT FROM entries WHERE lock = l.number)
        AND (NOT quarantine_ OR l.run = (SELECT run FROM marker)) FOR UPDATE SKIP LOCKED);
    IF FOUND THEN
      UPDATE locks SET lease = lease_, last = l.last, used = 1, due = least(l.due, l.last + lease_),
          crashed = false, drops = l.drops OR drops_, fenced = false, token = l.last,
          sole = ROW(l.number, id_, l.last, 'h', l.last, l.last, false, l.crashed, cost_, mode_, drops_,
            patience_, claim_, delay_, inbox_, owner_, NULL, l.last + lease_)
        WHERE number = l.number;
      RETURN concat_ws(' ', 1, l.last, l.crashed::int, l.last);
    END IF;
  END IF;
  l := check_server(l, quarantine_);

  r := find(l, id_);
  IF r.turn > 0 AND r.turn = returned_ THEN
    r.deadline := l.last + r.patience;
    l.due := least(l.due, r.deadline);
    l := take_back(l, r);
    r := find(l, id_);
  END IF;
  IF l.last >= l.due AND r.turn > 0 IS NOT TRUE THEN
    l := reap(l);
    r := find(l, id_);
  END IF;

  -- A writer that becomes a reader asserts its hold with the wish of a reader.
  shares_it := r.mode = 'x' AND mode_ = 's' AND cost_ = 1;
  IF shares_it THEN
    IF r.turn > 0 THEN
      l := end_hold(l, r);
      l.used := l.used + 1;
      r.state := NULL;
    END IF;
    r.cost := 1;
    r.mode := 's';
  END IF;
  IF r.turn > 0 THEN
    -- A repeated request, a claim, or a downgrade.
    r.offered := false;
    l := hold(l, r, l.last + l.lease);
    IF shares_it THEN
      l := grant_next(l, NULL);
    END IF;
    RETURN save(l, concat_ws(' ', 1, r.token, r.crashed::int, r.turn));
  END IF;

  fresh := r.id IS NULL;
  IF fresh THEN
    r := ROW(l.number, id_, l.last + 1, NULL, 0, 0, false, false, cost_, mode_, drops_,
      patience_, claim_, delay_, inbox_, owner_, NULL, NULL)::"@schema@".entries;
    l.drops := l.drops OR drops_;
  END IF;
  IF r.cost > l.shares THEN
    RETURN save(l, concat_ws(' ', 5, 'limit', l.shares, r.cost));
  END IF;

  IF token_ > 0 THEN
    -- The hold of this caller is no longer on record. Its token shows whether the lock was granted
    -- since.
    IF l.used + r.cost > l.shares OR r.mode <> 'p' AND l.token > token_ THEN
      RETURN save(l, '6'::text);
    END IF;
    IF NOT is_open(l, r.mode, greatest(l.last, token_)) THEN
      RAISE EXCEPTION 'a transaction has asserted another hold of this lock' USING ERRCODE = '55P03';
    END IF;
    l.token := greatest(l.token, token_);
    l.last := greatest(l.last, token_);
    l.used := l.used + r.cost;
    r.turn := token_;
    r.token := token_;
    l := hold(l, r, l.last + l.lease);
    RETURN save(l, concat_ws(' ', 1, token_, 0, token_));
  END IF;

  l := expire_disconnected(l);
  IF l.waiting > 0 THEN
    l := grant_next(l, id_);
    IF NOT fresh THEN
      r := find(l, id_);
    END IF;
  END IF;
  IF r.turn = 0 AND r.state IS DISTINCT FROM 'w' THEN
    IF l.waiting = 0 AND l.used + r.cost <= l.shares AND l.last >= l.until THEN
      l := give(l, r, id_);
      IF NOT l.fenced THEN
        r := find(l, id_);
        RETURN save(l, concat_ws(' ', 1, r.token, r.crashed::int, r.turn));
      END IF;
    END IF;
    IF try_ THEN
      l.fenced := l.waiting > 0 AND l.fenced;
      RETURN save(l, '3'::text);
    ELSIF fresh AND most_ >= 0 AND l.waiting >= most_ THEN
      l.fenced := l.waiting > 0 AND l.fenced;
      RETURN save(l, concat_ws(' ', 4, l.waiting));
    END IF;
    r.state := 'w';
    r.deadline := l.last + r.patience;
    l.waiting := l.waiting + 1;
    l.last := greatest(l.last, r.number);
    IF fresh THEN
      INSERT INTO entries SELECT r.*;
    ELSE
      -- The waiter was bypassed. It is queued again with its old number, and may be first.
      UPDATE entries SET state = 'w', deadline = r.deadline, cost = r.cost, mode = r.mode
        WHERE lock = r.lock AND id = r.id;
      l := grant_next(l, id_);
      r := find(l, id_);
    END IF;
  ELSIF r.turn = 0 THEN
    r.deadline := l.last + r.patience;
    UPDATE entries SET deadline = r.deadline WHERE lock = r.lock AND id = r.id;
  END IF;
  l.due := least(l.due, r.deadline);
  IF r.turn > 0 THEN
    RETURN save(l, concat_ws(' ', 1, r.token, r.crashed::int, r.turn));
  END IF;
  RETURN save(l, concat_ws(' ', 2, position_of(l, r, fresh), wake(l), l.last, greatest(l.until - l.last, 0), l.fenced::int, shown_sole(l)));
END $body$;

-- How many waiters are before this one. A new one is last.
CREATE OR REPLACE FUNCTION "@schema@".position_of(l "@schema@".locks, r "@schema@".entries, last_ boolean) RETURNS bigint
LANGUAGE plpgsql AS $body$
BEGIN
  IF last_ THEN
    RETURN l.waiting - 1;
  END IF;
  RETURN (SELECT count(*) FROM entries WHERE lock = l.number AND state = 'w' AND number < r.number);
END $body$;
