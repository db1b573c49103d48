-- ARGV: 3 what is done, then ids. 'release': who was inside goes. 'leave': who waited goes, or had not yet taken what it was given. 'pass': the same, but it keeps its place in line, for a future that is not polled.
-- Replies how many were inside.
local held, last = 0, nil
reap()
for i = 4, #ARGV do
  local r = find(ARGV[i])
  local inside = r and r.turn > 0
  if inside then
    held, last = held + 1, r.token
    if ARGV[3] == 'pass' then
      waits(r)
      pass(r)
    else
      leave(r)
      -- The news of a crash is for the next one.
      if ARGV[3] == 'leave' and r.crashed == '1' then S.crashed = true end
    end
  end
  if r and ARGV[3] ~= 'pass' then
    if not inside or r.cost < S.limit or r.turn ~= tonumber(r.number) then
      -- It has stood in line, or shares.
      redis.call('HDEL', KEYS[5], r.id)
      redis.call('ZREM', KEYS[3], r.id)
    end
    if not inside then redis.call('ZREM', KEYS[2], r.id) end
  end
end
if state then
  grant()
  if last and S.used == 0 and redis.call('EXISTS', KEYS[2]) == 0 then
    if S.limit > 1 then last = string.match(redis.call('GET', KEYS[6]) or '', '^%d+') or last end
    redis.call('SET', KEYS[6], last .. ' idle')
  end
  save()
end
return held
