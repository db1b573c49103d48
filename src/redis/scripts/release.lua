-- ARGV: 1 quarantine, 2 'release' or 'pass', then ids. To pass gives an offer back and keeps the place in line, for a future that is not polled.
-- Replies how many of them held.
quarantine = ARGV[1] == '1'
if run == '' then run = false end
reap()
local held = 0
for i = 3, #ARGV do
  local id = ARGV[i]
  local rec = record(id)
  if rec then
    changed = true
    if redis.call('ZREM', HOLD, id) == 1 then
      if rec[OFFERED] == 0 then held = held + 1 end
      if ARGV[2] == 'pass' then
        redis.call('ZADD', ALIVE, int(now + rec[PATIENCE]), id)
        pass(id, rec)
      else
        used = used - rec[COST]
        -- An offer that was never claimed: the news of a crash is for the next one.
        if rec[OFFERED] == 1 and rec[CRASHED] == 1 then crashed = 1 end
      end
    end
    if ARGV[2] ~= 'pass' then
      redis.call('HDEL', WHO, id)
      redis.call('ZREM', QUEUE, id)
      redis.call('ZREM', ALIVE, id)
    end
  end
end
if known then
  grant()
  save()
end
return held
