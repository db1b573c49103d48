-- Shows a lock at one instant. Changes nothing. The rows are:
--   'l': '<last token> <doubt> <limit> <fenced> <kind>'
--   'h', 'w': a holder or waiter as text, and for how many microseconds it holds or waits
-- Doubt is 1 if an acquire would now be refused because grants may have been lost. It is 2 if the
-- recorded holders may be outdated too. Otherwise it is 0.
CREATE OR REPLACE FUNCTION "@schema@".inspect(name_ text, most_ bigint, lease_ bigint, quarantine_ boolean)
RETURNS TABLE (what text, shown text, age bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
BEGIN
  RETURN QUERY
  WITH l AS MATERIALIZED (SELECT * FROM locks WHERE key = sha256(convert_to(name_, 'UTF8'))),
    m AS MATERIALIZED (SELECT run, born FROM marker),
    now AS MATERIALIZED (SELECT greatest(clock(), (SELECT last FROM l)) AS t),
    doubt AS (SELECT CASE
      WHEN quarantine_ AND (SELECT run FROM l) IS NOT NULL AND (SELECT run FROM l) IS DISTINCT FROM (SELECT run FROM m) THEN 2
      WHEN (SELECT until FROM l) > t THEN 1
      WHEN quarantine_ AND (SELECT run FROM l) IS NULL AND coalesce((SELECT born FROM m), t) + lease_ > t THEN 1
      ELSE 0 END AS doubt FROM now),
    holders AS (
      SELECT (sole).* FROM l WHERE (sole).id IS NOT NULL
      UNION ALL SELECT entries.* FROM l JOIN entries ON lock = l.number AND state = 'h'),
    waiters AS (
      SELECT entries.* FROM l JOIN entries ON lock = l.number AND state = 'w' ORDER BY entries.number LIMIT most_)
  SELECT 'l', concat_ws(' ', coalesce(l.token, 0), doubt, coalesce(l.shares, 0), coalesce(l.fenced, false)::int, coalesce(l.kind, '-')), 0::bigint
    FROM doubt LEFT JOIN l ON true
  UNION ALL SELECT 'h', shown(h), greatest(t - h.turn, 0) FROM holders AS h, now WHERE h.expiry > t
  UNION ALL (SELECT 'w', shown(w), greatest(t - w.number, 0) FROM waiters AS w, now WHERE w.deadline > t ORDER BY w.number);
END $body$;
