-- ARGV: 3 action, 4 id, 5 a turn.
--   'release': ends a hold.
--   'leave': ends a wait, or a grant that was not taken.
--   'pass': gives back this turn for a future that is not polled. Its queue entry stays.
-- Replies 1 if the id held the lock, else 0.
local r = find(ARGV[4])
local held = r and r.turn > 0
if ARGV[3] == 'pass' then
  if held and r.turn == tonumber(ARGV[5]) then
    keep_waiting(r)
    take_back(r)
  end
elseif r then
  if held then
    end_hold(r)
    -- The next holder learns of the crash.
    if ARGV[3] == 'leave' and r.crashed == '1' then S.crashed = true end
  else
    redis.call('ZREM', KEYS[2], r.id)
  end
  if not held or r.cost < S.limit or r.turn ~= tonumber(r.number) then
    -- It was queued, or it shares the lock.
    redis.call('HDEL', KEYS[5], r.id)
    redis.call('ZREM', KEYS[3], r.id)
  end
end
if state then
  local moved = check_server()
  reap()
  grant()
  if held and not moved and S.used == 0 and redis.call('EXISTS', KEYS[2]) == 0 then
    local last = string.match(redis.call('GET', KEYS[6]) or '', '^%d+') or r.token
    redis.call('SET', KEYS[6], last .. ' idle')
  end
  save()
end
return held and 1 or 0
