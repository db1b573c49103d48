-- ARGV: 3 'all', 'idle' or a token. Ends holds against the will of their holders; 'idle' instead deletes all keys when nobody holds or waits.
-- Replies how many holds were ended, or 1 when the keys are gone and 0 when somebody is there.
if state then arrive() end
reap()
if ARGV[3] == 'idle' then
  if S.used > 0 or redis.call('ZCARD', KEYS[3]) > 0 then
    if state then
      grant()
      save()
    end
    return 0
  end
  redis.call('DEL', unpack(KEYS, 1, 6))
  return 1
end
local ended = 0
for _, r in ipairs(inside(-1)) do
  if ARGV[3] == 'all' or r.token == ARGV[3] then
    expire(r)
    ended = ended + 1
  end
end
if state then
  grant()
  save()
end
return ended
