-- For use in a transaction of your own. Both raise SL001 unless the lock is held with this token.
-- Otherwise no other caller acquires the lock before that transaction has ended, however long it
-- takes. (A rollback to a savepoint before the call ends that too.)
--   assert_held: the hold of a lock, of a writer, or of permits.
--   assert_shared: the hold of a reader. It does not put off other readers.
CREATE OR REPLACE FUNCTION "@schema@".assert_hold(name_ text, token_ bigint, shared_ boolean) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
  key_ bytea := sha256(convert_to(name_, 'UTF8'));
  l "@schema@".locks;
  was bigint;
  found_ boolean;
  t bigint := 0;
BEGIN
  SELECT number INTO was FROM locks WHERE key = key_;
  -- The lock on this row puts off grants. In a transaction with a snapshot, this fails with 40001
  -- if there was a grant since the snapshot.
  IF shared_ THEN
    PERFORM 1 FROM fences WHERE lock = was FOR KEY SHARE;
  ELSE
    PERFORM 1 FROM fences WHERE lock = was FOR SHARE;
  END IF;
  found_ := FOUND;
  -- Only now the hold is looked up: it may have ended during that statement.
  SELECT * INTO l FROM locks WHERE key = key_;
  IF current_setting('transaction_isolation') = 'read committed' THEN
    t := clock();
  -- A snapshot does not show renewals. There was no grant since, so a hold in it counts.
  END IF;
  IF found_ AND l.number = was AND EXISTS (
      SELECT FROM (
          SELECT (l.sole).* WHERE (l.sole).id IS NOT NULL
          UNION ALL SELECT * FROM entries WHERE lock = l.number AND state = 'h') AS h
        WHERE h.token = token_ AND (h.mode = 's') = shared_ AND h.expiry > t)
    -- After a crash, holds count when their holders have asserted them.
    AND (l.run IS NULL OR EXISTS (SELECT FROM marker WHERE run = l.run))
  THEN
    RETURN;
  END IF;
  RAISE EXCEPTION 'lock "%" is not held with token %', name_, token_ USING ERRCODE = 'SL001';
END $body$;

CREATE OR REPLACE FUNCTION "@schema@".assert_held(name text, token bigint, namespace text DEFAULT 'stanchion') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
BEGIN
  PERFORM assert_hold(namespace || ':' || name, token, false);
END $body$;

CREATE OR REPLACE FUNCTION "@schema@".assert_shared(name text, token bigint, namespace text DEFAULT 'stanchion') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = "@schema@", pg_temp AS $body$
BEGIN
  PERFORM assert_hold(namespace || ':' || name, token, true);
END $body$;
