-- ARGV: 3 what is done, 4 id, 5 a turn. 'release': who was inside goes. 'leave': who waited goes, or had not yet taken what it was given. 'pass': it gives back this turn and keeps its
-- place in line, for a future that is not polled.
-- Replies whether it was inside.
local r = find(ARGV[4])
local held = r and r.turn > 0
if ARGV[3] == 'pass' then
  if held and r.turn == tonumber(ARGV[5]) then
    waits(r)
    pass(r)
  end
elseif r then
  if held then
    leave(r)
    -- The news of a crash is for the next one.
    if ARGV[3] == 'leave' and r.crashed == '1' then S.crashed = true end
  else
    redis.call('ZREM', KEYS[2], r.id)
  end
  if not held or r.cost < S.limit or r.turn ~= tonumber(r.number) then
    -- It has stood in line, or shares.
    redis.call('HDEL', KEYS[5], r.id)
    redis.call('ZREM', KEYS[3], r.id)
  end
end
if state then
  local moved = arrive()
  reap()
  grant()
  if held and not moved and S.used == 0 and redis.call('EXISTS', KEYS[2]) == 0 then
    local last = string.match(redis.call('GET', KEYS[6]) or '', '^%d+') or r.token
    redis.call('SET', KEYS[6], last .. ' idle')
  end
  save()
end
return held and 1 or 0
