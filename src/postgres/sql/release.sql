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
BEGIN
  IF l.number IS NULL THEN
    RETURN false;
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
