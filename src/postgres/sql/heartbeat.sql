-- Renews the holds and waits of one client. Replies '<wake> <now> <blocked> <fenced>', then four
-- numbers for each id, then '|' and the holder of all shares:
--   1 <token> <crashed> <turn>: the hold is renewed
--   2 <position> 0 0: waits
--   3 0 0 0: bypassed
--   0 0 0 0: unknown
CREATE OR REPLACE FUNCTION "@schema@".heartbeat(name_ text, ids_ text[], quarantine_ boolean, durable_ boolean) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
DECLARE
  l "@schema@".locks := begin_step(name_, durable_);
  before "@schema@".locks := l;
  t bigint := l.last;
  first bigint;
  answer text;
BEGIN
  IF l.number IS NULL THEN
    RETURN '0 0 0 0' || repeat(' 0 0 0 0', coalesce(cardinality(ids_), 0)) || '|';
  END IF;
  l := check_server(l, quarantine_);
  -- First renew the ids of this request, then remove what is overdue.
  IF (l.sole).id = ANY (ids_) AND (l.sole).expiry > t THEN
    l.sole.offered := false;
    l.sole.expiry := t + l.lease;
  END IF;
  WITH renewed AS (
    UPDATE entries SET
        deadline = CASE WHEN state = 'h' THEN deadline ELSE t + patience END,
        offered = false,
        expiry = CASE WHEN state = 'h' THEN t + l.lease END
      WHERE lock = l.number AND id = ANY (ids_) AND (state <> 'h' OR expiry > t)
      RETURNING deadline, expiry)
    SELECT least(min(deadline), min(expiry)) INTO first FROM renewed;
  l.due := least(l.due, first, (l.sole).expiry);
  l := reap(l);
  l := expire_disconnected(l);
  l := grant_next(l, NULL);
  -- Offers of this run of the step are claimed by it too.
  IF (l.sole).offered AND (l.sole).id = ANY (ids_) THEN
    l.sole.offered := false;
    l.sole.expiry := t + l.lease;
  ELSIF l.last <> before.last THEN
    UPDATE entries SET offered = false, expiry = t + l.lease
      WHERE lock = l.number AND id = ANY (ids_) AND offered;
  END IF;
  SELECT string_agg(CASE
      WHEN given.id = (l.sole).id THEN concat_ws(' ', 1, (l.sole).token, (l.sole).crashed::int, (l.sole).turn)
      WHEN r.state = 'h' THEN concat_ws(' ', 1, r.token, r.crashed::int, r.turn)
      WHEN r.state = 'w' THEN concat_ws(' ', 2, q.position, 0, 0)
      WHEN r.state = 'b' THEN '3 0 0 0'
      ELSE '0 0 0 0' END, ' ' ORDER BY given.at)
    INTO answer
    FROM unnest(ids_) WITH ORDINALITY AS given (id, at)
    LEFT JOIN entries r ON r.lock = l.number AND r.id = given.id
    LEFT JOIN (SELECT id, row_number() OVER (ORDER BY number) - 1 AS position
      FROM entries WHERE lock = l.number AND state = 'w' AND l.waiting > 0) q ON q.id = given.id;
  answer := concat_ws(' ', wake(l), t, greatest(l.until - t, 0), l.fenced::int, answer) || '|' || shown_sole(l);
  RETURN CASE WHEN l IS DISTINCT FROM before THEN save(l, answer) ELSE answer END;
END $body$;
