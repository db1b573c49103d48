-- ARGV: 1 quarantine, then ids
-- Replies {wake, blind, and for each id: code, a, b}: 1, token, crashed: holds, renewed · 2, place, 0: waits · 3, 0, 0: passed over · 0, 0, 0: not known
quarantine = ARGV[1] == '1'
local reply = {0, 0}
if not known then
  for i = 2, #ARGV do
    for _ = 1, 3 do reply[#reply + 1] = 0 end
  end
  return reply
end
if run == '' then run = false end

-- First the news of those who are alive, then the verdict on those who are not.
for i = 2, #ARGV do
  local id = ARGV[i]
  local rec = record(id)
  if rec and rec[TOKEN] == 0 then
    redis.call('ZADD', ALIVE, int(now + rec[PATIENCE]), id)
  elseif rec and tonumber(redis.call('ZSCORE', HOLD, id) or now + 1) > now then
    changed = true
    redis.call('ZADD', HOLD, int(now + rec[LEASE]), id)
    if rec[OFFERED] == 1 then
      rec[OFFERED] = 0
      redis.call('ZREM', ALIVE, id)
      keep(id, rec)
    end
  end
end
settle()
for i = 2, #ARGV do
  local id = ARGV[i]
  local rec = record(id)
  local code, a, b = 0, 0, 0
  if rec and rec[TOKEN] > 0 then
    if rec[OFFERED] == 1 then
      -- Offered by this very script.
      rec[OFFERED] = 0
      redis.call('ZADD', HOLD, int(now + rec[LEASE]), id)
      redis.call('ZREM', ALIVE, id)
      keep(id, rec)
    end
    code, a, b = 1, rec[TOKEN], rec[CRASHED]
  elseif rec then
    a = redis.call('ZRANK', QUEUE, id)
    if a then code = 2 else code, a = 3, 0 end
  end
  local at = #reply
  reply[at + 1], reply[at + 2], reply[at + 3] = code, a, b
end
reply[1], reply[2] = wake(), blind
save()
return reply
